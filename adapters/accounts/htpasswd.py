"""Accounts from an htpasswd file, which is read again when it changes."""

import hashlib
import os
import secrets
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import bcrypt

from application.ports.telemetry import EventSink
from domain.access import Account, Credentials
from domain.events import AccountsReloaded, AccountsUnreadable
from domain.htpasswd import parse_htpasswd
from domain.ports import Clock

_CHECK_SECONDS = 1.0
_STAMP_BYTES = 16
_PASSWORD_LIMIT = 72
"""Bytes. bcrypt reads no more, so a longer one would be as good as its beginning."""

_FileState = tuple[int, int, int]


@dataclass(frozen=True)
class _Entry:
    """`stamp` identifies user and hash where the hash itself is not needed."""

    hashed: bytes = field(repr=False)
    stamp: str


@dataclass(frozen=True)
class _Accounts:
    """What the file said when it was last right."""

    entries: Mapping[str, _Entry]
    in_order: tuple[_Entry, ...]


class HtpasswdAccountDirectory:
    """Plays the AccountDirectory. `taken` are the users that the file must not name, `stamp_key` (at most 64 bytes) is
    the key of the stamps. A stamp follows the hash: a new salt for the same password gives another one.

    A file that is wrong when it changes leaves the accounts as they were: it may be half written. One that is wrong
    when a worker takes the place of a dead one leaves that worker without accounts, which lets nobody in.
    """

    def __init__(self, path: Path, taken: frozenset[str], clock: Clock, events: EventSink, stamp_key: bytes) -> None:
        self._path = path
        self._taken = taken
        self._clock = clock
        self._events = events
        self._stamp_key = stamp_key
        self._key = secrets.token_bytes(16)
        self._accounts = _Accounts({}, ())
        self._file_state: _FileState | str | None = None
        self._checked_at = clock.now()
        self._reload_if_changed(is_first=True)

    def find(self, credentials: Credentials) -> Account | None:
        """Takes as long as bcrypt does, so not on the event loop. Goes by what `knows` and `stamp` last read.

        A user who is not there is checked all the same, against another's hash, always the same one's: so the time
        tells nothing, whatever costs the hashes have.
        """
        read = self._accounts
        entry = read.entries.get(credentials.username)
        against = entry or self._decoy(read, credentials.username)
        password = credentials.password.encode(errors="surrogatepass")
        # bcrypt repeats a password with a NUL behind it to fill its key: "a" and "a\0a" have the same hash.
        if against is None or len(password) > _PASSWORD_LIMIT or b"\0" in password:
            return None
        is_right = bcrypt.checkpw(password, against.hashed)
        return Account(credentials.username, entry.stamp) if is_right and entry else None

    def knows(self, name: str) -> bool:
        self._reload_periodically()
        return name in self._accounts.entries

    def stamp(self, name: str) -> str:
        self._reload_periodically()
        entry = self._accounts.entries.get(name)
        return entry.stamp if entry else ""

    def _decoy(self, read: _Accounts, name: str) -> _Entry | None:
        if not read.in_order:
            return None
        digest = hashlib.blake2b(name.encode(errors="surrogatepass"), key=self._key, digest_size=8).digest()
        return read.in_order[int.from_bytes(digest) % len(read.in_order)]

    def _reload_periodically(self) -> None:
        now = self._clock.now()
        if abs(now - self._checked_at) >= _CHECK_SECONDS:  # a clock may be set back
            self._checked_at = now
            self._reload_if_changed()

    def _reload_if_changed(self, *, is_first: bool = False) -> None:
        """Read the file if it is not the one that was last read, well or not: what is wrong is said once."""
        file_state = self._file_state
        try:
            # Looked at before it is read: what is written meanwhile shows at the next look.
            self._file_state = _file_state_of(self._path)
            if self._file_state == file_state:
                return
            found = parse_htpasswd(self._path.read_text(encoding="utf-8"), self._taken)
        except UnicodeDecodeError:
            self._refuse("is not UTF-8 text")
        except ValueError as error:
            self._refuse(str(error))
        except OSError as error:
            reason = f"cannot be read ({error.strerror or type(error).__name__})"
            self._file_state = reason
            if reason != file_state:
                self._refuse(reason)
        else:
            entries = {user: self._entry(user, hashed) for user, hashed in found.items()}
            self._accounts = _Accounts(entries, tuple(entries.values()))
            if not is_first:
                self._events.emit(AccountsReloaded(len(entries)))

    def _entry(self, user: str, hashed: str) -> _Entry:
        # A user of the file holds no colon, so that no two entries are one text.
        stamp = hashlib.blake2b(f"{user}:{hashed}".encode(), key=self._stamp_key, digest_size=_STAMP_BYTES)
        return _Entry(hashed.encode(), stamp.hexdigest())

    def _refuse(self, reason: str) -> None:
        self._events.emit(AccountsUnreadable(f"{self._path}: {reason}"))


def _file_state_of(path: Path) -> _FileState:
    """By which a changed file is known. Raises OSError for what is no file: to read a pipe would wait for a writer."""
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        raise OSError(0, "not a regular file", os.fspath(path))
    return found.st_mtime_ns, found.st_size, found.st_ino
