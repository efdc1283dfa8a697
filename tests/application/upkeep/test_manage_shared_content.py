"""What an operator asks of the store that replicas share, and does to it."""

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from application.ports.shared import SharedObject, SharedPart, SharedRecord, SharedUnavailable
from application.upkeep.manage_cache import ImagePinned
from application.upkeep.manage_shared_content import ManageSharedContent, Removed, State
from application.upkeep.shared_content import SharedContent
from domain.digest import Digest
from domain.names import Reference, Tag
from domain.pins import Pin, PinnedImage
from domain.upstreams import Source
from tests.application.support.service import NAME, PRIVATE, Service
from tests.application.support.watched import watched
from tests.application.upkeep.test_manage_cache import CONFIG, ONE, OWN, SHARED, TWO
from tests.fakes.events import RecordingEventSink
from tests.fakes.index import MemoryKnowledgeIndex, MemoryUsageIndex
from tests.fakes.parts import memory_storage
from tests.fakes.pins import MemoryPinIndex
from tests.fakes.shared_leases import FakeLeaseTable, FakeSharedLeases
from tests.fakes.shared_store import FakeSharedStore
from tests.fakes.shared_uses import FakeSharedUses

DAY = 24 * 3600
PART = 100
LAYERS = (SHARED, OWN)
"""The content that is in parts. The rest is small."""


