"""One SQLite file, which several processes have open."""

import asyncio
import logging
import sqlite3
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from adapters.storage.sqlite_opening import Inode, inode_of, is_broken, open_database, set_aside

_LOG = logging.getLogger("docker_image_proxy")
_QUIET_SECONDS = 60.0
_RETRY_SECONDS = 5.0

Result = TypeVar("Result")
Row = tuple[Any, ...]
Change = tuple[str, Iterable[Sequence[object]]]
"""A statement, and the values of each of its runs."""


class SqliteDatabase:
    """One connection in one thread, made at the first use: after the workers were forked.

    No request fails for it. What cannot be read is not there, what cannot be written is not kept, and the log says so
    once a minute.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="index")
        self._connection: sqlite3.Connection | None = None
        self._inode: Inode | None = None
        self._is_closed = False
        self._quiet_until = self._absent_until = float("-inf")

    async def rows(self, statement: str, values: Sequence[object] = ()) -> list[Row]:
        """What the query finds; nothing where it fails."""
        return await self._run(partial(_select, statement, values), [])

    async def change(self, *changes: Change) -> bool:
        """All changes or none; whether they were made."""
        return await self._run(partial(_change, changes), otherwise=False)

    async def close(self) -> None:
        """Nothing is found or kept afterwards."""
        if not self._is_closed:
            self._is_closed = True
            await asyncio.get_running_loop().run_in_executor(self._pool, self._disconnect)
            self._pool.shutdown(wait=False)

    async def _run(self, work: Callable[[sqlite3.Connection], Result], otherwise: Result) -> Result:
        if self._is_closed:
            return otherwise
        step = partial(self._try, work, otherwise)
        return await asyncio.get_running_loop().run_in_executor(self._pool, step)

    def _try(self, work: Callable[[sqlite3.Connection], Result], otherwise: Result) -> Result:
        try:
            return work(self._connected())
        except (sqlite3.Error, OSError, UnicodeError, OverflowError) as error:
            self._note(error)
            return otherwise

    def _connected(self) -> sqlite3.Connection:
        if self._connection is not None:
            if inode_of(self._path) == self._inode:
                return self._connection
            # Another process has set it aside, or somebody removed it.
            self._disconnect()
        if time.monotonic() < self._absent_until:
            raise sqlite3.OperationalError("it could not be opened a moment ago")
        try:
            self._connection = open_database(self._path)
        except (sqlite3.Error, OSError):
            self._absent_until = time.monotonic() + _RETRY_SECONDS
            raise
        self._inode = inode_of(self._path)
        return self._connection

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(sqlite3.Error):
                connection.close()

    def _note(self, error: Exception) -> None:
        if isinstance(error, sqlite3.Error) and is_broken(error) and self._connection is not None:
            self._disconnect()
            with suppress(OSError):
                set_aside(self._path, self._inode, error)
        elif time.monotonic() >= self._quiet_until:
            self._quiet_until = time.monotonic() + _QUIET_SECONDS
            _LOG.warning("the index %s fails, the cache goes on without: %s", self._path, error)


def _select(statement: str, values: Sequence[object], connection: sqlite3.Connection) -> list[Row]:
    return connection.execute(statement, values).fetchall()


def _change(changes: Sequence[Change], connection: sqlite3.Connection) -> bool:
    with connection:
        # At once, for a transaction that begins by reading cannot wait for another writer.
        connection.execute("BEGIN IMMEDIATE")
        for statement, runs in changes:
            connection.executemany(statement, runs)
    return True
