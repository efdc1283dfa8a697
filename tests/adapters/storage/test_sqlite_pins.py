"""What the pinned images in SQLite do if the file cannot be used."""

import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest

from adapters.storage.sqlite_database import SqliteDatabase
from adapters.storage.sqlite_index import SqliteUsageIndex
from adapters.storage.sqlite_pins import SqlitePinIndex
from application.ports.content import StorageFailed
from application.ports.index import Stored, Used
from domain.digest import Digest
from tests.contracts.test_pin_index import AT_QUAY, PINNED, PinnedImage
from tests.fakes.clock import StoppedClock

OTHER = Used(Digest.of(b"other"), 7, 1.0)


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[SqliteDatabase]:
    database = SqliteDatabase(tmp_path / "index.sqlite3")
    yield database
    await database.close()


def changed(folder: Path, statement: str) -> None:
    """The file, changed by another process."""
    with closing(sqlite3.connect(folder / "index.sqlite3")) as connection, connection:
        connection.execute(statement)


async def test_pins_that_cannot_be_read_or_written_are_reported(database: SqliteDatabase, tmp_path: Path) -> None:
    pins = SqlitePinIndex(database, StoppedClock())
    await pins.keep(PINNED)
    changed(tmp_path, "ALTER TABLE pins RENAME TO gone")
    with pytest.raises(StorageFailed, match="cannot be read"):
        await pins.all()
    with pytest.raises(StorageFailed, match="cannot be written"):
        await pins.keep(PINNED)
    with pytest.raises(StorageFailed):
        await pins.forget(PINNED.pin)
    await pins.update(PINNED)
    changed(tmp_path, "ALTER TABLE gone RENAME TO pins")
    assert list(await pins.all()) == [PINNED]


async def test_nothing_is_evictable_while_the_pins_cannot_be_read(database: SqliteDatabase, tmp_path: Path) -> None:
    usage = SqliteUsageIndex(database)
    await usage.keep([OTHER])
    changed(tmp_path, "ALTER TABLE pins RENAME TO gone")
    assert (await usage.all(), await usage.evictable(), await usage.pinned()) == ([OTHER], [], Stored())


async def test_a_record_of_another_version_protects_its_tree(database: SqliteDatabase, tmp_path: Path) -> None:
    pins, usage = SqlitePinIndex(database, StoppedClock()), SqliteUsageIndex(database)
    await usage.keep([OTHER])
    await pins.keep(PinnedImage(AT_QUAY, 1.0, OTHER.digest, {OTHER.digest: 7}))
    await pins.keep(PINNED)
    changed(tmp_path, "UPDATE pins SET record = json_remove(record, '$.due_at') WHERE upstream LIKE '%quay%'")
    assert list(await pins.all()) == [PINNED]
    assert await usage.evictable() == []


async def test_a_record_that_the_eviction_cannot_read_is_not_stored(database: SqliteDatabase, tmp_path: Path) -> None:
    pins = SqlitePinIndex(database, StoppedClock())
    with pytest.raises(StorageFailed):
        await pins.keep(PinnedImage(AT_QUAY, 1.0, due_at=float("inf")))
    assert list(await pins.all()) == []
    with pytest.raises(sqlite3.IntegrityError):
        changed(tmp_path, "INSERT INTO pins VALUES ('a', 'b', 'c', 1.0, 'no JSON')")
