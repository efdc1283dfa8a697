"""An SQLite file, shared by several processes. A broken file is renamed and replaced by a new one."""

import errno
import fcntl
import logging
import os
import sqlite3
import stat
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from adapters.storage.safe_paths import CacheFolder, cache_folder, open_file, state_at
from adapters.storage.sqlite_schema import INDEX, Schema
from adapters.storage.threads import HasThreads, NoThreads, Threads, in_thread

_LOG = logging.getLogger("docker_image_proxy")
_RETRY_SECONDS = 5.0
_BUSY_SECONDS = 5.0
_ERRORS = (sqlite3.Error, OSError, UnicodeError, OverflowError)
_BROKEN = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})

Inode = tuple[int, int]
Row = tuple[Any, ...]
Change = tuple[str, Iterable[Sequence[object]]]
"""A statement and the values for each execution."""


class SqliteDatabase(HasThreads):
    """One connection in one thread. It is opened at the first use, which is after the workers were forked.

    Its errors do not reach requests: a query that fails finds nothing, a change that fails is not made, and the log
    reports this as often as the schema says.
    """

    def __init__(self, path: Path, schema: Schema = INDEX) -> None:
        self._path = path
        self._schema = schema
        self.threads = Threads(1, schema.name)
        self._connection: sqlite3.Connection | None = None
        self._inode: Inode | None = None
        self._quiet_until = self._absent_until = float("-inf")

    @in_thread
    def rows(self, statement: str, values: Sequence[object] = ()) -> list[Row]:
        """The rows that the query finds; no rows if it fails."""
        try:
            return self._connected().execute(statement, values).fetchall()
        except _ERRORS as error:
            self._handle(error)
            return []

    @in_thread
    def change(self, *changes: Change) -> bool:
        """Make all changes or, if one of them fails, no change. Returns whether they were made."""
        try:
            with self._connected() as connection:
                # IMMEDIATE, because a transaction that begins with a read cannot wait for another writer.
                connection.execute("BEGIN IMMEDIATE")
                for statement, runs in changes:
                    connection.executemany(statement, runs)
        except _ERRORS as error:
            self._handle(error)
            return False
        return True

    async def close(self) -> None:
        """Queries find nothing afterwards, and changes are not made."""
        self._quiet_until = self._absent_until = float("inf")
        await self.threads.run(self._disconnect)
        self.threads.close()
        self.threads = NoThreads()

    def _connected(self) -> sqlite3.Connection:
        if self._connection is not None:
            if _inode_of(self._path) == self._inode:
                return self._connection
            # Another process has renamed the file, or an operator has removed it.
            self._disconnect()
        if time.monotonic() < self._absent_until:
            raise sqlite3.OperationalError("it could not be opened a moment ago")
        try:
            self._connection = _open(self._path, self._schema)
        except (sqlite3.Error, OSError):
            self._absent_until = time.monotonic() + _RETRY_SECONDS
            raise
        self._inode = _inode_of(self._path)
        return self._connection

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(sqlite3.Error):
                connection.close()

    def _handle(self, error: Exception) -> None:
        """Replace a broken file; log other errors."""
        if isinstance(error, sqlite3.Error) and _is_broken(error) and self._connection is not None:
            self._disconnect()
            with suppress(OSError):
                set_aside(self._path, self._inode, error, self._schema)
        elif time.monotonic() >= self._quiet_until:
            self._quiet_until = time.monotonic() + self._schema.quiet_seconds
            name, loss = self._schema.name, self._schema.loss
            _LOG.warning("the %s %s cannot be read or written; %s: %s", name, self._path, loss, error)


class NoDatabase:
    """Replaces the database while the cache is off: it finds nothing and stores nothing."""

    async def rows(self, statement: str, values: Sequence[object] = ()) -> list[Row]:  # noqa: ARG002 - as SqliteDatabase
        return []

    async def change(self, *changes: Change) -> bool:  # noqa: ARG002 - as SqliteDatabase
        return True


Database = SqliteDatabase | NoDatabase


class _WrongVersion(sqlite3.DatabaseError):
    """The schema of the file is that of another version of this service."""


def _open(path: Path, schema: Schema) -> sqlite3.Connection:
    """A connection for this thread. `path`: the configured folder and the name of the file. The file is in the folder
    that `cache_folder` opens for the configured one. Raises sqlite3.Error or OSError.
    """
    with cache_folder(path.parent, make=True) as folder, _locked(folder, path.name):
        try:
            return _connection(folder, path.name, schema)
        except sqlite3.DatabaseError as error:
            if not _is_broken(error):
                raise
            _move_aside(folder, path.name, error, schema)
        return _connection(folder, path.name, schema)