class Tier:
    """A replica has pulled the tags `one` and `two`, and the shared store has all of them."""

    def __init__(self) -> None:
        upstream = watched("none")
        for name, tag, content in [(NAME, "one", ONE), (NAME, "two", TWO), (PRIVATE, "one", ONE)]:
            upstream.put_manifest(str(name), tag, content)
            for layer in (CONFIG, SHARED, OWN):
                upstream.put_blob(str(name), layer)
        self.knowledge = MemoryKnowledgeIndex()
        self.pins = MemoryPinIndex()
        usage = MemoryUsageIndex(self.knowledge, self.pins)
        storage = replace(memory_storage(), index=self.knowledge, pins=self.pins, usage=usage)
        self.replica = Service(upstream, storage=storage)
        self.clock = self.replica.clock
        self.store = FakeSharedStore(self.clock)
        self.uses = FakeSharedUses(self.clock)
        self.leases = FakeSharedLeases(FakeLeaseTable(self.clock))
        self.pauses: list[float] = []

    @property
    def manage(self) -> ManageSharedContent:
        """On another machine, if `replica` is not asked."""
        events = RecordingEventSink()
        content = SharedContent(self.store, self.leases, self.uses, self.knowledge, self.clock, events)
        parts = self.replica.parts
        local, manifests = parts.manage_cache(), parts.manifest_cache()
        return ManageSharedContent(
            content, self.store, self.knowledge, local, manifests, self.pins, self.pins, self.clock, self.pause
        )

    async def pin(self, tag: str, *tree: bytes) -> None:
        pin = Pin(self.source().upstream.url, NAME, Reference(Tag(tag)))
        await self.pins.keep(PinnedImage(pin, 1.0, Digest.of(tree[0]), {Digest.of(one): len(one) for one in tree}))

    async def pause(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.store.is_away = False

    def source(self, name: Any = NAME) -> Source:
        return self.replica.parts.upstreams().source_of(name)

    async def part(self, content: bytes, offset: int, lease: str = "lease") -> SharedPart:
        upstream, piece = self.source().upstream, content[offset : offset + PART]
        return await self.store.put_part(upstream, Digest.of(content), lease, offset, piece)

    async def put(self, content: bytes) -> None:
        digest, parts = Digest.of(content), ()
        if content in LAYERS:
            parts = tuple([await self.part(content, offset) for offset in range(0, len(content), PART)])
        inline = None if parts else content
        await self.store.put(digest, SharedRecord(len(content), frozenset(), True, inline, parts))

    async def fill(self, *contents: bytes) -> None:
        for tag in ("one", "two"):
            await self.replica.manifest(name=NAME, reference=tag)
        for layer in (CONFIG, SHARED, OWN):
            await self.replica.blob(name=NAME, digest=Digest.of(layer))
        await self.replica.parts.background().close()
        for content in contents or (ONE, TWO, CONFIG, *LAYERS):
            await self.put(content)

    def parts_of(self, content: bytes) -> list[str]:
        return [key for key in self.store.contents if Digest.of(content).encoded in key]

    async def verdicts(self) -> dict[Digest, State]:
        return {digest: state async for digest, state in self.manage.verify()}

    def run(self, action: Any) -> Any:
        return self.replica.run(action)


def test_statistics_count_content_and_the_parts_of_unfinished_downloads() -> None:
    tier = Tier()

    async def act() -> None:
        empty = await tier.manage.statistics([tier.source().upstream])
        assert (empty.count, empty.size, empty.unfinished, empty.tags) == (0, 0, 0, 0)
        assert (empty.oldest, empty.newest) == (None, None)
        began = tier.clock.now()
        await tier.fill(TWO, CONFIG, SHARED)
        await tier.part(OWN, 0)
        tier.clock.advance(50)
        await tier.uses.touch({Digest.of(CONFIG): tier.clock.now()})
        found = await tier.manage.statistics([tier.source().upstream])
        assert (found.count, found.size) == (3, len(TWO) + len(CONFIG) + len(SHARED))
        assert (found.unfinished, found.tags) == (PART, 2)
        assert (found.oldest, found.newest) == (began, began + 50)

    tier.run(act())


def test_tags_say_how_much_of_them_is_in_the_store() -> None:
    tier = Tier()

    async def act() -> None:
        await tier.fill(TWO, CONFIG, SHARED)
        one, two = await tier.manage.tags(tier.source().upstream)
        assert (str(one.cached_tag.key.tag), one.size, one.held) == ("one", None, None)
        whole = len(TWO) + len(CONFIG) + len(SHARED) + len(OWN)
        assert (str(two.cached_tag.key.tag), two.size, two.held) == ("two", whole, whole - len(OWN))
        assert tier.store.asked["find"] == 5, "two manifests and three layers, each once"

    tier.run(act())


# --- verify ---


def test_a_damaged_part_is_found_and_its_content_is_removed_and_forgotten() -> None:
    tier = Tier()

    async def act() -> None:
        await tier.fill()
        await tier.uses.touch({Digest.of(SHARED): 1.0, Digest.of(OWN): 1.0})
        tier.store.damage(tier.parts_of(SHARED)[1])
        whole = {Digest.of(one) for one in (ONE, TWO, CONFIG, OWN)}
        assert await tier.verdicts() == {Digest.of(SHARED): State.DAMAGED} | dict.fromkeys(whole, State.RIGHT)
        assert (set(tier.store.kept), tier.parts_of(SHARED)) == (whole, [])
        assert len(tier.parts_of(OWN)) == 2
        assert list(tier.uses.times) == [Digest.of(OWN)]
        assert Digest.of(SHARED) not in {one.location.digest for one in await tier.knowledge.links_of(tier.source())}
        assert set((await tier.verdicts()).values()) == {State.RIGHT}

    tier.run(act())


@pytest.mark.parametrize("fault", ["missing part", "wrong order", "inline"])
def test_content_that_does_not_match_its_digest_is_damaged(fault: str) -> None:
    tier = Tier()

    async def act() -> None:
        await tier.put(SHARED)
        digest = Digest.of(SHARED)
        record = tier.store.kept[digest]
        if fault == "missing part":
            del tier.store.contents[record.parts[-1].key]
        elif fault == "wrong order":  # all parts are those that the record names
            await tier.store.put(digest, replace(record, parts=record.parts[:-1]))
        else:
            await tier.store.put(digest, replace(record, content=b"!" + SHARED[1:], parts=()))
        assert await tier.verdicts() == {digest: State.DAMAGED}
        assert (tier.store.kept, tier.store.contents) == ({}, {})

    tier.run(act())


class OtherRelease(FakeSharedStore):
    """`unreadable`: content whose record this release cannot read. `vanishing`: content that is removed when it is
    read.
    """

    unreadable: frozenset[Digest] = frozenset()
    vanishing: frozenset[Digest] = frozenset()

    async def find(self, digest: Digest) -> SharedRecord | None:
        if digest in self.vanishing:
            await self.drop(digest)
        return None if digest in self.unreadable else await super().find(digest)


def test_a_record_of_another_release_is_reported_and_kept_and_one_that_vanishes_is_not_damaged() -> None:
    tier = Tier()
    tier.store = store = OtherRelease(tier.clock)
    store.unreadable, store.vanishing = frozenset({Digest.of(CONFIG)}), frozenset({Digest.of(SHARED)})

    async def act() -> None:
        for content in (ONE, CONFIG, SHARED):
            await tier.put(content)
        assert await tier.verdicts() == {Digest.of(ONE): State.RIGHT, Digest.of(CONFIG): State.UNREADABLE}
        assert set(store.kept) == {Digest.of(ONE), Digest.of(CONFIG)}

    tier.run(act())


@pytest.mark.parametrize("is_replaced", [False, True])
def test_content_that_is_evicted_while_it_is_read_is_not_damaged(*, is_replaced: bool) -> None:
    tier = Tier()

    class Evicting(FakeSharedStore):
        async def get_part(self, part: SharedPart) -> bytes:
            if not is_gone:
                is_gone.append(True)
                await self.drop(Digest.of(SHARED))
                await self.remove(tier.parts_of(SHARED))
                if is_replaced:
                    parts = tuple([await tier.part(SHARED, offset, "later") for offset in range(0, len(SHARED), PART)])
                    await self.put(Digest.of(SHARED), SharedRecord(len(SHARED), frozenset(), True, None, parts))
            return await super().get_part(part)

    is_gone: list[bool] = []
    tier.store = Evicting(tier.clock)

    async def act() -> None:
        await tier.put(SHARED)
        assert await tier.verdicts() == ({Digest.of(SHARED): State.RIGHT} if is_replaced else {})
        assert (Digest.of(SHARED) in tier.store.kept, bool(tier.parts_of(SHARED))) == (is_replaced, is_replaced)

    tier.run(act())


def test_a_store_that_is_silent_for_a_while_ends_no_verification() -> None:
    tier = Tier()

    class Failing(FakeSharedStore):
        async def get_part(self, part: SharedPart) -> bytes:
            self.is_away = not tier.pauses
            return await super().get_part(part)

    tier.store = Failing(tier.clock)

    async def act() -> None:
        await tier.put(SHARED)
        assert await tier.verdicts() == {Digest.of(SHARED): State.RIGHT}
        assert len(tier.pauses) == 1

    tier.run(act())


def test_a_store_that_is_away_is_reported_at_once() -> None:
    tier = Tier()
    tier.store.is_away = True
    with pytest.raises(SharedUnavailable):
        tier.run(tier.verdicts())
    assert tier.pauses == []


# --- purge ---


def test_a_purged_image_leaves_the_store_and_this_machine() -> None:
    tier = Tier()

    async def act() -> None:
        await tier.fill()
        epoch = await tier.knowledge.epoch()
        removed = await tier.manage.purge(tier.source(), Tag("two"))
        gone = {Digest.of(one) for one in (TWO, CONFIG, SHARED, OWN)}
        assert (set(removed.shared), set(removed.local)) == (gone, gone)
        assert (set(tier.store.kept), tier.store.contents) == ({Digest.of(ONE)}, {})
        assert [str(one.key.tag) for one in await tier.knowledge.tags_of(tier.source().upstream)] == ["one"]
        assert await tier.knowledge.epoch() != epoch
        assert await tier.manage.purge(tier.source(), Tag("two")) == Removed([], [])

    tier.run(act())


def test_a_machine_that_is_no_replica_purges_the_whole_repository() -> None:
    tier = Tier()

    async def act() -> None:
        await tier.fill()
        tier.replica = Service(tier.replica.upstream, tier.clock, replace(memory_storage(), index=tier.knowledge))
        removed = await tier.manage.purge(tier.source(), None)
        assert set(removed.shared) == {Digest.of(one) for one in (ONE, TWO, CONFIG, SHARED, OWN)}
        assert removed.local == []
        assert (tier.store.kept, tier.store.contents) == ({}, {})
        assert await tier.knowledge.links_of(tier.source()) == []

    tier.run(act())


def test_a_digest_is_purged_only_from_a_repository_that_contains_it() -> None:
    tier = Tier()

    async def act() -> None:
        await tier.fill()
        await tier.replica.manifest(name=PRIVATE, reference="one")
        stored = dict(tier.store.kept)
        # PRIVATE has only the tag `one`.
        assert await tier.manage.to_purge(tier.source(PRIVATE), Digest.of(TWO)) == {}
        assert await tier.manage.purge(tier.source(PRIVATE), Digest.of(TWO)) == Removed([], [])
        assert tier.store.kept == stored
        image = {Digest.of(one): len(one) for one in (TWO, CONFIG, SHARED, OWN)}
        assert await tier.manage.to_purge(tier.source(), Digest.of(TWO)) == image
        removed = await tier.manage.purge(tier.source(), Digest.of(TWO))
        assert set(removed.shared) == set(removed.local) == set(image)
        assert set(tier.store.kept) == {Digest.of(ONE)}

    tier.run(act())


def test_a_preview_of_a_purge_has_what_is_in_the_store() -> None:
    tier = Tier()

    async def act() -> None:
        await tier.fill(TWO, CONFIG)
        await tier.part(OWN, 0)
        stored = {Digest.of(one): len(one) for one in (TWO, CONFIG)}
        for target in (Tag("two"), Digest.of(TWO), None):
            assert await tier.manage.to_purge(tier.source(), target) == stored
        assert await tier.manage.to_purge(tier.source(PRIVATE), None) == {}
        assert set(tier.store.kept) == set(stored)

    tier.run(act())


def test_content_whose_manifest_is_only_on_this_machine_is_purged_too() -> None:
    tier = Tier()

    async def act() -> None:
        await tier.fill(CONFIG, SHARED)
        assert set((await tier.manage.purge(tier.source(), Tag("two"))).shared) == {
            Digest.of(CONFIG),
            Digest.of(SHARED),
        }

    tier.run(act())


def test_a_purge_that_fails_can_be_repeated() -> None:
    tier = Tier()

    class Failing(FakeSharedStore):
        async def remove(self, keys: list[str]) -> None:
            if keys:
                raise SharedUnavailable("away")

    tier.store = Failing(tier.clock)

    async def act() -> None:
        await tier.fill()
        with pytest.raises(SharedUnavailable):
            await tier.manage.purge(tier.source(), Tag("two"))
        tier.store.__class__ = FakeSharedStore
        await tier.manage.purge(tier.source(), Tag("two"))
        assert (set(tier.store.kept), tier.store.contents) == ({Digest.of(ONE)}, {})

    tier.run(act())


def test_a_purge_keeps_the_parts_of_a_running_download() -> None:
    tier = Tier()

    async def act() -> None:
        await tier.fill()
        lease = await tier.leases.lease(tier.source().upstream, Digest.of(SHARED))
        part = await tier.part(SHARED, 0, lease.id)
        await tier.manage.purge(tier.source(), Tag("two"))
        assert Digest.of(SHARED) not in tier.store.kept
        assert part.key in tier.store.contents

    tier.run(act())


@pytest.mark.parametrize("target", [Tag("two"), None, Digest.of(TWO), Digest.of(SHARED)])
def test_a_pinned_image_is_not_purged(target: Tag | Digest | None) -> None:
    tier = Tier()

    async def act() -> None:
        await tier.fill()
        await tier.pin("two", TWO, CONFIG, SHARED, OWN)
        before = set(tier.store.kept)
        with pytest.raises(ImagePinned, match="public/app:two is pinned"):
            await tier.manage.purge(tier.source(), target)
        assert set(tier.store.kept) == before

    tier.run(act())


def test_a_purge_leaves_what_a_pinned_image_shares_in_the_store_and_on_this_machine() -> None:
    tier = Tier()

    async def act() -> None:
        await tier.fill()
        await tier.pin("one", ONE, CONFIG, SHARED)
        removed = await tier.manage.purge(tier.source(), Tag("two"))
        gone = {Digest.of(one) for one in (TWO, OWN)}
        assert (set(removed.shared), set(removed.local)) == (gone, gone)
        assert set(tier.store.kept) == {Digest.of(one) for one in (ONE, CONFIG, SHARED)}
        assert await tier.manage.purge(tier.source(PRIVATE), None) == Removed([], [])
        assert set(tier.store.kept) == {Digest.of(one) for one in (ONE, CONFIG, SHARED)}

    tier.run(act())


def test_pruning_leaves_the_content_of_pinned_images() -> None:
    tier = Tier()

    async def act() -> None:
        await tier.fill()
        await tier.pin("one", ONE, CONFIG, SHARED)
        await tier.part(SHARED, 0, "abandoned")
        tier.clock.advance(2 * DAY)
        assert await tier.manage.prune(DAY) == (2, len(TWO) + len(OWN) + PART)
        assert set(tier.store.kept) == {Digest.of(one) for one in (ONE, CONFIG, SHARED)}

    tier.run(act())


# --- prune ---


def test_pruning_removes_what_no_replica_has_used_and_abandoned_parts() -> None:
    tier = Tier()

    async def act() -> None:
        await tier.fill()
        await tier.part(b"abandoned" * PART, 0)
        tier.clock.advance(2 * DAY)
        await tier.uses.touch({Digest.of(one): tier.clock.now() for one in (TWO, CONFIG, OWN)})
        assert await tier.manage.prune(3 * DAY) == (0, PART)
        assert len(tier.store.kept) == 5
        count, size = await tier.manage.prune(2 * DAY - 1)
        assert (count, size) == (2, len(ONE) + len(SHARED))
        assert set(tier.store.kept) == {Digest.of(one) for one in (TWO, CONFIG, OWN)}
        assert tier.parts_of(SHARED) == []
        left = {one.digest for one in await tier.knowledge.tags_of(tier.source().upstream)}
        assert left == {Digest.of(TWO)}

    tier.run(act())


def test_only_records_are_listed_for_a_verification_and_one_part_is_in_memory_at_a_time() -> None:
    tier = Tier()

    class Counting(FakeSharedStore):
        running = most = 0

        async def records(self, shard: str = "") -> AsyncIterator[tuple[Digest, SharedObject]]:
            assert shard, "the whole store at once"
            async for found in super().records(shard):
                yield found

        async def get_part(self, part: SharedPart) -> bytes:
            self.running += 1
            self.most = max(self.most, self.running)
            try:
                return await super().get_part(part)
            finally:
                self.running -= 1

    tier.store = store = Counting(tier.clock)

    async def act() -> None:
        await tier.fill()
        await tier.verdicts()
        assert (store.most, store.asked["parts"]) == (1, 0)

    tier.run(act())


def test_nothing_is_removed_while_replicas_may_still_write_their_pins_to_a_new_index() -> None:
    """Redis has lost everything, so an image may be pinned although the index knows of no pin."""
    tier = Tier()

    async def act() -> None:
        await tier.fill()
        tier.pins.is_new = True
        tier.clock.advance(DAY)
        kept = dict(tier.store.contents)
        for action in (
            tier.manage.to_purge(tier.source(), Tag("two")),
            tier.manage.purge(tier.source(), Tag("two")),
            tier.manage.prune(0),
        ):
            with pytest.raises(SharedUnavailable, match="cannot be known"):
                await action
        assert tier.store.contents == kept
        tier.pins.is_new = False
        assert (await tier.manage.purge(tier.source(), Tag("two"))).shared

    tier.run(act())
