"""Files that earlier versions of the service have written."""

import asyncio
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from adapters.storage.sqlite_database import SqliteDatabase
from adapters.storage.sqlite_index import SqliteKnowledgeIndex, SqliteUsageIndex
from adapters.storage.sqlite_pins import SqlitePinIndex
from adapters.storage.sqlite_schema import INDEX, VERSION
from application.ports.index import CallerIdentity, Used
from domain.challenge import Challenge
from domain.digest import Digest
from domain.names import Tag
from domain.records import ANONYMOUS_CALLER, ANONYMOUS_CLASS, PERSONAL_CLASS, ContentKind, ContentLocation, Grant
from domain.trust import UpstreamAuth
from tests.contracts.storage import HUB, NGINX
from tests.contracts.test_pin_index import PINNED
from tests.fakes.clock import StoppedClock

DIGEST = Digest.of(b"content")
EPOCH = 115797009


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file of version 3, with rows in each table, as the service of that version has written it."""
    path = tmp_path / "index.sqlite3"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.executescript(Path(__file__).with_name("index_version_3.sql").read_text())
        connection.execute("PRAGMA user_version = 3")
    return path


def found(path: Path, query: str) -> list[tuple[str, ...]]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(query).fetchall()


def schema_of(path: Path) -> list[tuple[str, ...]]:
    return found(path, "SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY name")


async def test_a_file_of_version_3_keeps_all_that_it_holds(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    database = SqliteDatabase(path)
    index = SqliteKnowledgeIndex(database, StoppedClock())
    (link,) = await index.links_of(NGINX)
    (cached_tag,) = await index.find_tags(NGINX, Tag("1.25"))
    assert link.location == ContentLocation(NGINX, ContentKind.BLOB, DIGEST)
    assert (link.size, link.caller_classes) == (7, {ANONYMOUS_CLASS, PERSONAL_CLASS})
    assert (cached_tag.digest, cached_tag.checked_at) == (DIGEST, 1_800_000_001.5)
    assert await index.was_sent(HUB, DIGEST)
    grant = Grant(ANONYMOUS_CALLER, NGINX, 1_800_000_002.5, 1_800_003_600.0)
    assert await index.find_grant(ANONYMOUS_CALLER, NGINX) == grant
    assert await index.find_token("fingerprint") == CallerIdentity(ANONYMOUS_CALLER, 1_800_000_300.0)
    auth = UpstreamAuth((Challenge("Bearer", (("realm", "https://auth.test/token"),)),))
    assert await index.find_upstream_auth(HUB) == auth
    assert await index.epoch() == EPOCH
    assert await SqliteUsageIndex(database).all() == [Used(DIGEST, 7, 1_800_000_003.5)]
    await database.close()
    assert not path.with_name("index.sqlite3.broken").exists()
    assert caplog.records == []


async def test_an_upgraded_file_has_the_tables_of_a_new_one(path: Path, tmp_path: Path) -> None:
    new = tmp_path / "new" / "index.sqlite3"
    for each in (path, new):
        database = SqliteDatabase(each)
        pins = SqlitePinIndex(database, StoppedClock())
        await pins.keep(PINNED)
        assert list(await pins.all()) == [PINNED]
        await database.close()
    assert schema_of(path) == schema_of(new)
    assert found(path, "PRAGMA user_version") == found(new, "PRAGMA user_version") == [(VERSION,)]


async def test_several_workers_upgrade_a_file_once(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    databases = [SqliteDatabase(path) for _ in range(4)]
    rows = await asyncio.gather(*(one.rows("SELECT digest FROM usage, meta LEFT JOIN pins") for one in databases))
    assert rows == [[(str(DIGEST),)]] * 4
    for one in databases:
        await one.close()
    assert caplog.records == []


async def test_an_upgrade_that_fails_changes_nothing(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    before = schema_of(path)
    failing = replace(INDEX, upgrades={3: (*INDEX.upgrades[3], "CREATE TABLE usage (a)")})
    database = SqliteDatabase(path, failing)
    assert await database.rows("SELECT 1") == []
    await database.close()
    assert schema_of(path) == before
    assert found(path, "PRAGMA user_version") == [(3,)]
    assert found(path, "SELECT digest FROM usage") == [(str(DIGEST),)]
    assert "table usage already exists" in caplog.text


@pytest.mark.parametrize("version", [2, VERSION + 1])
async def test_a_file_of_an_unknown_version_is_set_aside(
    version: int, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA user_version = {version}")
    database = SqliteDatabase(path)
    assert await SqliteUsageIndex(database).all() == []
    await database.close()
    broken = path.with_name("index.sqlite3.broken")
    assert found(broken, "SELECT digest FROM usage") == [(str(DIGEST),)]
    assert f"it has version {version}, not {VERSION}" in caplog.text
