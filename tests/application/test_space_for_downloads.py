"""Room is made as bytes arrive; what only might arrive evicts nothing, and no download takes the whole cache."""

import asyncio
from collections import deque
from dataclasses import replace
from typing import Any

import pytest

from application.eviction import Eviction
from application.ports.content import StorageFull
from application.ports.lease import DownloadLease
from domain.byte_ranges import ByteRange
from domain.cache_policy import CacheCapacity
from domain.digest import Digest
from domain.events import BytesFetched, CacheFull, ContentEvicted, DownloadStarted
from domain.names import Reference, RepositoryName
from domain.pins import Pin, PinnedImage
from tests.adapters.storage.places import OTHER, UPSTREAM
from tests.application.support.crowd import Crowd
from tests.application.support.service import PRIVATE
from tests.application.support.watched import BIG, PIECE, held, soon
from tests.fakes.clock import StoppedClock
from tests.fakes.events import RecordingEventSink
from tests.fakes.index import MemoryKnowledgeIndex, MemoryUsageIndex
from tests.fakes.pins import MemoryPinIndex
from tests.fakes.storage import MemoryContentStore, MemoryDisk, MemoryStorageMaintenance

MIB = 1 << 20


class Stocked(Crowd):
    """A cache of 4 MiB that is nearly full of blobs of 100 kB."""

    def __init__(self) -> None:
        super().__init__(cache_size="4MiB")
        self.small = [self.blob(100_000, number) for number in range(40)]

    def blob(self, size: int, number: int) -> Digest:
        return self.upstream.put_blob(str(PRIVATE), bytes([number]) * size)

    async def fill_up(self) -> None:
        for digest in self.small:
            await self.read(digest=digest)
        await self.service.parts.background().close()
        self.upstream.asked.clear()
        self.service.events.clear()
        assert self.kept == 40

    @property
    def kept(self) -> int:
        """How many of the small blobs are still there."""
        content = self.service.parts.store().content
        return sum(digest in content for digest in self.small)

    @property
    def fetched(self) -> int:
        return sum(event.count for event in self.service.events if isinstance(event, BytesFetched))


def test_a_declared_size_evicts_nothing_before_bytes_arrive() -> None:
    crowd = Stocked()
    digest = crowd.blob(1_500_000, 99)

    async def act() -> None:
        await crowd.fill_up()
        gate = held(crowd.upstream)
        reading = crowd.read(digest=digest)
        downloads, upstream = crowd.service.parts.downloads(), crowd.service.parts.upstream()
        await soon(
            lambda: (
                (download := downloads.running(upstream, digest)) is not None and download.present.length >= 2 * PIECE
            )
        )
        assert crowd.kept == 40
        gate.set()
        assert len(await reading) == 1_500_000
        await soon(lambda: digest in crowd.service.parts.store().content)
        assert 20 <= crowd.kept < 40

    crowd.run(act())


def test_one_byte_of_a_cold_blob_evicts_nothing_and_downloads_nothing_else() -> None:
    crowd = Stocked()
    digest = crowd.blob(1_500_000, 99)

    async def act() -> None:
        await crowd.fill_up()
        assert await crowd.read(digest=digest, ranges=(ByteRange(0, 0),)) == bytes([99])
        await asyncio.sleep(0.05)
        assert crowd.kept == 40

    crowd.run(act())
    assert [fetch.byte_range for fetch in crowd.upstream.asked] == [ByteRange(0, 0)]
    assert (crowd.count(DownloadStarted), crowd.fetched) == (0, 1)


