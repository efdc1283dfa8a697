"""The storage of two workers, on the same disk or on the same fake disk."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from adapters.storage.file_content_store import FilesystemContentStore
from adapters.storage.maintenance import FilesystemStorageMaintenance
from adapters.storage.sqlite_database import SqliteDatabase
from adapters.storage.sqlite_index import SqliteImageIndex, SqliteKnowledgeIndex, SqliteUsageIndex
from adapters.storage.sqlite_pins import SqlitePinIndex
from application.ports.content import ContentStore, PartialBlob, StorageMaintenance
from application.ports.index import ImageIndex, KnowledgeIndex, UsageIndex
from application.ports.lease import DownloadLease, DownloadLeases, FollowedPartialBlob, PartialBlobState
from application.ports.pins import PinIndex
from domain.digest import Bytes, Digest
from domain.names import RepositoryName
from domain.span_set import SpanSet
from domain.upstreams import Origin, Source, Upstream
from tests.fakes import storage as fakes
from tests.fakes.clock import StoppedClock
from tests.fakes.index import MemoryImageIndex, MemoryKnowledgeIndex, MemoryUsageIndex
from tests.fakes.pins import MemoryPinIndex

HUB = Upstream("https://hub.test", Origin("https", "hub.test", 443))
QUAY = Upstream("https://quay.test/v2path", Origin("https", "quay.test", 443))
NGINX = Source(HUB, RepositoryName("library/nginx"))
REDIS = Source(HUB, RepositoryName("library/redis"))
NGINX_AT_QUAY = Source(QUAY, RepositoryName("library/nginx"))
KINDS = ("real", "fake")


@dataclass(frozen=True)
class Worker:
    """The storage ports of one process."""

    store: ContentStore
    leases: DownloadLeases
    maintenance: StorageMaintenance
    index: KnowledgeIndex
    usage: UsageIndex
    images: ImageIndex
    pins: PinIndex


def by_two_workers(test: Callable[[Worker, Worker], Awaitable[None]]) -> Callable[[str, Path], None]:
    """Runs the test once on the disk and once on the fakes."""

    @pytest.mark.parametrize("kind", KINDS)
    def run(kind: str, tmp_path: Path) -> None:
        async def go() -> None:
            async with two_workers(kind, tmp_path) as (one, other):
                await test(one, other)

        asyncio.run(go())

    return run


@asynccontextmanager
async def two_workers(kind: str, folder: Path) -> AsyncIterator[tuple[Worker, Worker]]:
    if kind == "fake":
        first = _fake(fakes.MemoryDisk())
        store = fakes.MemoryContentStore(_disk(first))
        yield first, replace(first, store=store, leases=store, pins=_pins(first).of_another_worker())
        return
    async with real_worker(folder) as one, real_worker(folder) as other:
        yield one, other


@asynccontextmanager
async def real_worker(folder: Path) -> AsyncIterator[Worker]:
    database, clock = SqliteDatabase(folder / "index.sqlite3"), StoppedClock()
    store, maintenance = FilesystemContentStore(folder), FilesystemStorageMaintenance(folder, clock)
    try:
        yield Worker(
            store,
            store.leases,
            maintenance,
            SqliteKnowledgeIndex(database, clock),
            SqliteUsageIndex(database),
            SqliteImageIndex(database),
            SqlitePinIndex(database, clock),
        )
    finally:
        await database.close()
        store.close()
        maintenance.close()


async def lease_of(worker: Worker, digest: Digest, upstream: Upstream = HUB) -> DownloadLease:
    """The lease, which no other worker has."""
    lease = await worker.leases.lease(upstream, digest)
    assert lease is not None
    assert not isinstance(lease, FollowedPartialBlob)
    return lease


async def partial_blob_of(worker: Worker, digest: Digest, upstream: Upstream = HUB) -> PartialBlob:
    """The partial blob of a lease."""
    return (await lease_of(worker, digest, upstream)).partial_blob


async def append(partial_blob: PartialBlob, pieces: deque[Bytes]) -> None:
    """Write the pieces at the end of the beginning, as far as one call does."""
    await partial_blob.write(partial_blob.present.beginning, pieces)


def unverified(size: int) -> PartialBlobState:
    """The state of a partial blob without gaps."""
    return PartialBlobState(SpanSet.up_to(size), None, is_verified=False, is_discarded=False)


def discarded(size: int) -> PartialBlobState:
    """The state of a partial blob without gaps that has been discarded."""
    return PartialBlobState(SpanSet.up_to(size), None, is_verified=False, is_discarded=True)


def verified(size: int) -> PartialBlobState:
    """The state of a partial blob that has become content."""
    return PartialBlobState(SpanSet.up_to(size), size, is_verified=True, is_discarded=False)


async def followed_by(worker: Worker, digest: Digest, upstream: Upstream = HUB) -> FollowedPartialBlob:
    """The partial blob for which another worker has the lease."""
    partial_blob = await worker.leases.lease(upstream, digest)
    assert isinstance(partial_blob, FollowedPartialBlob)
    return partial_blob


async def content_of(worker: Worker, digest: Digest) -> bytes | None:
    stored = await worker.store.open(digest)
    if stored is None:
        return None
    try:
        return await stored.read()
    finally:
        stored.file.close()


def _fake(disk: fakes.MemoryDisk) -> Worker:
    store = fakes.MemoryContentStore(disk)
    index, pins = MemoryKnowledgeIndex(), MemoryPinIndex()
    return Worker(
        store,
        store,
        fakes.MemoryStorageMaintenance(disk),
        index,
        MemoryUsageIndex(index, pins),
        MemoryImageIndex(index),
        pins,
    )


def _disk(worker: Worker) -> fakes.MemoryDisk:
    assert isinstance(worker.store, fakes.MemoryContentStore)
    return worker.store.disk


def _pins(worker: Worker) -> MemoryPinIndex:
    assert isinstance(worker.pins, MemoryPinIndex)
    return worker.pins
