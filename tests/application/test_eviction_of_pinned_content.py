"""Whatever happens in which order: pinned content stays, and everything else makes room."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from application.eviction import Eviction
from application.ports.content import StorageFull
from domain.cache_policy import CacheCapacity
from domain.digest import Digest
from domain.names import Reference, RepositoryName, Tag
from domain.pins import Pin, PinnedImage
from tests.adapters.storage.places import UPSTREAM
from tests.fakes.clock import StoppedClock
from tests.fakes.events import RecordingEventSink
from tests.fakes.index import MemoryKnowledgeIndex, MemoryUsageIndex
from tests.fakes.pins import MemoryPinIndex
from tests.fakes.storage import MemoryContentStore, MemoryDisk, MemoryStorageMaintenance

BOUND = 1000
SIZES = {"a": 1, "b": 50, "c": 150, "d": 300, "e": 300, "f": 400, "g": 600, "h": 900}
CONTENT = {name: name.encode() * size for name, size in SIZES.items()}
DIGESTS = {name: Digest.of(content) for name, content in CONTENT.items()}

names = st.sampled_from(sorted(CONTENT))
images = st.sampled_from("xyz")


class Cache:
    """A store with a bound, and what is pinned. Two processes add and evict."""

    def __init__(self) -> None:
        self.clock = StoppedClock(1000)
        self.disk = MemoryDisk()
        self.store = MemoryContentStore(self.disk)
        self.index = MemoryKnowledgeIndex()
        self.pins = MemoryPinIndex()
        self.usage = MemoryUsageIndex(self.index, self.pins)
        self.shrink(BOUND)

    def shrink(self, bound: int) -> None:
        """The processes start again with another bound."""
        self.bound = bound
        self.processes = [self.process() for _ in range(2)]

    def process(self) -> Eviction:
        return Eviction(
            self.store,
            MemoryStorageMaintenance(self.disk),
            self.usage,
            self.index,
            CacheCapacity(self.bound),
            self.clock,
            RecordingEventSink(),
        )

    @property
    def stored(self) -> set[Digest]:
        return set(self.store.content)

    @property
    def size(self) -> int:
        return sum(map(len, self.store.content.values()))

    async def add(self, name: str, by: int) -> bool:
        """As a download does. Returns False if it does not fit and has to be passed through."""
        eviction = self.processes[by]
        try:
            await eviction.make_space(len(CONTENT[name]))
        except StorageFull:
            return False
        await self.store.put(DIGESTS[name], CONTENT[name])
        await eviction.added(DIGESTS[name], len(CONTENT[name]))
        return True


def pinned(image: str, tree: set[str]) -> PinnedImage:
    pin = Pin(UPSTREAM.url, RepositoryName("team/app"), Reference(Tag(image)))
    return PinnedImage(pin, 1.0, None, {DIGESTS[name]: len(CONTENT[name]) for name in tree})


class Machine(RuleBasedStateMachine):
    """Content is added, used, pinned and unpinned, by two processes whose bound may shrink."""

    def __init__(self) -> None:
        super().__init__()
        self.cache = Cache()

    @rule(name=names, by=st.integers(0, 1))
    def add(self, name: str, by: int) -> None:
        is_stored = self._watched(lambda: self.cache.add(name, by))
        pinned_size = sum(self._sizes(self.cache.pins.content))
        if len(CONTENT[name]) <= 0.9 * self.cache.bound - pinned_size:
            assert is_stored, "it fits beside all pinned content"
        if is_stored:
            assert DIGESTS[name] in self.cache.stored
            assert self.cache.size <= self.cache.bound

    @rule(name=names, by=st.integers(0, 1))
    def use(self, name: str, by: int) -> None:
        self.cache.processes[by].used(DIGESTS[name])

    @rule(by=st.integers(0, 1))
    def look_after(self, by: int) -> None:
        """What the upkeep of each worker does."""

        async def work() -> None:
            await self.cache.processes[by].flush()
            await self.cache.processes[by].reconcile()

        self._watched(work)
        assert self.cache.size <= self.cache.bound or self.cache.stored <= self.cache.pins.content

    @rule(image=images, tree=st.sets(names))
    def pin(self, image: str, tree: set[str]) -> None:
        asyncio.run(self.cache.pins.keep(pinned(image, tree)))

    @rule(image=images)
    def unpin(self, image: str) -> None:
        asyncio.run(self.cache.pins.forget(pinned(image, set()).pin))

    @rule(bound=st.sampled_from([200, 500, BOUND]))
    def shrink(self, bound: int) -> None:
        self.cache.shrink(bound)

    @rule(seconds=st.integers(1, 100))
    def wait(self, seconds: int) -> None:
        self.cache.clock.advance(seconds)

    @rule()
    def unpin_all(self) -> None:
        """Nothing that was pinned stays for good."""
        for image in "xyz":
            self.unpin(image)
        self.look_after(0)
        assert self.cache.size <= self.cache.bound

    @invariant()
    def the_index_lists_what_is_stored(self) -> None:
        assert set(self.cache.usage.entries) == self.cache.stored

    def _watched(self, act: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        """The result of the step. It evicts no pinned content, and of the rest the least recently used first."""
        before, uses = self.cache.stored, dict(self.cache.usage.entries)
        result = asyncio.run(act())
        evicted = before - self.cache.stored
        assert not evicted & self.cache.pins.content
        kept = before - evicted - self.cache.pins.content
        touched = {digest for digest in before if self.cache.usage.entries.get(digest) != uses[digest]}
        for digest in evicted:
            assert all(uses[digest].used_at <= uses[other].used_at for other in kept - touched)
        return result

    def _sizes(self, digests: frozenset[Digest]) -> list[int]:
        return [len(self.cache.store.content[digest]) for digest in digests & self.cache.stored]


TestPinnedContent = Machine.TestCase
TestPinnedContent.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)


def test_a_cache_that_is_full_of_pinned_content_passes_the_rest_through_until_it_is_unpinned() -> None:
    cache = Cache()

    async def act() -> None:
        assert await cache.add("h", 0)
        assert await cache.add("a", 0)
        await cache.pins.keep(pinned("x", {"h"}))
        assert not await cache.add("c", 1)
        assert cache.stored == {DIGESTS["h"]}
        assert await cache.add("a", 1), "what fits is stored"
        cache.shrink(500)
        assert not await cache.add("a", 0)
        for process in cache.processes:
            await process.make_space(0)
        assert cache.stored == {DIGESTS["h"]}
        await cache.pins.forget(pinned("x", set()).pin)
        assert await cache.add("c", 0)
        assert cache.stored == {DIGESTS["c"]}

    asyncio.run(act())


def test_nothing_is_evicted_while_the_pins_cannot_be_read() -> None:
    cache = Cache()

    async def act() -> None:
        assert await cache.add("g", 0)
        await cache.pins.keep(pinned("x", {"g"}))
        cache.pins.is_broken = True
        assert await cache.add("f", 0)
        assert not await cache.add("e", 0)
        assert cache.stored == {DIGESTS["f"], DIGESTS["g"]}

    asyncio.run(act())
