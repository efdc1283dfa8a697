"""Links and cached tags are bounded for each upstream, in every LinkIndex and TagIndex."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from adapters.storage.sqlite_database import SqliteDatabase
from adapters.storage.sqlite_indexes import SqliteLinkIndex, SqliteTagIndex
from adapters.storage.sqlite_usage import SqliteUsageIndex
from application.ports.index import LinkIndex, TagIndex, Used
from domain.digest import Digest
from domain.names import Tag
from domain.records import ANONYMOUS_CLASS, PERSONAL_CLASS, CachedTag, ContentKind, Item, Link, TagKey
from domain.upstreams import Source
from tests.contracts.storage import HUB, KINDS, NGINX, NGINX_AT_QUAY, QUAY
from tests.fakes.storage_books import MemoryLinkIndex, MemoryTagIndex

BOUND = 20
KIND = pytest.mark.parametrize("kind", KINDS)


@asynccontextmanager
async def bounded(kind: str, folder: Path) -> AsyncIterator[tuple[LinkIndex, TagIndex]]:
    if kind == "fake":
        yield MemoryLinkIndex(BOUND), MemoryTagIndex(BOUND)
        return
    database = SqliteDatabase(folder / "index")
    try:
        yield SqliteLinkIndex(database, BOUND), SqliteTagIndex(database, BOUND)
    finally:
        await database.close()


def link(number: int, source: Source = NGINX) -> Link:
    """To content that is not stored; each newer than the one before."""
    item = Item(source, ContentKind.BLOB, Digest.of(str(number).encode()))
    return Link(item, "text/plain", number, frozenset({ANONYMOUS_CLASS}))


def cached_tag(number: int, source: Source = NGINX) -> CachedTag:
    key = TagKey(source, Tag(f"t{number}"), "")
    return CachedTag(key, Digest.of(str(number).encode()), "text/plain", 1000.0 + number, ANONYMOUS_CLASS)


@KIND
def test_links_are_bounded_also_where_nothing_is_stored(kind: str, tmp_path: Path) -> None:
    async def check() -> None:
        async with bounded(kind, tmp_path) as (links, _):
            await links.keep(link(0, NGINX_AT_QUAY), 1.0)
            for number in range(10 * BOUND):
                await links.keep(link(number), 1000.0 + number)
                assert len(await links.of(NGINX)) <= BOUND
            assert await links.find(link(10 * BOUND - 1).item), "the newest stays"
            assert await links.find(link(0).item) is None
            assert await links.find(link(0, NGINX_AT_QUAY).item), "those of another upstream make no room"

    asyncio.run(check())


@KIND
def test_each_class_of_a_link_counts(kind: str, tmp_path: Path) -> None:
    async def check() -> None:
        async with bounded(kind, tmp_path) as (links, _):
            for number in range(BOUND):
                both = replace(link(number), given_to=frozenset({ANONYMOUS_CLASS, PERSONAL_CLASS}))
                await links.keep(both, 1000.0 + number)
            assert sum(len(one.given_to) for one in await links.of(NGINX)) <= BOUND

    asyncio.run(check())


@KIND
def test_cached_tags_are_bounded_also_where_nothing_is_stored(kind: str, tmp_path: Path) -> None:
    async def check() -> None:
        async with bounded(kind, tmp_path) as (_, tags):
            await tags.keep(cached_tag(0, NGINX_AT_QUAY))
            for number in range(10 * BOUND):
                await tags.keep(cached_tag(number))
                assert len(await tags.of(HUB)) <= BOUND
            assert cached_tag(10 * BOUND - 1) in await tags.of(HUB), "the newest stays"
            assert await tags.of(QUAY) == [cached_tag(0, NGINX_AT_QUAY)]

    asyncio.run(check())


def test_what_leads_to_stored_content_stays_longest(tmp_path: Path) -> None:
    async def check() -> None:
        database = SqliteDatabase(tmp_path / "index")
        links, tags = SqliteLinkIndex(database, BOUND), SqliteTagIndex(database, BOUND)
        await SqliteUsageIndex(database).keep([Used(cached_tag(0).digest, 1, 1.0)])
        for number in range(10 * BOUND):
            await links.keep(link(number), 1000.0 + number)
            await tags.keep(cached_tag(number))
        assert await links.find(link(0).item)
        assert cached_tag(0) in await tags.of(HUB)
        await database.close()

    asyncio.run(check())
