"""The archive of the history: a small SQLite file beside the index, without which everything else works."""

import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from adapters.storage.sqlite_database import NoDatabase, SqliteDatabase
from adapters.storage.sqlite_history import SqliteHistoryArchive
from adapters.storage.sqlite_schema import HISTORY
from domain.history import HOURS, MINUTES, NUMBERS, RESOLUTIONS, Bucket, Totals

START = 1_800_000_000
ONE = Bucket(60, START, Totals(hits=2, misses=1, bytes_out=2**40, latencies=tuple(range(17))))
OTHER = Bucket(3600, START, Totals(hits=2))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "history.sqlite3"


@asynccontextmanager
async def opened(path: Path) -> AsyncIterator[SqliteHistoryArchive]:
    database = SqliteDatabase(path, HISTORY)
    try:
        yield SqliteHistoryArchive(database)
    finally:
        await database.close()


async def test_buckets_survive_a_restart(path: Path) -> None:
    async with opened(path) as archive:
        assert await archive.load() == []
        await archive.save([ONE, OTHER], START + 10)
    async with opened(path) as archive:
        assert await archive.load() == [ONE, OTHER]


async def test_a_bucket_is_replaced_by_its_newer_numbers(path: Path) -> None:
    async with opened(path) as archive:
        await archive.save([ONE], START + 10)
        newer = Bucket(60, START, Totals(hits=9))
        await archive.save([newer], START + 20)
        assert await archive.load() == [newer]


async def test_old_buckets_and_those_of_the_future_are_removed(path: Path) -> None:
    oldest = START - 60 * (MINUTES.kept - 1)
    kept = [Bucket(60, oldest, Totals(hits=1)), Bucket(60, START, Totals(hits=1)), Bucket(3600, oldest, Totals(hits=1))]
    gone = [Bucket(60, oldest - 60, Totals(hits=1)), Bucket(60, START + 60, Totals(hits=1))]
    async with opened(path) as archive:
        await archive.save([*kept, *gone], START + 10)
        assert await archive.load() == kept


async def test_the_number_of_rows_is_bounded(path: Path) -> None:
    async with opened(path) as archive:
        for hour in range(3 * HOURS.kept):
            now = START + hour * 3600
            changed = [Bucket(one.seconds, one.start_of(now), Totals(hits=1)) for one in RESOLUTIONS]
            await archive.save(changed, now)
        assert len(await archive.load()) == HOURS.kept + 26 + 2


@pytest.mark.parametrize(
    "numbers",
    ["", "[", "{}", "[1]", "null", f"{[1] * (NUMBERS + 1)}", f"{[-1] * NUMBERS}", f"{[2**63] * NUMBERS}"]
    + [f"[{','.join([wrong] * NUMBERS)}]" for wrong in ("1.5", "true", '"1"', "null")],
)  # fmt: skip
async def test_a_row_that_the_service_did_not_write_is_ignored(path: Path, numbers: str) -> None:
    async with opened(path) as archive:
        await archive.save([ONE], START)
    with sqlite3.connect(path) as connection:
        connection.execute("INSERT INTO buckets VALUES (300, ?, ?)", (START, numbers))
    connection.close()
    async with opened(path) as archive:
        assert await archive.load() == [ONE]


async def test_a_broken_file_is_replaced(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path.parent.mkdir()
    path.write_bytes(b"no database at all" * 100)
    async with opened(path) as archive:
        assert await archive.load() == []
        await archive.save([ONE], START)
        assert await archive.load() == [ONE]
    assert path.with_name("history.sqlite3.broken").exists()
    (record,) = caplog.records
    assert record.getMessage().startswith(f"the history {path} cannot be used (")


async def test_an_unwritable_file_is_reported_once(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path.parent.mkdir()
    path.mkdir()
    async with opened(path) as archive:
        for _ in range(3):
            assert await archive.load() == []
            await archive.save([ONE], START)
    (record,) = caplog.records
    assert record.getMessage().startswith(f"the history {path} cannot be read or written; the history on the page may")


async def test_without_a_cache_nothing_is_stored() -> None:
    archive = SqliteHistoryArchive(NoDatabase())
    await archive.save([ONE], START)
    assert await archive.load() == []
