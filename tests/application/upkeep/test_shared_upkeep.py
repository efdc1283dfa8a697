"""The bound of the shared store, and the parts that no content needs."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from application.ports.shared import SHARDS, SharedObject, SharedPart, SharedRecord
from application.upkeep.shared_content import SharedContent
from application.upkeep.shared_upkeep import SharedUpkeep
from domain.digest import Digest
from domain.events import SharedContentEvicted
from domain.names import Reference, RepositoryName, Tag
from domain.pins import Pin, PinnedImage
from domain.upstreams import Origin, Upstream
from tests.fakes.clock import StoppedClock
from tests.fakes.events import RecordingEventSink
from tests.fakes.pins import MemoryPinIndex
from tests.fakes.shared_leases import FakeLeaseTable, FakeSharedLeases
from tests.fakes.shared_store import FakeSharedStore
from tests.fakes.shared_uses import FakeSharedUses

DAY = 24 * 3600
UPSTREAM = Upstream("https://upstream.test", Origin("https", "upstream.test", 443))
PART = 100


class Knowledge:
    """Implements SharedKnowledge."""

    def __init__(self) -> None:
        self.forgotten: list[Digest] = []

    async def forget_content(self, digests: list[Digest]) -> None:
        self.forgotten += digests


@dataclass
class Shared:
    """A store with its upkeep. `bound`: bytes."""

    bound: int = 10_000
    clock: StoppedClock = field(default_factory=StoppedClock)

    def __post_init__(self) -> None:
        self.store = FakeSharedStore(self.clock)
        self.uses = FakeSharedUses(self.clock)
        self.leases = FakeSharedLeases(FakeLeaseTable(self.clock))
        self.pins = MemoryPinIndex(self.clock)
        self.knowledge = Knowledge()
        self.events = RecordingEventSink()
        content = SharedContent(self.store, self.leases, self.uses, self.knowledge, self.clock, self.events)
        self.upkeep = SharedUpkeep(content, self.uses, self.pins, self.bound, self.clock)

    def run(self) -> None:
        """A run that is due."""
        self.uses.upkeep.until = 0.0
        asyncio.run(self.upkeep.run_if_due())

    async def part(self, digest: Digest, lease: str, offset: int) -> SharedPart:
        return await self.store.put_part(UPSTREAM, digest, lease, offset, bytes([offset % 251]) * PART)

    def blob(self, name: str, parts: int = 2, lease: str = "lease1") -> Digest:
        """A blob that is whole in the store."""
        digest = Digest("sha256", hashlib.sha256(name.encode()).hexdigest())

        async def write() -> None:
            written = [await self.part(digest, lease, number * PART) for number in range(parts)]
            record = SharedRecord(parts * PART, frozenset({UPSTREAM.fingerprint}), False, None, tuple(written))
            await self.store.put(digest, record)

        asyncio.run(write())
        return digest

    def pin(self, *tree: Digest, tag: str = "1") -> None:
        """Pin an image that needs this content."""
        image = PinnedImage(pin_of(tag), 1.0, tree[0], dict.fromkeys(tree, 2 * PART))
        asyncio.run(self.pins.keep(image))

    def holds(self, digest: Digest) -> bool:
        record = self.store.kept.get(digest)
        return record is not None and all(part.key in self.store.contents for part in record.parts)


def pin_of(tag: str) -> Pin:
    return Pin(UPSTREAM.url, RepositoryName("team/app"), Reference(Tag(tag)))


def test_the_content_that_was_used_least_recently_is_removed() -> None:
    shared = Shared(bound=450)
    first, second, third = (shared.blob(name) for name in ("a", "b", "c"))
    shared.clock.advance(2 * 3600)
    asyncio.run(shared.upkeep.used({first: shared.clock.now()}))
    shared.clock.advance(2 * 3600)
    asyncio.run(shared.upkeep.used({third: shared.clock.now()}))
    shared.run()
    assert [shared.holds(one) for one in (first, second, third)] == [True, False, True]
    assert shared.knowledge.forgotten == [second]
    assert shared.events.events == [SharedContentEvicted(3, 200)]
    assert not [key for key in shared.store.contents if second.encoded in key]


def test_no_more_is_removed_than_needed() -> None:
    shared = Shared(bound=1000)
    blobs = [shared.blob(str(number)) for number in range(20)]
    shared.run()
    assert sum(map(shared.holds, blobs)) == 4  # nine tenths of the bound, so that the next run need not remove any


def test_nothing_is_removed_below_the_bound() -> None:
    shared = Shared(bound=400)
    blobs = [shared.blob(name) for name in ("a", "b")]
    shared.clock.advance(30 * DAY)
    shared.run()
    assert all(map(shared.holds, blobs))
    assert shared.events.events == []


def test_content_of_pinned_images_counts_and_is_not_removed() -> None:
    shared = Shared(bound=700)
    pinned, old, new = (shared.blob(name) for name in ("a", "b", "c"))
    shared.pin(pinned)
    shared.run()
    assert all(map(shared.holds, (pinned, old, new))), "all fit"
    shared.clock.advance(2 * 3600)
    asyncio.run(shared.upkeep.used({new: shared.clock.now()}))
    newest = shared.blob("d")
    shared.run()
    assert [shared.holds(one) for one in (pinned, old, new, newest)] == [True, False, True, True]
    asyncio.run(shared.pins.forget(pin_of("1")))
    shared.blob("e")
    shared.run()
    assert not shared.holds(pinned)


def test_pinned_content_alone_may_exceed_the_bound_and_everything_else_is_removed() -> None:
    shared = Shared(bound=300)
    first, second, other = (shared.blob(name) for name in ("a", "b", "c"))
    shared.pin(first, second)
    for _ in range(2):
        shared.run()
        assert [shared.holds(one) for one in (first, second, other)] == [True, True, False]
    listed = shared.store.asked["records"]
    shared.run()
    assert shared.store.asked["records"] - listed == len(SHARDS), "nothing is looked for that could be removed"


def test_an_image_that_is_pinned_during_a_run_is_not_removed() -> None:
    shared = Shared(bound=100)
    digest = shared.blob("a")
    last, asked = shared.uses.last, 0

    async def pin_and_find(digests: Sequence[Digest]) -> dict[Digest, float]:
        nonlocal asked
        asked += 1
        if asked == len(SHARDS):  # what is to be removed is known, and nothing is removed yet
            await shared.pins.keep(PinnedImage(pin_of("1"), 1.0, digest, {digest: 2 * PART}))
        return await last(digests)

    shared.uses.last = pin_and_find  # type: ignore[method-assign] - an operator pins at this moment
    shared.run()
    assert asked > len(SHARDS)
    assert shared.holds(digest)


def test_nothing_is_removed_while_the_pins_are_unknown() -> None:
    shared = Shared(bound=100)
    blobs = [shared.blob(name) for name in ("a", "b")]
    asyncio.run(shared.part(blobs[0], "lease0", 0))
    shared.clock.advance(2 * DAY)
    shared.pins.is_broken = True
    shared.run()
    assert all(map(shared.holds, blobs))
    assert shared.events.events == []


def test_parts_that_no_record_names_are_removed_after_a_day() -> None:
    shared = Shared()
    whole, gone = shared.blob("a"), Digest.of(b"gone")
    asyncio.run(shared.part(whole, "lease0", 0))
    asyncio.run(shared.part(gone, "lease0", 0))
    shared.clock.advance(DAY - 60)
    shared.run()
    assert len(shared.store.contents) == 4
    shared.clock.advance(120)
    shared.run()
    assert len(shared.store.contents) == 2
    assert shared.holds(whole)


def test_parts_that_a_replica_has_published_are_kept() -> None:
    """A slow download takes more than a day."""
    shared = Shared()
    digest = Digest.of(b"slow")

    async def publish() -> None:
        lease = await shared.leases.lease(UPSTREAM, digest)
        part = await shared.part(digest, lease.id, 0)
        await lease.publish(part, 1000)
        await shared.part(digest, "lease0", 100)

    asyncio.run(publish())
    shared.clock.advance(3 * DAY)
    shared.run()
    assert len(shared.store.contents) == 2


@pytest.mark.parametrize("is_held", [True, False])
def test_eviction_keeps_the_parts_of_a_download_that_fetches_the_content_again(*, is_held: bool) -> None:
    shared = Shared(bound=0)
    digest = shared.blob("a")

    async def publish() -> SharedPart:
        lease = await shared.leases.lease(UPSTREAM, digest)
        part = await shared.part(digest, lease.id, 0)
        await lease.publish(part, 200)
        if not is_held:
            await lease.release(keep=True)
        return part

    part = asyncio.run(publish())
    shared.run()
    assert digest not in shared.store.kept
    assert part.key in shared.store.contents


def test_a_record_that_is_written_during_an_eviction_has_its_parts() -> None:
    shared = Shared(bound=0)
    digest = shared.blob("a")
    drop = shared.store.drop

    async def run() -> None:
        lease = await shared.leases.lease(UPSTREAM, digest)
        part = await shared.part(digest, lease.id, 0)
        await lease.publish(part, PART)

        async def drop_and_write(dropped: Digest) -> None:
            await drop(dropped)
            record = SharedRecord(PART, frozenset(), is_public=False, parts=(part,))
            await shared.store.put(digest, record)
            await lease.release(keep=False)

        shared.store.drop = drop_and_write  # type: ignore[method-assign] - the download ends at this moment
        await shared.upkeep.run_if_due()

    asyncio.run(run())
    assert shared.holds(digest)


def test_a_record_of_another_release_is_left_alone() -> None:
    shared = Shared()
    digest = shared.blob("a", lease="lease1")
    asyncio.run(shared.part(digest, "lease2", 0))
    shared.clock.advance(2 * DAY)

    async def find(_: Digest) -> None:
        return None

    shared.store.find = find  # type: ignore[method-assign] - a record that this release cannot read
    shared.run()
    assert len(shared.store.contents) == 3


def test_a_run_is_due_once_in_some_minutes_whichever_replica_makes_it() -> None:
    shared = Shared()
    for _ in range(3):
        asyncio.run(shared.upkeep.run_if_due())
    first = shared.store.asked["records"]
    shared.clock.advance(601)
    asyncio.run(shared.upkeep.run_if_due())
    assert shared.store.asked["records"] == 2 * first


def test_a_long_run_is_followed_by_a_long_pause() -> None:
    """Stores charge for each list request."""
    shared = Shared()
    one_run = 2 * len(SHARDS)  # requests for lists of records and of parts

    class SlowStore(FakeSharedStore):
        async def records(self, shard: str = "") -> AsyncIterator[tuple[Digest, SharedObject]]:
            shared.clock.advance(1)
            async for found in super().records(shard):
                yield found

    store = SlowStore(shared.clock)
    content = SharedContent(store, shared.leases, shared.uses, shared.knowledge, shared.clock, shared.events)
    upkeep = SharedUpkeep(content, shared.uses, shared.pins, 1000, shared.clock)
    for _ in range(80):
        asyncio.run(upkeep.run_if_due())
        shared.clock.advance(60)
    assert store.asked["records"] + store.asked["parts"] == one_run
    shared.clock.advance(20 * len(SHARDS))
    asyncio.run(upkeep.run_if_due())
    assert store.asked["records"] + store.asked["parts"] == 2 * one_run


def test_a_worker_that_lost_its_turn_stops() -> None:
    shared = Shared(bound=100)
    blob = shared.blob("a")

    class SlowUses(FakeSharedUses):
        async def last(self, digests: Sequence[Digest]) -> dict[Digest, float]:
            if digests:  # of the only blob
                self.clock.advance(61)
                assert await other.take_upkeep(60)
            return await super().last(digests)

    uses = SlowUses(shared.clock)
    other = FakeSharedUses(shared.clock, upkeep=uses.upkeep)
    content = SharedContent(shared.store, shared.leases, uses, shared.knowledge, shared.clock, shared.events)
    asyncio.run(SharedUpkeep(content, uses, shared.pins, 100, shared.clock).run_if_due())
    assert shared.holds(blob)
    asyncio.run(SharedUpkeep(content, other, shared.pins, 100, shared.clock).run_if_due())
    assert not asyncio.run(uses.keep_upkeep(60))


def test_uses_of_content_that_is_nowhere_in_the_store_are_forgotten() -> None:
    shared = Shared()
    digest = shared.blob("a")
    asyncio.run(shared.upkeep.used({Digest.of(b"local"): shared.clock.now()}))
    shared.clock.advance(89 * DAY)
    asyncio.run(shared.upkeep.used({digest: shared.clock.now()}))
    shared.run()
    assert len(shared.uses.times) == 2
    shared.clock.advance(2 * DAY)
    shared.run()
    assert list(shared.uses.times) == [digest]


def test_an_index_that_does_not_answer_ends_nothing_and_uses_are_stored_later() -> None:
    shared = Shared()
    digest = shared.blob("a")
    shared.uses.is_away = True
    asyncio.run(shared.upkeep.used({digest: 5.0}))
    asyncio.run(shared.upkeep.run_if_due())
    shared.uses.is_away = False
    asyncio.run(shared.upkeep.used({}))
    assert shared.uses.times == {digest: 5.0}


class Machine(RuleBasedStateMachine):
    """Replicas download, use and abandon blobs in any order, and the upkeep runs at any time. A record in the store
    always has its parts, and the parts of a running download stay. Pinned content that is whole stays; what is not
    pinned is within the bound.
    """

    names = st.sampled_from("abcdef")
    tags = st.sampled_from("12")

    def __init__(self) -> None:
        super().__init__()
        self.shared = Shared(bound=700)
        self.running: dict[str, tuple[object, list[SharedPart]]] = {}
        self.leases = 0

    @rule(name=names)
    def begin(self, name: str) -> None:
        digest = Digest.of(name.encode())
        if name not in self.running and digest not in self.shared.store.kept:
            lease = asyncio.run(self.shared.leases.lease(UPSTREAM, digest))
            self.running[name] = (lease, list(lease.found.parts))

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def publish(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.running)))
        lease, parts = self.running[name]
        part = asyncio.run(self.shared.part(Digest.of(name.encode()), lease.id, len(parts) * PART))
        asyncio.run(lease.publish(part, None))
        parts.append(part)

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def complete(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.running)))
        lease, parts = self.running.pop(name)
        record = SharedRecord(len(parts) * PART, frozenset(), False, None, tuple(parts))
        asyncio.run(self.shared.store.put(Digest.of(name.encode()), record))
        asyncio.run(lease.release(keep=False))

    @precondition(lambda self: self.running)
    @rule(data=st.data(), keep=st.booleans())
    def abandon(self, data: st.DataObject, *, keep: bool) -> None:
        name = data.draw(st.sampled_from(sorted(self.running)))
        lease, _ = self.running.pop(name)
        asyncio.run(lease.release(keep=keep))

    @rule(name=names)
    def use(self, name: str) -> None:
        asyncio.run(self.shared.upkeep.used({Digest.of(name.encode()): self.shared.clock.now()}))

    @rule(seconds=st.sampled_from([60, 3600, DAY]))
    def wait(self, seconds: int) -> None:
        self.shared.clock.advance(seconds)

    @rule(tag=tags, tree=st.sets(names, min_size=1))
    def pin(self, tag: str, tree: set[str]) -> None:
        self.shared.pin(*(Digest.of(name.encode()) for name in sorted(tree)), tag=tag)

    @rule(tag=tags)
    def unpin(self, tag: str) -> None:
        asyncio.run(self.shared.pins.forget(pin_of(tag)))

    @rule(is_broken=st.booleans())
    def upkeep(self, *, is_broken: bool) -> None:
        before = set(self.shared.store.kept)
        self.shared.pins.is_broken = is_broken
        self.shared.run()
        self.shared.pins.is_broken = False
        kept = self.shared.store.kept
        assert before & (before if is_broken else self.shared.pins.content) <= kept.keys()
        sizes = [record.size for record in kept.values()]
        assert is_broken or sum(sizes) <= self.shared.bound or kept.keys() <= self.shared.pins.content

    @invariant()
    def records_are_whole(self) -> None:
        assert all(map(self.shared.holds, list(self.shared.store.kept)))

    @invariant()
    def running_downloads_have_their_parts(self) -> None:
        published = [part.key for _, parts in self.running.values() for part in parts]
        assert [key for key in published if key not in self.shared.store.contents] == []


TestUpkeepOfReplicas = Machine.TestCase
TestUpkeepOfReplicas.settings = settings(max_examples=30, stateful_step_count=40, deadline=None)
