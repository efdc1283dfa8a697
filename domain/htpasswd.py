"""What an htpasswd file says: a user and a bcrypt hash on each line, as `htpasswd -B` writes them."""

import re
from collections.abc import Container

# $2y$, $2a$ and $2b$ are the same algorithm. 4 to 17 is what `htpasswd -C` takes: a login of a higher cost would hold
# a thread for minutes. The last character of the salt has four bits that bcrypt wants to be zero.
_HASH = re.compile(r"\$2[aby]\$(?:0[4-9]|1[0-7])\$[./A-Za-z0-9]{21}[.Oeu][./A-Za-z0-9]{31}")


def parse_htpasswd(text: str, taken: Container[str] = ()) -> dict[str, str]:
    """Each user's hash. Raises ValueError, which names a line and never what stands there: that is a secret.

    `taken` are users who are known from elsewhere. One user in two places has two passwords, and whoever removes the
    one believes that the user is gone.
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
            raise ValueError(f"line {number} repeats a user name of ACCOUNTS")
        found[user] = hashed
    if not found:
        raise ValueError("contains no entry")
    return found
