"""What is used stays; what was not used for longest makes room."""

import asyncio
from collections import deque
from typing import Any

import pytest

from application.eviction import Eviction
from application.ports.content import StorageFull
from application.ports.index import Used
from domain.cache_policy import CacheCapacity
from domain.digest import Digest
from domain.events import CacheMeasured, ContentEvicted, Event
from tests.adapters.storage.places import UPSTREAM
from tests.fakes.clock import StoppedClock
from tests.fakes.events import RecordingEventSink
from tests.fakes.index import MemoryKnowledgeIndex, MemoryUsageIndex
from tests.fakes.storage import MemoryContentStore, MemoryDisk, MemoryStorageMaintenance


class Cache:
    """A store of 1000 bytes, its index, and who sweeps it; `other` sweeps for another process."""

    def __init__(self, bound: int = 1000, capacity: int | None = None) -> None:
        self.disk = MemoryDisk(capacity)
        self.store = MemoryContentStore(self.disk)
        self.index = MemoryKnowledgeIndex()
        self.usage = MemoryUsageIndex(self.index)
        self.clock = StoppedClock(1000)
        self.events = RecordingEventSink()
        self.eviction, self.other = (self.sweeper(bound) for _ in range(2))

    def sweeper(self, bound: int) -> Eviction:
        maintenance = MemoryStorageMaintenance(self.disk)
        return Eviction(self.store, maintenance, self.usage, self.index, CacheCapacity(bound), self.clock, self.events)

    async def put(self, name: str, size: int, by: Eviction | None = None) -> Digest:
        content = name.encode().ljust(size, b"-")
        digest = Digest.of(content)
        await self.store.put(digest, content)
        await (by or self.eviction).added(digest, size)
        self.clock.advance(1)
        return digest

    @property
    def removals(self) -> list[Event]:
        return [event for event in self.events.events if not isinstance(event, CacheMeasured)]

    @property
    def names(self) -> str:
        return "".join(sorted(content[:1].decode() for content in self.store.content.values()))

    @property
    def size(self) -> int:
        return sum(map(len, self.store.content.values()))


def run(action: Any) -> Any:
    return asyncio.run(action)


def test_nothing_is_evicted_while_everything_fits() -> None:
    cache = Cache()

    async def act() -> None:
        for name in "abcd":
            await cache.put(name, 250)

    run(act())
    assert (cache.names, cache.removals) == ("abcd", [])


async def test_new_content_counts_before_the_index_lists_it() -> None:
    cache = Cache()
    content, other = b"a" * 600, Digest.of(b"b")
    await cache.store.put(Digest.of(content), content)
    recording = cache.eviction.added(Digest.of(content), len(content))

    growing = asyncio.create_task(cache.eviction.make_space_in_partial_blob(UPSTREAM, other, 500, 500))
    await asyncio.sleep(0.01)
    assert not growing.done()

    await recording
    assert await growing == 500
    assert cache.names == ""


def test_a_tenth_is_freed_at_once_and_the_oldest_goes_first() -> None:
    cache = Cache()

    async def act() -> None:
        for name in "abcdefghij":
            await cache.put(name, 100)
        await cache.put("k", 1)

    run(act())
    assert cache.names == "cdefghijk"  # 801 bytes; with b it would be 901
    assert cache.removals == [ContentEvicted(2, 200)]


def test_recently_used_content_stays() -> None:
    cache = Cache()

    async def act() -> None:
        digests = {name: await cache.put(name, 200) for name in "abcde"}
        cache.eviction.used(digests["a"])
        await cache.put("f", 100)

    run(act())
    assert cache.names == "acdef"


def test_content_that_another_process_used_stays_once_the_use_is_stored() -> None:
    cache = Cache()

    async def act() -> None:
        digests = {name: await cache.put(name, 200) for name in "abcde"}
        cache.other.used(digests["a"])
        await cache.other.flush()
        await cache.put("f", 100)

    run(act())
    assert cache.names == "acdef"


def test_content_that_another_process_added_counts() -> None:
    cache = Cache()

    async def act() -> None:
        for number, name in enumerate("abcdefghijkl"):
            await cache.put(name, 100, cache.other if number % 2 else cache.eviction)
            cache.clock.advance(6)

    run(act())
    assert cache.size <= 1000


def test_partial_blobs_count() -> None:
    cache = Cache()

    async def act() -> None:
        for name in "abcd":
            await cache.put(name, 200)
        lease: Any = await cache.store.lease(UPSTREAM, Digest.of(b"draft"))
        partial_blob = lease.partial_blob
        await partial_blob.write(0, deque([b"-" * 300]))
        cache.clock.advance(6)
        await cache.eviction.make_space(0)
        await lease.release(keep=False)
        partial_blob.file.close()

    run(act())
    assert cache.names == "bcd"


