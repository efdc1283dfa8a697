import asyncio
import sqlite3
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from adapters.storage.sqlite_database import SqliteDatabase
from adapters.storage.sqlite_index import SqliteKnowledgeIndex, SqliteUsageIndex
from application.ports.content import StorageFailed
from application.ports.index import CallerIdentity, Stored, Used
from domain.challenge import Challenge
from domain.digest import Digest
from domain.names import Tag
from domain.records import (
    ANONYMOUS_CALLER,
    ANONYMOUS_CLASS,
    CachedTag,
    ContentKind,
    ContentLocation,
    Grant,
    Link,
    TagKey,
)
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


def test_expired_grants_are_removed_from_time_to_time(tmp_path: Path) -> None:
    async def check(database: SqliteDatabase) -> None:
        clock = StoppedClock(NOW)
        index = SqliteKnowledgeIndex(database, clock)
        await index.keep_grant(Grant(ANONYMOUS_CALLER, NGINX, NOW, NOW + 10), NOW + 10)
        clock.advance(30)
        other = Grant(ANONYMOUS_CALLER, REDIS, NOW, NOW + 300)
        await index.keep_grant(other, NOW + 300)
        assert await index.find_grant(ANONYMOUS_CALLER, NGINX)
        clock.advance(40)
        await index.keep_grant(other, NOW + 300)
        assert await index.find_grant(ANONYMOUS_CALLER, NGINX) is None
        assert await index.find_grant(ANONYMOUS_CALLER, REDIS) == other

    with_database(tmp_path / "index", check)


def test_expired_tokens_are_removed_from_time_to_time(tmp_path: Path) -> None:
    async def check(database: SqliteDatabase) -> None:
        clock = StoppedClock(NOW)
        index = SqliteKnowledgeIndex(database, clock)
        await index.keep_token("short", CallerIdentity(ANONYMOUS_CALLER, NOW + 10))
        clock.advance(70)
        await index.keep_token("long", CallerIdentity(ANONYMOUS_CALLER, NOW + 300))
        assert await index.find_token("short") is None
        assert await index.find_token("long")
        assert await database.rows("SELECT fingerprint FROM tokens") == [("long",)]

    with_database(tmp_path / "index", check)


@pytest.mark.parametrize("digest", ["", "sha256:short", "md5:" + "a" * 32])
def test_invalid_rows_are_not_found(digest: str, tmp_path: Path) -> None:
    async def check(database: SqliteDatabase) -> None:
        index, usage = SqliteKnowledgeIndex(database, StoppedClock()), SqliteUsageIndex(database)
        link = Link(ContentLocation(NGINX, ContentKind.BLOB, DIGEST), "text/plain", 7, frozenset({ANONYMOUS_CLASS}))
        key = TagKey(NGINX, Tag("latest"), "")
        await index.keep_tag(CachedTag(key, DIGEST, "text/plain", NOW, ANONYMOUS_CLASS))
        await index.keep_link(link, NOW)
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
        assert await index.find_tags(NGINX, key.tag) == []
        assert await index.tags_of(HUB) == []
        assert await index.links_of(NGINX) == [link]
        assert await usage.all() == [Used(DIGEST, 7, NOW)]

    with_database(tmp_path / "index", check)


@pytest.mark.parametrize("rows", [6, 7, 8])
def test_a_large_index_is_measured_in_short_steps(rows: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("adapters.storage.sqlite_index._STEP_ROWS", 3)

    async def check(database: SqliteDatabase) -> None:
        index, usage = SqliteKnowledgeIndex(database, StoppedClock()), SqliteUsageIndex(database)
        entries = [Used(Digest.of(bytes([number])), 10, NOW) for number in range(rows)]
        await usage.keep(entries)
        by_digest = sorted(entries, key=lambda one: str(one.digest))
        for one in by_digest[:4]:  # the last steps contain nothing that an upstream has sent
            await index.keep_sent(HUB, one.digest, is_public=True)
        assert await usage.by_upstream() == {HUB.url: Stored(4, 40)}

    with_database(tmp_path / "index", check)


@pytest.mark.parametrize("text", ["", "{", "1", "null", "[1]", '["ab"]', '[["Basic", 1]]', '[["Basic", [["a", 1]]]]'])
def test_invalid_upstream_auth_is_not_found(text: str, tmp_path: Path) -> None:
    async def check(database: SqliteDatabase) -> None:
        index = SqliteKnowledgeIndex(database, StoppedClock())
        await index.keep_upstream_auth(HUB, UpstreamAuth((Challenge("Basic", (("realm", "r"),)),)))
        await database.change(("UPDATE stances SET challenges = ?", [(text,)]))
        assert await index.find_upstream_auth(HUB) is None

    with_database(tmp_path / "index", check)


def test_a_media_type_that_is_not_valid_text_is_not_kept(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def check(database: SqliteDatabase) -> None:
        index = SqliteKnowledgeIndex(database, StoppedClock())
        link = Link(ContentLocation(NGINX, ContentKind.BLOB, DIGEST), "text/\udcff", 7, frozenset({ANONYMOUS_CLASS}))
        await index.keep_link(link, NOW)
        assert await index.find_link(link.location) is None
        await index.keep_link(replace(link, media_type="text/plain"), NOW)
        assert await index.find_link(link.location)

    with_database(tmp_path / "index", check)
    assert len(caplog.records) == 1


def test_a_new_index_has_another_epoch(tmp_path: Path) -> None:
    async def check(database: SqliteDatabase) -> None:
        index = SqliteKnowledgeIndex(database, StoppedClock())
        before = await index.epoch()
        (tmp_path / "index").rename(tmp_path / "gone")
        assert await index.epoch() != before

    with_database(tmp_path / "index", check)


def test_an_unreadable_epoch_keeps_its_last_value_and_cannot_be_advanced(tmp_path: Path) -> None:
    async def check(database: SqliteDatabase) -> None:
        index = SqliteKnowledgeIndex(database, StoppedClock())
        before = await index.epoch()
        connection = sqlite3.connect(tmp_path / "index", isolation_level=None)
        connection.execute("DROP TABLE meta")
        connection.close()
        assert await index.epoch() == before
        with pytest.raises(StorageFailed):
            await index.advance_epoch()

    with_database(tmp_path / "index", check)
