"""Parser of htpasswd files with bcrypt hashes, as `htpasswd -B` writes them."""

import re
from collections.abc import Container
from dataclasses import dataclass, field

# $2y$, $2a$ and $2b$ are the same algorithm. `htpasswd -C` accepts costs from 4 to 17; with a higher one, a login would
# take minutes. bcrypt requires that four bits of the last character of the salt are zero.
_HASH = re.compile(r"\$2[aby]\$(?:0[4-9]|1[0-7])\$[./A-Za-z0-9]{21}[.Oeu][./A-Za-z0-9]{31}")


@dataclass(frozen=True)
class HashedLogin:
    """A user and the bcrypt hash of the password. The repr contains only the user."""

    user: str
    hashed: str = field(repr=False)


def parse_htpasswd(text: str, taken: Container[str] = ()) -> dict[str, str]:
    """The hash of each user. Raises ValueError, whose message contains the line number but not the secret line.

    `taken`: users from other sources, which the file must not contain. A user in two places would have two passwords,
    and would still have access after an operator removed one of them.
    """
    found: dict[str, str] = {}
    for number, line in enumerate(text.split("\n"), start=1):
        entry = line.strip()
        if not entry or entry.startswith("#"):
            continue
        user, _, hashed = entry.partition(":")
        if not user or not user.isprintable() or not hashed:
            raise ValueError(f"line {number} is not in the form user:hash")
        if not _HASH.fullmatch(hashed):
            raise ValueError(f"line {number} does not contain a bcrypt hash (htpasswd -B creates one)")
        if user in found:
            raise ValueError(f"line {number} repeats a user name of an earlier line")
        if user in taken:
            raise ValueError(f"line {number} repeats a user name of ACCOUNTS or ADMIN_ACCOUNTS")
        found[user] = hashed
    if not found:
        raise ValueError("contains no entry")
    return found