def set_aside(path: Path, seen: Inode | None, error: sqlite3.Error, schema: Schema = INDEX) -> None:
    """Rename the broken file, unless another process has already replaced it. Raises OSError."""
    with cache_folder(path.parent) as folder, _locked(folder, path.name):
        if _inode_at(folder, path.name) == seen:
            _move_aside(folder, path.name, error, schema)


def _is_broken(error: Exception) -> bool:
    """Whether the file must be replaced."""
    # The lowest byte is the primary result code (sqlite.org/rescode.html).
    return isinstance(error, _WrongVersion) or getattr(error, "sqlite_errorcode", 0) & 0xFF in _BROKEN


def _inode_of(path: Path) -> Inode | None:
    """The device and inode number of the current file."""
    with suppress(OSError), cache_folder(path.parent) as folder:
        return _inode_at(folder, path.name)
    return None


def _inode_at(folder: CacheFolder, name: str) -> Inode | None:
    state = state_at(folder.descriptor, name)
    return (state.st_dev, state.st_ino) if state else None


@contextmanager
def _locked(folder: CacheFolder, name: str) -> Iterator[None]:
    """One process at a time. Otherwise a second process could rename the new file that the first has just made."""
    descriptor = open_file(folder.descriptor, f"{name}.lock", write=True)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _move_aside(folder: CacheFolder, name: str, error: sqlite3.Error, schema: Schema) -> None:
    broken = f"{name}.broken"
    os.replace(name, broken, src_dir_fd=folder.descriptor, dst_dir_fd=folder.descriptor)
    # SQLite would use them with the new file.
    for end in ("-wal", "-shm"):
        with suppress(FileNotFoundError):
            os.unlink(name + end, dir_fd=folder.descriptor)
    path = folder.path / name
    _LOG.warning(
        "the %s %s cannot be used (%s): set aside as %s, and a new one was started", schema.name, path, error, broken
    )


def _connection(folder: CacheFolder, name: str, schema: Schema) -> sqlite3.Connection:
    """SQLite opens its files by path and follows links. Therefore this checks that there are no links, makes the file
    itself (`mode=rw` forbids it to SQLite), and compares what SQLite has opened before anything is read or written.
    """
    for each in (name, f"{name}-wal", f"{name}-shm", f"{name}-journal"):
        state = state_at(folder.descriptor, each)
        if state and stat.S_ISLNK(state.st_mode):
            raise OSError(errno.ELOOP, f"{each} is a symbolic link")
    with suppress(FileExistsError):
        # Only a new file: closing an existing one would end the locks of other connections of this process.
        flags = os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
        os.close(os.open(name, flags, 0o600, dir_fd=folder.descriptor))
    path = folder.path / name
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode=rw", uri=True, timeout=_BUSY_SECONDS, isolation_level=None
    )
    try:
        _require_same(path, folder)
        connection.execute("PRAGMA journal_mode = WAL")
        # After a power cut, the last changes may be missing, but the file is intact. The mirror learns them again.
        connection.execute("PRAGMA synchronous = NORMAL")
        _prepare(connection, schema)
    except BaseException:
        connection.close()
        raise
    return connection


def _require_same(path: Path, folder: CacheFolder) -> None:
    """Raises OSError if the path leads to another folder than the open one."""
    state = path.stat()
    if (state.st_dev, state.st_ino) != _inode_at(folder, path.name):
        raise OSError(errno.ELOOP, "another folder has taken the place of the cache's")


def _prepare(connection: sqlite3.Connection, schema: Schema) -> None:
    """Make the tables in a new file, or upgrade those of an earlier version. Raises _WrongVersion. The caller has the
    lock of the file, so no other process does the same.
    """
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version == schema.version:
        return
    if version == 0 and not connection.execute("SELECT 1 FROM sqlite_master").fetchall():
        statements = schema.tables
    else:
        statements = _upgrade(version, schema)
    with connection:
        connection.execute("BEGIN IMMEDIATE")
        for statement in statements:
            connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {schema.version}")


def _upgrade(version: int, schema: Schema) -> tuple[str, ...]:
    """The statements that bring a file of this version to that of the schema. Raises _WrongVersion."""
    steps = range(version, schema.version)
    if not steps or any(step not in schema.upgrades for step in steps):
        raise _WrongVersion(f"it has version {version}, not {schema.version}")
    return tuple(statement for step in steps for statement in schema.upgrades[step])
