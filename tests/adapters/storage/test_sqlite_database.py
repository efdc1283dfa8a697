import asyncio
import os
import sqlite3
import stat
import threading
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path

import pytest

from adapters.storage.sqlite_database import SqliteDatabase, set_aside
from adapters.storage.sqlite_schema import VERSION
from tests.adapters.storage.places import line_of, open_descriptors, process, tell

KEEP = "INSERT OR REPLACE INTO stances VALUES (?, ?)"
ALL = "SELECT upstream, challenges FROM stances ORDER BY upstream"


@asynccontextmanager
async def opened(path: Path) -> AsyncIterator[SqliteDatabase]:
    database = SqliteDatabase(path)
    try:
        yield database
    finally:
        await database.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "index.sqlite3"


async def test_no_file_is_made_before_the_first_use(path: Path) -> None:
    before = threading.active_count()
    database = SqliteDatabase(path)
    assert threading.active_count() == before
    await database.close()
    assert not path.parent.exists()


async def test_changes_survive_the_connection(path: Path) -> None:
    async with opened(path) as database:
        assert await database.change((KEEP, [("a", "1"), ("b", "2")]))
    async with opened(path) as database:
        assert await database.rows(ALL) == [("a", "1"), ("b", "2")]
    assert [stat.S_IMODE(each.stat().st_mode) for each in (path, path.parent)] == [0o600, 0o700]


async def test_all_changes_are_made_or_none(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with opened(path) as database:
        assert not await database.change((KEEP, [("a", "1")]), (KEEP, [("b", None)]))
        assert not await database.change((KEEP, [("a", "1")]), (KEEP, [("b", "a lone \udcff")]))
        assert await database.rows(ALL) == []
        assert await database.change((KEEP, [("c", "3")]))
        assert await database.rows(ALL) == [("c", "3")]
        assert await database.rows(ALL, ("too", "many")) == []
        assert await database.rows("SELECT ? + ?", (2**80, 1)) == []
    assert len(caplog.records) == 1


@pytest.mark.slow
async def test_a_closed_database_finds_and_keeps_nothing(path: Path) -> None:
    before, threads = open_descriptors(), set(threading.enumerate())
    async with opened(path) as database:
        assert await database.change((KEEP, [("a", "1")]))
    await database.close()
    for thread in set(threading.enumerate()) - threads:
        thread.join(10)
        assert not thread.is_alive()
    assert not await database.change((KEEP, [("b", "2")]))
    assert await database.rows(ALL) == []
    assert open_descriptors() == before
    assert sorted(each.name for each in path.parent.iterdir()) == ["index.sqlite3", "index.sqlite3.lock"]


@pytest.mark.parametrize(
    "content",
    [b"no database at all" * 100, b"SQLite format 3\0" + bytes(5000), os.urandom(9000)],
    ids=["text", "header only", "noise"],
)
async def test_a_file_that_is_not_a_database_is_set_aside(
    content: bytes, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path.parent.mkdir()
    path.write_bytes(content)
    Path(f"{path}-wal").write_bytes(b"of the old one")

    async with opened(path) as one, opened(path) as other:
        assert await asyncio.gather(*(each.change((KEEP, [(str(each), "1")])) for each in (one, other))) == [True] * 2
        assert len(await one.rows(ALL)) == len(await other.rows(ALL)) == 2
    assert path.with_name("index.sqlite3.broken").read_bytes() == content
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "set aside as index.sqlite3.broken" in caplog.text


@pytest.mark.parametrize("statement", [f"PRAGMA user_version = {VERSION + 1}", "CREATE TABLE another (a TEXT)"])
async def test_a_file_of_another_version_is_set_aside(
    statement: str, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path.parent.mkdir()
    connection = sqlite3.connect(path)
    connection.execute(statement)
    connection.close()
    async with opened(path) as database:
        assert await database.change((KEEP, [("a", "1")]))
    assert f"not {VERSION}" in caplog.text
    assert path.with_name("index.sqlite3.broken").exists()


async def test_an_empty_file_is_a_new_one(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path.parent.mkdir()
    path.touch()

    async with opened(path) as database:
        assert await database.change((KEEP, [("a", "1")]))
    assert caplog.records == []


async def test_a_file_that_breaks_while_it_is_open_is_set_aside_once(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [(str(number), "x" * 1000) for number in range(1000)]
    async with opened(path) as database:
        assert await database.change((KEEP, rows))
    with path.open("r+b") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(4096)
        file.write(b"\xff" * (size - 4096))
    async with opened(path) as one, opened(path) as other:
        assert [await database.rows("SELECT 1") for database in (one, other)] == [[(1,)], [(1,)]]
        assert await one.rows(ALL) == []
        assert await one.change((KEEP, rows[:2]))
        assert await other.change((KEEP, rows[2:3]))
        assert len(await one.rows(ALL)) == len(await other.rows(ALL)) == 3
    assert caplog.text.count("set aside") == 1


async def test_a_file_that_another_process_has_replaced_is_not_set_aside(path: Path) -> None:
    async with opened(path) as database:
        assert await database.change((KEEP, [("a", "1")]))
        set_aside(path, (1, 1), sqlite3.DatabaseError())
        assert await database.rows(ALL) == [("a", "1")]


async def test_a_removed_file_is_made_again(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with opened(path) as one, opened(path) as other:
        assert await one.change((KEEP, [("a", "1")]))
        assert await other.rows(ALL) == [("a", "1")]
        for file in path.parent.iterdir():
            file.unlink()
        assert await one.rows(ALL) == []
        assert await one.change((KEEP, [("b", "2")]))
        assert await other.rows(ALL) == await one.rows(ALL) == [("b", "2")]
    async with opened(path) as again:
        assert await again.rows(ALL) == [("b", "2")]
    assert caplog.records == []


async def test_without_a_file_nothing_is_found_and_the_log_says_so_once(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path.mkdir(parents=True)

    async with opened(path) as database:
        for _ in range(3):
            assert await database.rows(ALL) == []
            assert not await database.change((KEEP, [("a", "1")]))
    assert len(caplog.records) == 1


async def test_a_write_waits_for_another(path: Path) -> None:
    async with opened(path) as database:
        await database.rows(ALL)
        connection = sqlite3.connect(path, isolation_level=None)
        connection.execute("BEGIN IMMEDIATE")
        begun = time.monotonic()
        asyncio.get_running_loop().call_later(0.3, connection.execute, "COMMIT")
        assert await database.change((KEEP, [("a", "1")]))
        assert time.monotonic() - begun > 0.25
        connection.close()


WRITE = """
import asyncio, sys
from pathlib import Path
from adapters.storage.sqlite_database import SqliteDatabase
async def main():
    database = SqliteDatabase(Path(sys.argv[1]))
    print("ready", flush=True)
    input()
    for number in range(300):
        row = (f"{sys.argv[2]} {number}", "x")
        assert await database.change(("INSERT INTO stances VALUES (?, ?)", [row]))
        assert await database.rows("SELECT challenges FROM stances WHERE upstream = ?", row[:1]) == [("x",)]
    await database.close()
asyncio.run(main())
"""


@pytest.mark.slow
def test_several_processes_open_and_write_at_once(path: Path) -> None:
    with ExitStack() as stack:
        writers = [stack.enter_context(process(WRITE, path, number)) for number in range(4)]
        assert [line_of(writer) for writer in writers] == ["ready"] * 4
        for writer in writers:
            tell(writer)
        assert [writer.wait() for writer in writers] == [0] * 4

    async def count() -> int:
        async with opened(path) as database:
            return len(await database.rows(ALL))

    assert asyncio.run(count()) == 1200
