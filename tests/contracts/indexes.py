"""The index of two workers: in SQLite, in Redis, on both levels, and the fake."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from adapters.index_records import LINKS, TAGS
from adapters.shared.redis_knowledge import RedisKnowledgeIndex
from adapters.shared.remembered_knowledge import RememberedKnowledgeIndex
from adapters.shared.two_level_knowledge import TwoLevelKnowledgeIndex
from adapters.storage.sqlite_database import SqliteDatabase
from adapters.storage.sqlite_index import SqliteKnowledgeIndex
from application.ports.index import BELIEVED_SECONDS, KnowledgeIndex
from tests.contracts.replicas import connection_to
from tests.contracts.storage import HUB, QUAY
from tests.e2e.support.valkey import Valkey
from tests.fakes.clock import StoppedClock
from tests.fakes.index import MemoryKnowledgeIndex

FORGETTING_KINDS = ("sqlite", "redis", "remembered", "fake")
"""The two-level index forgets content only on its own replica."""
INDEX_KINDS = (*FORGETTING_KINDS, "two levels")


@dataclass(frozen=True)
class IndexWorker:
    """The index of one process."""

    index: KnowledgeIndex


Test = Callable[[IndexWorker, IndexWorker], Awaitable[None]]


def by_two_workers_of(kinds: Sequence[str]) -> Callable[[Test], Callable[[str, Path, pytest.FixtureRequest], None]]:
    """Runs the test with each of these kinds of index."""

    def decorate(test: Test) -> Callable[[str, Path, pytest.FixtureRequest], None]:
        @pytest.mark.parametrize("kind", kinds)
        def run(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
            async def go() -> None:
                if kind == "fake":
                    index = MemoryKnowledgeIndex()
                    await test(IndexWorker(index), IndexWorker(index))
                    return
                server = server_for(kind, request)
                async with index_of(kind, tmp_path, server) as one, index_of(kind, tmp_path, server) as other:
                    await test(IndexWorker(one), IndexWorker(other))

            asyncio.run(go())

        return run

    return decorate


def server_for(kind: str, request: pytest.FixtureRequest) -> Valkey | None:
    """An empty server, if this kind of index needs one."""
    if kind not in {"redis", "remembered", "two levels"}:
        return None
    server: Valkey = request.getfixturevalue("valkey_server")
    server.flush()
    return server


@asynccontextmanager
async def index_of(
    kind: str, folder: Path, server: Valkey | None, links: int = LINKS, tags: int = TAGS
) -> AsyncIterator[KnowledgeIndex]:
    """The index of one process. `links` and `tags`: the largest number for each upstream."""
    if kind == "fake":
        yield MemoryKnowledgeIndex(links)
        return
    clock = StoppedClock()
    database = SqliteDatabase(folder / "index.sqlite3")
    local = SqliteKnowledgeIndex(database, clock, links=links, tags=tags)
    try:
        if server is None:
            yield local
            return
        async with redis_index(server, kind, clock, links, tags) as shared:
            yield TwoLevelKnowledgeIndex(shared, local, clock) if kind == "two levels" else shared
    finally:
        await database.close()


@asynccontextmanager
async def redis_index(
    server: Valkey, kind: str, clock: StoppedClock, links: int = LINKS, tags: int = TAGS
) -> AsyncIterator[RedisKnowledgeIndex]:
    connection = connection_to(server)
    try:
        implementation = _Later if kind == "remembered" else RedisKnowledgeIndex
        yield implementation(connection, (HUB, QUAY), clock, links=links, tags=tags)
    finally:
        await connection.close()


class _Later(RememberedKnowledgeIndex):
    """Some time has passed before each question, so it compares what it remembers."""

    async def _find(self, *question: Any) -> Any:
        assert isinstance(self._clock, StoppedClock)
        self._clock.advance(BELIEVED_SECONDS)
        return await super()._find(*question)
