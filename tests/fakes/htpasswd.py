"""htpasswd files in the format of `htpasswd -B`, with hashes that are fast to compute."""

from collections.abc import Mapping
from pathlib import Path

import bcrypt


def hashed(password: str, cost: int = 4, kind: str = "2y") -> str:
    made = bcrypt.hashpw(password.encode(), bcrypt.gensalt(cost)).decode()
    return made.replace("$2b$", f"${kind}$")


def lines_of(accounts: Mapping[str, str], cost: int = 4) -> str:
    return "".join(f"{user}:{hashed(password, cost)}\n" for user, password in accounts.items())


def write(path: Path, text: str) -> None:
    """Replace the file atomically."""
    (new := path.with_suffix(".new")).write_text(text, encoding="utf-8")
    new.replace(path)
