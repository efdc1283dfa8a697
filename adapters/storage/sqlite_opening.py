"""How the file of the index is opened, and made anew where it is of no use."""

import errno
import fcntl
import logging
import os
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from adapters.storage.safe_paths import CacheFolder, cache_folder, open_to_write, state_at
from adapters.storage.sqlite_schema import TABLES, VERSION

_LOG = logging.getLogger("docker_image_proxy")
_BUSY_SECONDS = 5.0
_BROKEN = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})

Inode = tuple[int, int]


class WrongVersion(sqlite3.DatabaseError):
    """The file is of another version of this service."""


def open_database(path: Path) -> sqlite3.Connection:
    """A connection for this thread. `path`: the configured folder and the file's name; the file is in the folder that
    `cache_folder` gives for it. Raises sqlite3.Error or OSError.
    """
    with cache_folder(path.parent, make=True) as folder, _alone(folder, path.name):
        try:
            return _connection(folder, path.name)
        except sqlite3.DatabaseError as error:
            if not is_broken(error):
                raise
            _move_aside(folder, path.name, error)
        return _connection(folder, path.name)


def set_aside(path: Path, seen: Inode | None, error: sqlite3.Error) -> None:
    """Move the file away, unless another process has done that already. Raises OSError."""
    with cache_folder(path.parent) as folder, _alone(folder, path.name):
        if _inode_at(folder, path.name) == seen:
            _move_aside(folder, path.name, error)


def is_broken(error: Exception) -> bool:
    """Whether the file will never be of use again."""
    # The lowest byte is the code, the others say more exactly what it is (sqlite.org/rescode.html).
    return isinstance(error, WrongVersion) or getattr(error, "sqlite_errorcode", 0) & 0xFF in _BROKEN


def inode_of(path: Path) -> Inode | None:
    """Which file the index is now."""
    with suppress(OSError), cache_folder(path.parent) as folder:
        return _inode_at(folder, path.name)
    return None


def _inode_at(folder: CacheFolder, name: str) -> Inode | None:
    return _inode(state_at(folder.descriptor, name))


def _inode(state: os.stat_result | None) -> Inode | None:
    return (state.st_dev, state.st_ino) if state else None


@contextmanager
def _alone(folder: CacheFolder, name: str) -> Iterator[None]:
    """One process at a time: the second to find the file broken must not move away what the first one made."""
    descriptor = open_to_write(folder.descriptor, f"{name}.lock")
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _move_aside(folder: CacheFolder, name: str, error: sqlite3.Error) -> None:
    broken = f"{name}.broken"
    os.replace(name, broken, src_dir_fd=folder.descriptor, dst_dir_fd=folder.descriptor)
    # They would be taken for the new file's.
    for end in ("-wal", "-shm"):
        with suppress(FileNotFoundError):
            os.unlink(name + end, dir_fd=folder.descriptor)
    path = folder.path / name
    _LOG.warning("the index %s is of no use (%s): set aside as %s, begun anew", path, error, broken)


def _connection(folder: CacheFolder, name: str) -> sqlite3.Connection:
    """SQLite opens its files by path, and follows links. So no link may be there, the file is made here and not by
    SQLite (`mode=rw`), and what SQLite has opened is compared before anything is read or written.
    """
    for each in (name, f"{name}-wal", f"{name}-shm", f"{name}-journal"):
        state = state_at(folder.descriptor, each)
        if state and stat.S_ISLNK(state.st_mode):
            raise OSError(errno.ELOOP, f"{each} is a symbolic link")
    with suppress(FileExistsError):
        # Only a new file: to close an open one would end the locks that other connections of this process have on it.
        flags = os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
        os.close(os.open(name, flags, 0o600, dir_fd=folder.descriptor))
    path = folder.path / name
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode=rw", uri=True, timeout=_BUSY_SECONDS, isolation_level=None
    )
    try:
        _demand_same(path, folder)
        connection.execute("PRAGMA journal_mode = WAL")
        # A power cut may take the last changes, never the file: all of it can be learnt again.
        connection.execute("PRAGMA synchronous = NORMAL")
        _prepare(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _demand_same(path: Path, folder: CacheFolder) -> None:
    """Raises OSError where the path leads into another folder than the open one."""
    if _inode(path.stat()) != _inode_at(folder, path.name):
        raise OSError(errno.ELOOP, "another folder has taken the place of the cache's")


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