@pytest.mark.parametrize("blobs", [1, 10])
def test_the_upstream_sends_a_requested_byte_of_a_blob_once_and_no_other(blobs: int) -> None:
    crowd = Stocked()
    digests = [crowd.blob(500_000, 99 + number) for number in range(blobs)] * (10 // blobs)

    async def act() -> None:
        for digest in digests:
            await crowd.read(digest=digest, ranges=(ByteRange(7, 7),))
        await asyncio.sleep(0.05)

    crowd.run(act())
    assert (crowd.count(DownloadStarted), crowd.fetched) == (0, blobs)


def test_a_body_without_a_length_and_without_an_end_leaves_most_of_the_cache() -> None:
    crowd = Stocked()
    endless = crowd.blob(12 * MIB, 99)

    async def act() -> None:
        await crowd.fill_up()
        crowd.upstream.alter = lambda answer: replace(answer, metadata=replace(answer.metadata, size=None))
        assert len(await crowd.read(digest=endless)) == 12 * MIB
        # A quarter of the bound is for it, and a tenth more is freed at a time.
        assert crowd.kept * 100_000 >= 4 * MIB * 0.6
        assert endless not in crowd.service.parts.store().content

    crowd.run(act())
    assert crowd.count(CacheFull) == 1


def test_a_blob_that_would_never_fit_evicts_nothing_and_reaches_the_client() -> None:
    crowd = Stocked()
    large = crowd.blob(3 * MIB + 1, 99)

    async def act() -> None:
        await crowd.fill_up()
        assert len(await crowd.read(digest=large)) == 3 * MIB + 1
        assert crowd.kept == 40

    crowd.run(act())
    assert (crowd.count(ContentEvicted), crowd.count(CacheFull)) == (0, 1)


def test_only_a_few_downloads_continue_without_a_reader() -> None:
    crowd = Crowd()
    digests = [crowd.upstream.put_blob(str(PRIVATE), bytes([number]) * 300_000) for number in range(7)]

    async def act() -> tuple[int, int]:
        downloads = crowd.service.parts.downloads()
        gates = []
        for digest in digests:
            gates.append(held(crowd.upstream))
            reading = crowd.read(digest=digest)
            await soon(lambda: (download := downloads.running(crowd.service.parts.upstream(), digest)) is not None  # noqa: B023
                       and download.present.length >= 2 * PIECE)  # fmt: skip
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
            crowd.service.clock.advance(1)
        running = [digest for digest in digests if downloads.running(crowd.service.parts.upstream(), digest)]
        await soon(lambda: len(downloads._tasks) == 4)
        still = [digest for digest in digests if downloads.running(crowd.service.parts.upstream(), digest)]
        assert set(still) <= set(running)
        assert still == digests[3:]  # those that lost their reader last
        kept = len(crowd.service.parts.store().partial_blobs)
        for gate in gates:
            gate.set()
        return len(still), kept

    assert crowd.run(act()) == (4, 7)  # and what the others have by then is kept, to go on with


def test_parts_start_no_download_where_a_few_run_without_a_reader_already() -> None:
    crowd = Crowd()
    digests = [crowd.upstream.put_blob(str(PRIVATE), bytes([number]) * 300_000) for number in range(6)]

    async def act() -> int:
        gates = []
        for digest in digests:
            crowd.upstream.alter = lambda answer: replace(answer, piece=PIECE)
            await crowd.read(digest=digest, ranges=(ByteRange(0, 100_000 - 1),))
            # Together with it more than half of it: the rest is fetched, and held up.
            gates.append(held(crowd.upstream, 100_000))
            await crowd.read(digest=digest, ranges=(ByteRange(100_000, 160_000 - 1),))
        await asyncio.sleep(0.05)
        started = crowd.count(DownloadStarted)
        for gate in gates:
            gate.set()
        return started

    assert crowd.run(act()) == 4


class Sharing:
    """Drafts of two upstreams in a cache of 1000 bytes; each draft is 100 bytes long."""

    def __init__(self) -> None:
        self.disk = MemoryDisk()
        self.store = MemoryContentStore(self.disk)
        index = MemoryKnowledgeIndex()
        self.pins = MemoryPinIndex()
        usage, clock, events = MemoryUsageIndex(index, self.pins), StoppedClock(), RecordingEventSink()
        maintenance = MemoryStorageMaintenance(self.disk)
        self.eviction = Eviction(self.store, maintenance, usage, index, CacheCapacity(1000, 2), clock, events)
        self._number = 0

    async def store_pinned(self, size: int) -> None:
        """Content that is never evicted."""
        digest = Digest.of(b"-" * size)
        pin = Pin(UPSTREAM.url, RepositoryName("team/pinned"), Reference(digest))
        await self.pins.keep(PinnedImage(pin, 0.0, tree={digest: size}))
        await self.store.put(digest, b"-" * size)
        await self.eviction.added(digest, size)

    async def lease(self, upstream: Any) -> DownloadLease:
        """Another one, for which room was made."""
        self._number += 1
        digest = Digest.of(bytes([self._number]))
        await self.eviction.make_space_in_partial_blob(upstream, digest, 100, 100)
        lease: Any = await self.store.lease(upstream, digest)
        await lease.partial_blob.write(0, deque([b"-" * 100]))
        self.eviction.reserve(upstream, digest, 0)
        return lease

    async def leave_abandoned(self, number: int) -> None:
        """One after another, this many partial blobs that no download continues."""
        for _ in range(number):
            lease = await self.lease(UPSTREAM)
            await lease.release(keep=True)
            lease.partial_blob.file.close()

    async def grow_while_counted_twice(self, *, reserved: int, written: int, needed: int) -> None:
        """A download makes space for `needed` more bytes while those that a thread has written still count as reserved,
        so that there seems to be no space.
        """
        digest = Digest.of(b"a")
        await self.eviction.make_space_in_partial_blob(UPSTREAM, digest, reserved, reserved)
        lease: Any = await self.store.lease(UPSTREAM, digest)
        # A thread has written these bytes, and the download does not know it yet.
        await lease.partial_blob.write(0, deque([b"-" * written]))
        growing = asyncio.create_task(self.eviction.make_space_in_partial_blob(UPSTREAM, digest, needed, needed))
        await asyncio.sleep(0.01)
        assert not growing.done()
        self.eviction.reserve(UPSTREAM, digest, reserved - written)
        assert await growing == needed
        await lease.release(keep=False)
        lease.partial_blob.file.close()


async def test_partial_blobs_are_bounded_per_upstream_and_in_total() -> None:
    sharing = Sharing()

    leases = [await sharing.lease(UPSTREAM) for _ in range(5)]
    with pytest.raises(StorageFull):
        await sharing.lease(UPSTREAM)
    # The other upstream has its own share, up to what all may have together.
    leases += [await sharing.lease(OTHER) for _ in range(2)]
    with pytest.raises(StorageFull):
        await sharing.lease(OTHER)
    for lease in leases:
        await lease.release(keep=False)
        lease.partial_blob.file.close()


async def test_abandoned_partial_blobs_are_removed_for_running_downloads() -> None:
    sharing = Sharing()
    await sharing.leave_abandoned(8)


async def test_reserved_bytes_count_in_the_share() -> None:
    sharing = Sharing()

    await sharing.eviction.make_space_in_partial_blob(UPSTREAM, Digest.of(b"a"), 450, 450)
    with pytest.raises(StorageFull):
        await sharing.eviction.make_space_in_partial_blob(UPSTREAM, Digest.of(b"b"), 100, 100)
    sharing.eviction.reserve(UPSTREAM, Digest.of(b"a"), 0)
    await sharing.eviction.make_space_in_partial_blob(UPSTREAM, Digest.of(b"b"), 100, 100)


async def test_bytes_that_are_counted_twice_while_they_are_written_refuse_nothing() -> None:
    await Sharing().grow_while_counted_twice(reserved=400, written=300, needed=100)


async def test_bytes_that_are_counted_twice_beside_pinned_content_refuse_nothing() -> None:
    sharing = Sharing()
    await sharing.store_pinned(700)
    await sharing.grow_while_counted_twice(reserved=200, written=200, needed=50)


async def test_a_cache_full_of_pinned_content_refuses_a_download() -> None:
    sharing = Sharing()
    await sharing.store_pinned(950)
    with pytest.raises(StorageFull):
        await sharing.lease(UPSTREAM)


async def test_abandoned_partial_blobs_are_removed_if_pinned_content_leaves_no_other_space() -> None:
    sharing = Sharing()
    await sharing.store_pinned(750)
    await sharing.leave_abandoned(4)


async def test_a_body_of_unknown_length_is_stored_only_below_a_quarter_of_the_cache() -> None:
    sharing = Sharing()

    await sharing.eviction.make_space_in_partial_blob(UPSTREAM, Digest.of(b"a"), 200, None)
    with pytest.raises(StorageFull):
        await sharing.eviction.make_space_in_partial_blob(OTHER, Digest.of(b"b"), 100, None)
    await sharing.eviction.make_space_in_partial_blob(OTHER, Digest.of(b"b"), 100, 100)


def test_a_blob_below_its_share_is_kept() -> None:
    crowd = Crowd(cache_size="1MiB")

    async def act() -> None:
        assert await crowd.read() == BIG
        await soon(lambda: list(crowd.service.parts.store().content.values()) == [BIG])

    crowd.run(act())