@pytest.mark.parametrize("wanted", [901, 1000, 10**12])
def test_a_blob_that_never_fits_evicts_nothing(wanted: int) -> None:
    cache = Cache()

    async def act() -> None:
        await cache.put("a", 900)
        with pytest.raises(StorageFull):
            await cache.eviction.make_space(wanted)

    run(act())
    assert cache.names == "a"


def test_space_is_made_before_it_is_needed() -> None:
    cache = Cache()

    async def act() -> None:
        for name in "abcde":
            await cache.put(name, 200)
        await cache.eviction.make_space(500)

    run(act())
    assert cache.size == 400


def test_content_is_evicted_when_other_programs_fill_the_disk() -> None:
    cache = Cache(bound=10**9, capacity=1000)

    async def act() -> None:
        for name in "abcde":
            await cache.put(name, 190)
        await cache.eviction.make_space(400)

    run(act())
    assert 1000 - cache.size >= 400


def test_a_disk_full_of_other_files_raises_storage_full() -> None:
    cache = Cache(bound=10**9, capacity=1000)

    async def act() -> None:
        lease: Any = await cache.store.lease(UPSTREAM, Digest.of(b"somebody's"))
        partial_blob = lease.partial_blob
        await partial_blob.write(0, deque([b"-" * 950]))
        with pytest.raises(StorageFull):
            await cache.eviction.make_space(100)
        partial_blob.file.close()

    run(act())


def test_concurrent_requests_for_space_evict_no_more_than_needed() -> None:
    cache = Cache()

    async def act() -> None:
        for name in "abcdefghij":
            await cache.put(name, 100)
        await asyncio.gather(*(cache.eviction.make_space(50) for _ in range(10)))

    run(act())
    assert cache.size == 800  # 850 would do for one; each of them only asks whether 50 bytes fit


def test_evicted_content_can_be_read_to_its_end() -> None:
    cache = Cache()

    async def act() -> bytes:
        digest = await cache.put("a", 500)
        stored: Any = await cache.store.open(digest)
        for name in "bcd":
            await cache.put(name, 300)
        assert "a" not in cache.names
        content = await stored.read()
        stored.file.close()
        return content

    assert len(run(act())) == 500


def test_the_remains_of_a_crash_are_reconciled() -> None:
    cache = Cache()
    lost, unknown = Digest.of(b"lost"), Digest.of(b"unknown")

    async def act() -> None:
        await cache.put("a", 100)
        await cache.usage.keep([Used(lost, 700, 1)])
        await cache.store.put(unknown, b"unknown")
        lease: Any = await cache.store.lease(UPSTREAM, Digest.of(b"draft"))
        partial_blob = lease.partial_blob
        await partial_blob.write(0, deque([b"some"]))
        cache.store.die()
        await cache.eviction.reconcile()
        partial_blob.file.close()

    run(act())
    assert {one.digest for one in cache.usage.entries.values()} == set(cache.store.content)
    assert unknown in cache.usage.entries
    assert lost not in cache.usage.entries
    assert list(cache.store.partial_blobs) == [Digest.of(b"draft")]  # another worker may be about to go on with it


def test_a_cache_that_was_made_smaller_shrinks_at_the_start() -> None:
    cache = Cache()

    async def act() -> None:
        for name in "abcdefghij":
            await cache.put(name, 100)
        await cache.sweeper(500).reconcile()

    run(act())
    assert cache.names == "ghij"  # 450 is the kept share


def test_dropped_content_is_neither_stored_nor_indexed() -> None:
    cache = Cache()

    async def act() -> None:
        await cache.eviction.drop(await cache.put("a", 100))
        await cache.eviction.drop(Digest.of(b"never here"))

    run(act())
    assert (cache.names, cache.usage.entries) == ("", {})


def test_a_use_of_removed_content_does_not_bring_it_back() -> None:
    cache = Cache()

    async def act() -> None:
        cache.eviction.used(Digest.of(b"gone"))
        await cache.eviction.flush()

    run(act())
    assert cache.usage.entries == {}


async def test_each_look_at_the_cache_measures_it() -> None:
    cache = Cache(capacity=4000)
    await cache.put("a", 300)
    await cache.put("b", 100)
    await cache.eviction.make_space(0)
    assert cache.events.events[-1] == CacheMeasured(400, 1000, 3600, 4000, 2)
    await cache.put("c", 900)
    assert cache.events.events[-1] == CacheMeasured(900, 1000, 3100, 4000, 1)
