import asyncio
import os
import subprocess
from collections import deque
from contextlib import suppress
from pathlib import Path

import pytest

from adapters.storage.file_content_store import FilesystemContentStore
from adapters.storage.file_leases import FileDownloadLease
from adapters.storage.file_partial_blob import FollowedFilePartialBlob
from adapters.storage.maintenance import FilesystemStorageMaintenance
from adapters.storage.sqlite_database import SqliteDatabase
from adapters.storage.sqlite_index import SqliteKnowledgeIndex, SqliteUsageIndex
from application.ports.content import StorageFailed, StorageFull
from application.ports.index import Used
from domain.digest import Digest
from tests.adapters.storage.places import UPSTREAM, small_disk
from tests.contracts.storage import append
from tests.fakes.clock import StoppedClock

PIECE = os.urandom(300_000)
CONTENT = PIECE * 3
DIGEST = Digest.of(CONTENT)


def occupy(folder: Path) -> Path:
    """Write a file until nothing more goes in."""
    ballast = folder / "ballast"
    with ballast.open("wb", buffering=0) as file, suppress(OSError):
        while file.write(bytes(4096)):
            pass
    return ballast


def test_an_append_to_a_full_disk_can_be_repeated(tmp_path: Path) -> None:
    async def go(folder: Path) -> None:
        store = FilesystemContentStore(folder)
        lease, followed = await store.leases.lease(UPSTREAM, DIGEST), await store.leases.lease(UPSTREAM, DIGEST)
        assert isinstance(lease, FileDownloadLease)
        partial_blob = lease.partial_blob
        assert isinstance(followed, FollowedFilePartialBlob)
        await append(partial_blob, deque([PIECE]))
        (folder / "half").write_bytes(bytes(300_000))
        with pytest.raises(StorageFull, match="No space left on device"):
            await append(partial_blob, deque([PIECE[:1000], PIECE[1000:], PIECE]))
        # What a follower may have seen of it stays.
        assert partial_blob.present.beginning == len(PIECE) <= followed.look().present.beginning
        (folder / "half").unlink()
        await append(partial_blob, deque([PIECE, PIECE]))
        assert await partial_blob.commit()
        partial_blob.file.close()
        followed.file.close()
        store.close()

    with small_disk(tmp_path / "disk") as folder:
        asyncio.run(go(folder))


def test_a_put_to_a_full_disk_leaves_no_file(tmp_path: Path) -> None:
    async def go(folder: Path) -> None:
        store = FilesystemContentStore(folder)
        with pytest.raises(StorageFull):
            await store.put(Digest.of(CONTENT * 2), CONTENT * 2)
        assert list((folder / "temporary").iterdir()) == []
        await store.put(DIGEST, CONTENT)
        store.close()

    with small_disk(tmp_path / "disk") as folder:
        asyncio.run(go(folder))


def test_the_reserve_stays_free(tmp_path: Path) -> None:
    async def go(folder: Path) -> None:
        roomy, store = FilesystemContentStore(folder), FilesystemContentStore(folder / "cache", reserve=500_000)
        lease = await store.leases.lease(UPSTREAM, DIGEST)
        assert isinstance(lease, FileDownloadLease)
        partial_blob = lease.partial_blob
        await append(partial_blob, deque([PIECE]))
        await append(partial_blob, deque([PIECE]))
        with pytest.raises(StorageFull):
            await append(partial_blob, deque([PIECE]))
        for refused in (store.leases.lease(UPSTREAM, Digest.of(b"")), store.put(Digest.of(b""), b"")):
            with pytest.raises(StorageFull):
                await refused
        await roomy.put(Digest.of(PIECE), PIECE)
        partial_blob.file.close()
        roomy.close()
        store.close()

    with small_disk(tmp_path / "disk") as folder:
        asyncio.run(go(folder))


def test_maintenance_reports_the_free_space(tmp_path: Path) -> None:
    async def go(folder: Path) -> None:
        maintenance = FilesystemStorageMaintenance(folder, StoppedClock())
        assert (await maintenance.space()).total == (await maintenance.space()).free == 1 << 20
        occupy(folder)
        assert (await maintenance.space()).free == 0
        maintenance.close()

    with small_disk(tmp_path / "disk") as folder:
        asyncio.run(go(folder))


def test_a_read_only_disk_serves_what_it_has(tmp_path: Path) -> None:
    async def go(folder: Path) -> None:
        store = FilesystemContentStore(folder)
        await store.put(DIGEST, CONTENT)
        await asyncio.to_thread(lambda: subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True))
        stored = await store.open(DIGEST)
        assert stored
        assert await stored.read() == CONTENT
        stored.file.close()
        assert await store.drop(DIGEST) == 0
        for refused in (store.leases.lease(UPSTREAM, Digest.of(b"")), store.put(Digest.of(b""), b"")):
            with pytest.raises(StorageFailed, match="Read-only file system"):
                await refused
        store.close()

    with small_disk(tmp_path / "disk") as folder:
        asyncio.run(go(folder))


def test_an_index_on_a_full_disk_is_still_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def go(folder: Path) -> None:
        database = SqliteDatabase(folder / "index.sqlite3")
        usage, index = SqliteUsageIndex(database), SqliteKnowledgeIndex(database, StoppedClock())
        await usage.keep([Used(DIGEST, 1, 1.0)])
        before = await index.epoch()
        ballast = occupy(folder)
        many = [Used(Digest.of(str(number).encode()), number, 2.0) for number in range(5000)]
        await usage.keep(many)
        await usage.keep(many)
        assert await usage.all() == [Used(DIGEST, 1, 1.0)]
        assert len(caplog.records) == 1
        ballast.unlink()
        await usage.keep(many[:3])
        await index.advance_epoch()
        assert len(await usage.all()) == 4
        assert await index.epoch() == before + 1
        await database.close()

    with small_disk(tmp_path / "disk") as folder:
        asyncio.run(go(folder))
