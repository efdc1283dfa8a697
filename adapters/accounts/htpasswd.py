"""Accounts with bcrypt hashes, of the settings or of an htpasswd file, which is read again when it changes."""

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
"""Bytes. bcrypt ignores further bytes, so every longer password with the same beginning would be accepted."""

_FileState = tuple[int, int, int]


@dataclass(frozen=True)
class _Entry:
    """The bcrypt hash of one user. `stamp` identifies user and hash without revealing the hash."""

    hashed: bytes = field(repr=False)
    stamp: str


class HashedAccountDirectory:
    """Implements AccountDirectory over bcrypt hashes, by user name. `stamp_key`: the key of the stamps, at most 64
    bytes. A stamp is computed from the hash, so a new salt for the same password gives a new stamp.
    """

    def __init__(self, hashes: Mapping[str, str], stamp_key: bytes) -> None:
        self._key = secrets.token_bytes(16)
        self._entries = {user: _entry(user, hashed, stamp_key) for user, hashed in hashes.items()}

    def find(self, credentials: Credentials) -> Account | None:
        """Takes as long as bcrypt, so call it in a thread.

        For an unknown user it compares the password with the hash of another user, always the same one for the same
        name. So the response time does not reveal which users exist, even if the hashes have different costs.
        """
        entry = self._entries.get(credentials.username)
        against = entry or self._decoy(credentials.username)
        password = credentials.password.encode(errors="surrogatepass")
        # bcrypt repeats the NUL-terminated password to fill its key, so "a" and "a\0a" have the same hash.
        if against is None or len(password) > _PASSWORD_LIMIT or b"\0" in password:
            return None
        is_right = bcrypt.checkpw(password, against.hashed)
        return Account(credentials.username, entry.stamp) if is_right and entry else None

    def some_account(self) -> str:
        return next(iter(self._entries), "")

    def stamp(self, name: str) -> str:
        entry = self._entries.get(name)
        return entry.stamp if entry else ""

    def _decoy(self, name: str) -> _Entry | None:
        entries = list(self._entries.values())
        if not entries:
            return None
        digest = hashlib.blake2b(name.encode(errors="surrogatepass"), key=self._key, digest_size=8).digest()
        return entries[int.from_bytes(digest) % len(entries)]


def _entry(user: str, hashed: str, stamp_key: bytes) -> _Entry:
    # User names in the file contain no colon, so different entries give different texts.
    stamp = hashlib.blake2b(f"{user}:{hashed}".encode(), key=stamp_key, digest_size=_STAMP_BYTES)
    return _Entry(hashed.encode(), stamp.hexdigest())


class HtpasswdAccountDirectory:
    """Implements AccountDirectory over an htpasswd file.

    `taken`: user names that the file must not contain. `stamp_key`: see HashedAccountDirectory.

    If the file becomes invalid, the accounts stay as they were: another program may be writing the file. If the file is
    invalid when a new worker replaces a dead one, that worker has no accounts and rejects every login.
    """

    def __init__(self, path: Path, taken: frozenset[str], clock: Clock, events: EventSink, stamp_key: bytes) -> None:
        self._path = path
        self._taken = taken
        self._clock = clock
        self._events = events
        self._stamp_key = stamp_key
        self._last_valid = HashedAccountDirectory({}, stamp_key)
        self._file_state: _FileState | str | None = None
        self._checked_at = clock.now()
        self._reload_if_changed(is_first=True)

    def find(self, credentials: Credentials) -> Account | None:
        """Takes as long as bcrypt, so call it in a thread. Uses the file as `stamp` last read it."""
        return self._last_valid.find(credentials)

    def some_account(self) -> str:
        self._reload_periodically()
        return self._last_valid.some_account()

    def stamp(self, name: str) -> str:
        self._reload_periodically()
        return self._last_valid.stamp(name)

    def _reload_periodically(self) -> None:
        now = self._clock.now()
        if abs(now - self._checked_at) >= _CHECK_SECONDS:  # the clock may go back
            self._checked_at = now
            self._reload_if_changed()

    def _reload_if_changed(self, *, is_first: bool = False) -> None:
        """Read the file if it has changed since the last attempt, so that each error is reported once."""
        file_state = self._file_state
        try:
            # Read the state before the content: the next check then notices a change during the read.
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
            self._last_valid = HashedAccountDirectory(found, self._stamp_key)
            if not is_first:
                self._events.emit(AccountsReloaded(len(found)))

    def _refuse(self, reason: str) -> None:
        self._events.emit(AccountsUnreadable(f"{self._path}: {reason}"))


def _file_state_of(path: Path) -> _FileState:
    """Modification time, size and inode. Raises OSError unless it is a regular file: reading a pipe could block."""
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        raise OSError(0, "not a regular file", os.fspath(path))
    return found.st_mtime_ns, found.st_size, found.st_ino
