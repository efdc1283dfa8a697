"""Accounts from the settings. They do not change while the service runs."""

import hashlib
import hmac
from collections.abc import Iterable, Sequence

from domain.access import Account, Credentials

_STAMP_BYTES = 16


class FixedAccountDirectory:
    """Implements AccountDirectory. `stamp_key`: the key of the stamps, at most 64 bytes."""

    def __init__(self, accounts: Iterable[Credentials], stamp_key: bytes) -> None:
        known = tuple(accounts)
        self._fingerprints = tuple((_fingerprint(one), one.username) for one in known)
        self._stamps = {name: _stamp(name, known, stamp_key) for name in {one.username for one in known}}

    def find(self, credentials: Credentials) -> Account | None:
        """Compares hashes of equal length with every account, so that the response time reveals no account."""
        offered = _fingerprint(credentials)
        found = [name for known, name in self._fingerprints if hmac.compare_digest(known, offered)]
        return Account(found[0], self._stamps[found[0]]) if found else None

    def some_account(self) -> str:
        return min(self._stamps, default="")

    def stamp(self, name: str) -> str:
        return self._stamps.get(name, "")


def _stamp(name: str, known: Sequence[Credentials], key: bytes) -> str:
    """A keyed hash of all passwords of this name: while a password is replaced, a name may have two entries."""
    digest = hashlib.blake2b(key=key, digest_size=_STAMP_BYTES)
    for fingerprint in sorted({_fingerprint(one) for one in known if one.username == name}):
        digest.update(fingerprint)
    return digest.hexdigest()


def _fingerprint(credentials: Credentials) -> bytes:
    return hashlib.sha256(credentials.joined().encode(errors="surrogatepass")).digest()
