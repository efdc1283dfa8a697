"""Which upstream has sent which content in full, in SQLite."""

from adapters.storage.sqlite_database import SqliteDatabase
from domain.digest import Digest
from domain.upstreams import Upstream


class SqliteSentContent:
    """Plays the SentContent. SqliteContentPlaces removes its rows together with the content."""

    def __init__(self, database: SqliteDatabase) -> None:
        self._database = database

    async def keep(self, upstream: Upstream, digest: Digest, *, is_public: bool) -> None:
        statement = (
            "INSERT INTO sent VALUES (?, ?, ?)"
            " ON CONFLICT (digest, upstream) DO UPDATE SET is_public = max(is_public, excluded.is_public)"
        )
        await self._database.change((statement, [(str(digest), upstream.url, int(is_public))]))

    async def serves(self, upstream: Upstream, digest: Digest) -> bool:
        rows = await self._database.rows(
            "SELECT 1 FROM sent WHERE digest = ? AND (upstream = ? OR is_public) LIMIT 1", (str(digest), upstream.url)
        )
        return bool(rows)
