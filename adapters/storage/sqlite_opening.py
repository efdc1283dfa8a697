"""How the file of the index is opened, and made anew where it is of no use."""

import fcntl
import logging
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from adapters.storage.sqlite_schema import TABLES, VERSION

_LOG = logging.getLogger("docker_image_proxy")
_BUSY_SECONDS = 5.0
_BROKEN = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})

Inode = tuple[int, int]


class WrongVersion(sqlite3.DatabaseError):
    """The file is of another version of this service."""


def open_database(path: Path) -> sqlite3.Connection:
    """A connection for this thread. Raises sqlite3.Error or OSError."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _alone(path):
        try:
            return _connection(path)
        except sqlite3.DatabaseError as error:
            if not is_broken(error):
                raise
            _move_aside(path, error)
        return _connection(path)


def set_aside(path: Path, seen: Inode | None, error: sqlite3.Error) -> None:
    """Move the file away, unless another process has done that already. Raises OSError."""
    with _alone(path):
        if inode_of(path) == seen:
            _move_aside(path, error)


def is_broken(error: Exception) -> bool:
    """Whether the file will never be of use again."""
    # The lowest byte is the code, the others say more exactly what it is (sqlite.org/rescode.html).
    return isinstance(error, WrongVersion) or getattr(error, "sqlite_errorcode", 0) & 0xFF in _BROKEN


def inode_of(path: Path) -> Inode | None:
    """Which file the path names now."""
    with suppress(OSError):
        state = path.stat()
        return state.st_dev, state.st_ino
    return None


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """One process at a time: the second to find the file broken must not move away what the first one made."""
    descriptor = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _move_aside(path: Path, error: sqlite3.Error) -> None:
    broken = path.with_name(f"{path.name}.broken")
    path.replace(broken)
    # They would be taken for the new file's.
    for end in ("-wal", "-shm"):
        path.with_name(path.name + end).unlink(missing_ok=True)
    _LOG.warning("the index %s is of no use (%s): set aside as %s, begun anew", path, error, broken.name)


def _connection(path: Path) -> sqlite3.Connection:
    with suppress(FileExistsError):
        # Only a new file: to close an open one would end the locks that other connections of this process have on it.
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600))
    connection = sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        # A power cut may take the last changes, never the file: all of it can be learnt again.
        connection.execute("PRAGMA synchronous = NORMAL")
        _prepare(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _prepare(connection: sqlite3.Connection) -> None:
    """Make the tables in a new file. Raises WrongVersion."""
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version == VERSION:
        return
    if version or connection.execute("SELECT 1 FROM sqlite_master").fetchall():
        raise WrongVersion(f"it has version {version}, not {VERSION}")
    with connection:
        connection.execute("BEGIN IMMEDIATE")
        for statement in TABLES:
            connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {VERSION}")
