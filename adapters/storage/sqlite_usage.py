"""What is stored and when it was last used, and the epoch, in SQLite."""

from collections.abc import Mapping

from adapters.storage.sqlite_database import SqliteDatabase
from adapters.storage.sqlite_indexes import read_digest
from application.ports.content import StorageFailed
from application.ports.index import Used
from domain.digest import Digest


class SqliteUsageIndex:
    """Plays the UsageIndex and the UsageTotal."""

    def __init__(self, database: SqliteDatabase) -> None:
        self._database = database

    async def keep(self, entries: list[Used]) -> None:
        rows = [(str(one.digest), one.size, one.used_at) for one in entries]
        await self._database.change(("INSERT OR REPLACE INTO usage VALUES (?, ?, ?)", rows))

    async def touch(self, times: Mapping[Digest, float]) -> None:
        # Workers tell this in batches: the last to tell did not always see the last use.
        runs = [(used_at, str(digest)) for digest, used_at in times.items()]
        await self._database.change(("UPDATE usage SET used_at = max(used_at, ?) WHERE digest = ?", runs))

    async def forget(self, digests: list[Digest]) -> None:
        await self._database.change(("DELETE FROM usage WHERE digest = ?", [(str(one),) for one in digests]))

    async def all(self) -> list[Used]:
        rows = await self._database.rows("SELECT digest, size, used_at FROM usage ORDER BY used_at, digest")
        known = ((read_digest(text), size, used_at) for text, size, used_at in rows)
        return [Used(digest, size, used_at) for digest, size, used_at in known if digest is not None]

    async def total(self) -> int:
        rows = await self._database.rows("SELECT coalesce(sum(size), 0) FROM usage")
        return next((total for (total,) in rows), 0)


class SqliteEpoch:
    """Plays the Epoch."""

    def __init__(self, database: SqliteDatabase) -> None:
        self._database = database
        self._last = 0

    async def read(self) -> int:
        rows = await self._database.rows("SELECT value FROM meta WHERE name = 'epoch'")
        self._last = next((value for (value,) in rows), self._last)
        return self._last

    async def advance(self) -> None:
        if not await self._database.change(("UPDATE meta SET value = value + 1 WHERE name = 'epoch'", [()])):
            raise StorageFailed("the index cannot be written")
