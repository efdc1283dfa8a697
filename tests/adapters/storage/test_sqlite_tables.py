import asyncio
import sqlite3
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from adapters.storage.sqlite_books import SqliteGrantStore, SqliteTokenStore, SqliteUpstreamAuthStore
from adapters.storage.sqlite_database import SqliteDatabase
from adapters.storage.sqlite_indexes import SqliteLinkIndex, SqliteTagIndex
from adapters.storage.sqlite_usage import SqliteEpoch, SqliteUsageIndex
from application.ports.content import StorageFailed
from application.ports.index import CallerIdentity, Used
from domain.challenge import Challenge
from domain.digest import Digest
from domain.names import Tag
from domain.records import ANONYMOUS_CALLER, ANONYMOUS_CLASS, CachedTag, ContentKind, Grant, Item, Link, TagKey
from domain.trust import UpstreamAuth
from tests.contracts.storage import HUB, NGINX, REDIS
from tests.fakes.clock import StoppedClock

DIGEST = Digest.of(b"content")
NOW = 1_800_000_000.0


def with_database(path: Path, test: Callable[[SqliteDatabase], Awaitable[None]]) -> None:
    async def go() -> None:
        database = SqliteDatabase(path)
        try:
            await test(database)
        finally:
            await database.close()

    asyncio.run(go())


def test_grants_that_are_not_to_be_kept_are_thrown_away_now_and_then(tmp_path: Path) -> None:
    async def check(database: SqliteDatabase) -> None:
        clock = StoppedClock(NOW)
        grants = SqliteGrantStore(database, clock)
        await grants.keep(Grant(ANONYMOUS_CALLER, NGINX, NOW, NOW + 10), NOW + 10)
        clock.advance(30)
        other = Grant(ANONYMOUS_CALLER, REDIS, NOW, NOW + 300)
        await grants.keep(other, NOW + 300)
        assert await grants.find(ANONYMOUS_CALLER, NGINX)
        clock.advance(40)
        await grants.keep(other, NOW + 300)
        assert await grants.find(ANONYMOUS_CALLER, NGINX) is None
        assert await grants.find(ANONYMOUS_CALLER, REDIS) == other

    with_database(tmp_path / "index", check)


def test_tokens_that_have_ended_are_thrown_away_now_and_then(tmp_path: Path) -> None:
    async def check(database: SqliteDatabase) -> None:
        clock = StoppedClock(NOW)
        tokens = SqliteTokenStore(database, clock)
        await tokens.keep("short", CallerIdentity(ANONYMOUS_CALLER, NOW + 10))
        clock.advance(70)
        await tokens.keep("long", CallerIdentity(ANONYMOUS_CALLER, NOW + 300))
        assert await tokens.find("short") is None
        assert await tokens.find("long")
        assert await database.rows("SELECT fingerprint FROM tokens") == [("long",)]

    with_database(tmp_path / "index", check)


@pytest.mark.parametrize("digest", ["", "sha256:short", "md5:" + "a" * 32])
def test_what_cannot_be_read_back_is_not_found(digest: str, tmp_path: Path) -> None:
    async def check(database: SqliteDatabase) -> None:
        links, tags, usage = SqliteLinkIndex(database), SqliteTagIndex(database), SqliteUsageIndex(database)
        link = Link(Item(NGINX, ContentKind.BLOB, DIGEST), "text/plain", 7, frozenset({ANONYMOUS_CLASS}))
        key = TagKey(NGINX, Tag("latest"), "")
        await tags.keep(CachedTag(key, DIGEST, "text/plain", NOW, ANONYMOUS_CLASS))
        await links.keep(link, NOW)
        await usage.keep([Used(DIGEST, 7, NOW)])
        place = (HUB.url, "library/nginx")
        await database.change(
            ("UPDATE tags SET digest = ?", [(digest,)]),
            ("INSERT INTO links VALUES (?, ?, 'blob', ?, 'anonymous', 'text/plain', 1, 1)", [(*place, digest)]),
            ("INSERT INTO links VALUES (?, ?, 'song', ?, 'anonymous', 'text/plain', 1, 1)", [(*place, str(DIGEST))]),
            ("INSERT INTO usage VALUES (?, 1, 1)", [(digest,)]),
            (
                "INSERT INTO tags VALUES (?, 'Not A Name', 'a', '', 'anonymous', ?, 'text/plain', 1)",
                [(HUB.url, str(DIGEST))],
            ),
            ("INSERT INTO tags VALUES (?, 'name', '!', '', 'anonymous', ?, 'text/plain', 1)", [(HUB.url, str(DIGEST))]),
        )
        assert await tags.variants(NGINX, key.tag) == []
        assert await tags.of(HUB) == []
        assert await links.of(NGINX) == [link]
        assert await usage.all() == [Used(DIGEST, 7, NOW)]

    with_database(tmp_path / "index", check)


@pytest.mark.parametrize("text", ["", "{", "1", "null", "[1]", '["ab"]', '[["Basic", 1]]', '[["Basic", [["a", 1]]]]'])
def test_a_stance_that_cannot_be_read_back_is_not_found(text: str, tmp_path: Path) -> None:
    async def check(database: SqliteDatabase) -> None:
        upstream_auth = SqliteUpstreamAuthStore(database)
        await upstream_auth.keep(HUB, UpstreamAuth((Challenge("Basic", (("realm", "r"),)),)))
        await database.change(("UPDATE stances SET challenges = ?", [(text,)]))
        assert await upstream_auth.find(HUB) is None

    with_database(tmp_path / "index", check)


def test_a_media_type_that_is_no_text_is_not_kept(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def check(database: SqliteDatabase) -> None:
        links, link = (
            SqliteLinkIndex(database),
            Link(Item(NGINX, ContentKind.BLOB, DIGEST), "text/\udcff", 7, frozenset({ANONYMOUS_CLASS})),
        )
        await links.keep(link, NOW)
        assert await links.find(link.item) is None
        await links.keep(replace(link, media_type="text/plain"), NOW)
        assert await links.find(link.item)

    with_database(tmp_path / "index", check)
    assert len(caplog.records) == 1


def test_an_index_that_was_begun_anew_has_another_epoch(tmp_path: Path) -> None:
    async def check(database: SqliteDatabase) -> None:
        epoch = SqliteEpoch(database)
        before = await epoch.read()
        (tmp_path / "index").rename(tmp_path / "gone")
        assert await epoch.read() != before

    with_database(tmp_path / "index", check)


def test_an_epoch_that_cannot_be_had_is_the_last_one_and_is_not_advanced(tmp_path: Path) -> None:
    async def check(database: SqliteDatabase) -> None:
        epoch = SqliteEpoch(database)
        before = await epoch.read()
        connection = sqlite3.connect(tmp_path / "index", isolation_level=None)
        connection.execute("DROP TABLE meta")
        connection.close()
        assert await epoch.read() == before
        with pytest.raises(StorageFailed):
            await epoch.advance()

    with_database(tmp_path / "index", check)
