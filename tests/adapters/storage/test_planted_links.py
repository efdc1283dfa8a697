"""Symbolic links in the place of the cache's folders and files: nothing outside of the cache is read or changed."""

import asyncio
import os
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from adapters.storage.file_content_store import FilesystemContentStore
from adapters.storage.file_leases import FileDownloadLease
from adapters.storage.maintenance import FilesystemStorageMaintenance
from adapters.storage.sqlite_database import SqliteDatabase
from adapters.storage.sqlite_index import SqliteUsageIndex
from application.ports.content import StorageRefused
from application.ports.index import Used
from domain.digest import Digest
from tests.adapters.storage.places import UPSTREAM
from tests.adapters.storage.test_file_content_store import leased
from tests.contracts.storage import append
from tests.fakes.clock import StoppedClock

CONTENT = b"precious"
DIGEST = Digest.of(CONTENT)
NEW = Digest.of(b"new")
DRAFT = f"{UPSTREAM.fingerprint}-sha256-{DIGEST.encoded}"
NAMES = ("sha256", DIGEST.encoded[:2], DIGEST.encoded)
LINKED = [
    "drafts",
    "temporary",
    "content",
    "content/sha256",
    f"content/sha256/{DIGEST.encoded[:2]}",
    f"content/sha256/{DIGEST.encoded[:2]}/{DIGEST.encoded}",
    f"drafts/{DRAFT}",
    "index.sqlite3",
    "index.sqlite3.lock",
    "index.sqlite3-wal",
    "index.sqlite3-shm",
    "index.sqlite3-journal",
]


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A folder that has whatever a step may look for, in each of the shapes that a link can lead to."""
    folder = tmp_path / "outside"
    for place in (folder, folder / "sha256", folder / "drafts", folder / NAMES[1], folder / "sha256" / NAMES[1]):
        place.mkdir(exist_ok=True)
        for name in (DIGEST.encoded, DRAFT, "file"):
            (place / name).write_bytes(CONTENT)
            os.utime(place / name, (0, 0))
    return folder


def tree(folder: Path) -> dict[str, object]:
    """Each entry below the folder with all that a step may have changed of it."""
    found: dict[str, object] = {}
    for path in sorted(folder.rglob("*")):
        state = path.lstat()
        found[str(path)] = (state.st_mode, state.st_ino, state.st_mtime_ns, path.is_file() and path.read_bytes())
    return found


def plant(cache: Path, name: str, outside: Path) -> Path:
    """A link that leads outside, in the place of a folder or file of the cache."""
    link = cache / name
    link.parent.mkdir(parents=True, exist_ok=True)
    is_file = name.startswith("index") or link.name in {DIGEST.encoded, DRAFT}
    link.symlink_to(outside / "file" if is_file else outside)
    return link


async def everything(cache: Path) -> None:
    """Each operation of the storage once, whether it works or not."""
    store, maintenance = FilesystemContentStore(cache), FilesystemStorageMaintenance(cache, StoppedClock(time.time()))
    database = SqliteDatabase(cache / "index.sqlite3")
    usage = SqliteUsageIndex(database)
    for digest, content in ((DIGEST, CONTENT), (NEW, b"new"), (Digest.of(b"other"), b"other")):
        assert await maintenance.space()
        await maintenance.remove_abandoned_partial_blobs()
        with suppress(StorageRefused):
            lease = await store.leases.lease(UPSTREAM, digest)
            if isinstance(lease, FileDownloadLease):
                with suppress(StorageRefused):
                    await append(lease.partial_blob, deque([content]))
                await lease.partial_blob.commit()
                lease.partial_blob.file.close()
        with suppress(StorageRefused):
            await store.put(digest, content)
        stored = await store.open(digest)
        if stored:
            stored.file.close()
        await usage.keep([Used(digest, 1, 1.0)])
        await usage.all()
        await maintenance.contents()
        await store.drop(digest)
        with suppress(StorageRefused):
            lease = await store.leases.lease(UPSTREAM, digest)
            if isinstance(lease, FileDownloadLease):
                await lease.release(keep=False)
                lease.partial_blob.file.close()
        await maintenance.remove_abandoned_partial_blobs()
    await database.close()
    maintenance.close()
    store.close()


@pytest.mark.parametrize("name", LINKED)
async def test_nothing_outside_of_the_cache_is_touched(name: str, tmp_path: Path, outside: Path) -> None:
    plant(tmp_path / "cache", name, outside)
    before = tree(outside)
    await everything(tmp_path / "cache")
    assert tree(outside) == before


@pytest.mark.parametrize("name", [name for name in LINKED if name.startswith("content")])
async def test_nothing_outside_of_the_cache_is_read(name: str, tmp_path: Path, outside: Path) -> None:
    plant(tmp_path / "cache", name, outside)

    store, maintenance = (
        FilesystemContentStore(tmp_path / "cache"),
        FilesystemStorageMaintenance(tmp_path / "cache", StoppedClock()),
    )
    assert await store.open(DIGEST) is None
    assert await maintenance.contents() == {}
    store.close()
    maintenance.close()


@pytest.mark.parametrize("name", ["drafts", "temporary"])
def test_nothing_outside_of_the_cache_is_counted(name: str, tmp_path: Path, outside: Path) -> None:
    plant(tmp_path / "cache", name, outside)
    maintenance = FilesystemStorageMaintenance(tmp_path / "cache", StoppedClock())
    assert asyncio.run(maintenance.space()).partial_blobs == 0
    maintenance.close()


@pytest.mark.parametrize("name", ["drafts", "content"])
async def test_a_link_that_is_planted_while_a_blob_arrives_is_not_followed(
    name: str, tmp_path: Path, outside: Path
) -> None:
    cache = tmp_path / "cache"
    before = tree(outside)

    store = FilesystemContentStore(cache)
    await store.put(NEW, b"new")
    partial_blob = await leased(store, DIGEST)
    await append(partial_blob, deque([CONTENT]))
    (cache / name).rename(cache / "gone")
    plant(cache, name, outside)
    # Right for those who read it, but not kept.
    assert await partial_blob.commit()
    assert await partial_blob.file.read(0, 8) == CONTENT
    partial_blob.file.close()
    store.close()
    assert tree(outside) == before


async def test_a_link_that_is_planted_in_place_of_the_open_index_is_not_followed(tmp_path: Path, outside: Path) -> None:
    before = tree(outside)

    database = SqliteDatabase(tmp_path / "cache" / "index.sqlite3")
    usage = SqliteUsageIndex(database)
    await usage.keep([Used(DIGEST, 1, 1.0)])
    (tmp_path / "cache" / "index.sqlite3").unlink()
    plant(tmp_path / "cache", "index.sqlite3", outside)
    await usage.keep([Used(NEW, 1, 1.0)])
    assert await usage.all() == []
    await database.close()
    assert tree(outside) == before


def make_pipe(path: Path) -> None:
    os.mkfifo(path)


def make_second_name(path: Path) -> None:
    (path.parent / "elsewhere").write_bytes(CONTENT)
    path.hardlink_to(path.parent / "elsewhere")


@pytest.mark.parametrize("make", [make_pipe, make_second_name])
async def test_a_partial_blob_with_a_second_name_is_not_written_to(
    make: Callable[[Path], None], tmp_path: Path
) -> None:
    (tmp_path / "drafts").mkdir()
    make(tmp_path / "drafts" / DRAFT)

    store = FilesystemContentStore(tmp_path)
    with pytest.raises(StorageRefused):
        await store.leases.lease(UPSTREAM, DIGEST)
    store.close()


async def test_a_pipe_in_the_place_of_content_does_not_block(tmp_path: Path) -> None:
    place = tmp_path / "content" / NAMES[0] / NAMES[1]
    place.mkdir(parents=True)
    os.mkfifo(place / DIGEST.encoded)

    store = FilesystemContentStore(tmp_path)
    assert await asyncio.wait_for(store.open(DIGEST), 20) is None
    store.close()
