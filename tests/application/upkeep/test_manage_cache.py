"""What an operator asks of the cache, and does to it."""

import asyncio
import json
from collections import deque
from typing import Any

import pytest

from application.ports.content import StorageFailed
from application.ports.index import Stored
from application.upkeep.image_tree import TagEntry
from application.upkeep.manage_cache import ImagePinned
from domain.digest import Digest
from domain.manifests import INDEX_MEDIA_TYPE
from domain.names import Reference, Tag
from domain.pins import Pin, PinnedImage
from domain.upstreams import Source
from tests.application.support.service import NAME, PRIVATE, Service
from tests.application.support.watched import watched
from tests.fakes.storage import MemoryContentStore, MemoryInode

CONFIG, SHARED, OWN = b"{}" * 50, b"shared" * 50, b"own" * 50


def image(*layers: bytes) -> bytes:
    def entry(content: bytes) -> dict[str, object]:
        return {"digest": str(Digest.of(content)), "size": len(content)}

    document = {"schemaVersion": 2, "config": entry(CONFIG), "layers": [entry(layer) for layer in layers]}
    return json.dumps(document).encode()


ONE, TWO = image(SHARED), image(SHARED, OWN)


class Cache:
    """Two tags of one repository, and one of another; all pulled but for what a test leaves out."""

    def __init__(self) -> None:
        self.upstream = watched("none")
        for name, tag, content in [(NAME, "one", ONE), (NAME, "two", TWO), (PRIVATE, "one", ONE)]:
            self.upstream.put_manifest(str(name), tag, content)
            for layer in (CONFIG, SHARED, OWN):
                self.upstream.put_blob(str(name), layer)
        self.service = Service(self.upstream)
        self.beside = Service(self.upstream, self.service.clock, self.service.parts.storage())

    @property
    def inspect(self) -> Any:
        return self.beside.parts.manage_cache()

    @property
    def store(self) -> Any:
        return self.service.parts.store()

    def source(self, name: Any = NAME) -> Source:
        return self.service.parts.upstreams().source_of(name)

    @property
    def pins(self) -> Any:
        return self.beside.parts.pins()

    async def pin(self, tag: str, *tree: bytes) -> None:
        """`tree`: its manifest and all that it names, if they were fetched."""
        pin = Pin(self.source().upstream.url, NAME, Reference(Tag(tag)))
        sizes = {Digest.of(one): len(one) for one in tree}
        await self.pins.keep(PinnedImage(pin, 1.0, next(iter(sizes), None), sizes))

    async def pull(self, *layers: bytes, name: Any = NAME, tag: str = "two") -> None:
        await self.service.manifest(name=name, reference=tag)
        for layer in layers:
            await self.service.blob(name=name, digest=Digest.of(layer))

    def run(self, action: Any) -> Any:
        return self.service.run(action)


def test_statistics_count_everything_once() -> None:
    cache = Cache()

    async def act() -> Any:
        empty = await cache.inspect.statistics([cache.source().upstream])
        assert (empty.count, empty.size, empty.tags, empty.oldest, empty.newest) == (0, 0, 0, None, None)
        began = cache.service.clock.now()
        await cache.pull(CONFIG, SHARED)
        cache.service.clock.advance(9)
        await cache.pull(CONFIG, SHARED, name=PRIVATE, tag="one")
        await cache.service.parts.background().close()
        return await cache.inspect.statistics([cache.source().upstream]), began

    stored, began = cache.run(act())
    assert (stored.count, stored.size, stored.tags) == (4, len(TWO) + len(ONE) + len(CONFIG) + len(SHARED), 2)
    assert (stored.oldest, stored.newest) == (began, began + 9)


def test_tags_say_how_much_of_them_is_here() -> None:
    cache = Cache()

    async def act() -> list[TagEntry]:
        await cache.pull(CONFIG, SHARED)
        await cache.pull(tag="one")
        await cache.service.parts.background().close()
        await cache.store.drop(Digest.of(ONE))
        return await cache.inspect.tags(cache.source().upstream)

    one, two = cache.run(act())
    assert (str(one.cached_tag.key.tag), one.size, one.held) == ("one", None, None)
    whole = len(TWO) + len(CONFIG) + len(SHARED) + len(OWN)
    assert (str(two.cached_tag.key.tag), two.size, two.held) == ("two", whole, whole - len(OWN))


def test_to_look_is_not_to_use() -> None:
    """Else whoever lists the cache now and then would keep everything in it."""
    cache = Cache()
    usage: Any = cache.service.parts.storage().usage

    async def act() -> None:
        await cache.pull(CONFIG, SHARED)
        await cache.service.parts.background().close()
        before = {one.digest: one.used_at for one in usage.entries.values()}
        cache.service.clock.advance(1000)
        await cache.inspect.tags(cache.source().upstream)
        await cache.beside._finish(cache.inspect.statistics([cache.source().upstream]))
        assert {one.digest: one.used_at for one in usage.entries.values()} == before

    cache.run(act())


def test_purged_images_take_their_layers_along_and_are_fetched_again() -> None:
    cache = Cache()

    async def act() -> None:
        await cache.pull(CONFIG, SHARED, OWN)
        await cache.pull(CONFIG, SHARED, tag="one")
        await cache.service.parts.background().close()
        epoch = await cache.service.parts.storage().index.epoch()
        dropped = await cache.inspect.purge(cache.source(), Tag("two"))
        assert set(dropped) == {Digest.of(one) for one in (TWO, CONFIG, SHARED, OWN)}
        assert set(cache.store.content) == {Digest.of(ONE)}
        assert await cache.service.parts.storage().index.epoch() != epoch
        cache.upstream.asked.clear()
        await cache.pull(CONFIG, SHARED, tag="one")  # what was shared comes again
        assert len(cache.upstream.asked) == 2
        assert [str(one.cached_tag.key.tag) for one in await cache.inspect.tags(cache.source().upstream)] == ["one"]

    cache.run(act())


def test_a_purged_repository_leaves_nothing_and_others_their_links_to_what_is_still_here() -> None:
    cache = Cache()

    async def act() -> None:
        await cache.pull(CONFIG, SHARED, OWN)
        await cache.pull(CONFIG, SHARED, name=PRIVATE, tag="one")
        await cache.service.parts.background().close()
        await cache.inspect.purge(cache.source(), None)
        index = cache.service.parts.storage().index
        assert await index.links_of(cache.source()) == []
        assert [link.location.digest for link in await index.links_of(cache.source(PRIVATE))] == [Digest.of(ONE)]
        assert Digest.of(ONE) in cache.store.content
        assert await cache.inspect.purge(cache.source(), None) == []

    cache.run(act())


def test_purging_an_unknown_tag_does_nothing() -> None:
    cache = Cache()

    async def act() -> None:
        await cache.pull(CONFIG)
        await cache.service.parts.background().close()
        assert await cache.inspect.purge(cache.source(), Tag("unknown")) == []
        assert len(cache.store.content) == 2

    cache.run(act())


def test_verifying_finds_what_is_wrong_and_drops_it() -> None:
    cache = Cache()

    async def act() -> None:
        await cache.pull(CONFIG, SHARED)
        await cache.service.parts.background().close()
        cache.store.disk.inodes[Digest.of(SHARED)] = MemoryInode(b"!" + SHARED[1:])
        verdicts = {one.used.digest: one.is_right async for one in cache.inspect.verify()}
        assert verdicts == {Digest.of(TWO): True, Digest.of(CONFIG): True, Digest.of(SHARED): False}
        assert Digest.of(SHARED) not in cache.store.content
        assert [one.is_right async for one in cache.inspect.verify()] == [True, True]

    cache.run(act())


def test_a_verification_knows_its_total_and_tells_workers_only_of_removals() -> None:
    cache = Cache()

    async def act() -> None:
        await cache.pull(CONFIG, SHARED)
        await cache.service.parts.background().close()
        index, total = cache.service.parts.storage().index, len(TWO) + len(CONFIG) + len(SHARED)
        epoch = await index.epoch()
        verdicts = [one async for one in cache.inspect.verify()]
        assert [one.total for one in verdicts] == [total] * 3
        assert [one.done for one in verdicts] == [sum(one.used.size for one in verdicts[: n + 1]) for n in range(3)]
        assert await index.epoch() == epoch
        cache.store.disk.inodes[Digest.of(SHARED)] = MemoryInode(b"!")
        assert [one.is_right async for one in cache.inspect.verify()].count(False) == 1
        assert await index.epoch() > epoch

    cache.run(act())


def test_what_was_evicted_meanwhile_was_not_damaged() -> None:
    """The service that runs beside makes room while everything is hashed."""
    cache = Cache()

    async def act() -> list[bool]:
        await cache.pull(CONFIG, SHARED)
        await cache.service.parts.background().close()
        verdicts = []
        async for verdict in cache.inspect.verify():
            verdicts.append(verdict.is_right)
            for digest in set(cache.store.content) - {verdict.used.digest}:
                await cache.service.parts.eviction().drop(digest)
        return verdicts

    assert set(cache.run(act())) == {True}


def test_pruning_drops_what_was_not_used_for_long() -> None:
    cache = Cache()

    async def act() -> None:
        await cache.pull(CONFIG, SHARED)
        cache.service.clock.advance(100)
        await cache.service.blob(digest=Digest.of(SHARED))
        await cache.service.parts.eviction().flush()
        assert await cache.inspect.prune(100) == []
        dropped = await cache.inspect.prune(99)
        assert {one.digest for one in dropped} == {Digest.of(TWO), Digest.of(CONFIG)}
        assert set(cache.store.content) == {Digest.of(SHARED)}

    cache.run(act())


def test_pruning_puts_right_what_a_crash_left_behind() -> None:
    cache = Cache()

    async def act() -> None:
        await cache.store.put(Digest.of(OWN), OWN)
        assert await cache.inspect.prune(10) == []
        usage: Any = cache.service.parts.storage().usage
        assert list(usage.entries) == [Digest.of(OWN)]

    cache.run(act())


def test_pruning_removes_the_drafts_of_nobody() -> None:
    cache = Cache()

    async def act() -> None:
        lease: Any = await cache.store.lease(cache.service.parts.upstream(), Digest.of(b"draft"))
        await lease.partial_blob.write(0, deque([b"some"]))
        cache.store.die()
        busy: Any = await MemoryContentStore(cache.store.disk).lease(cache.service.parts.upstream(), Digest.of(b"busy"))
        await busy.partial_blob.write(0, deque([b"some"]))
        await cache.inspect.prune(10)
        assert list(cache.store.partial_blobs) == [Digest.of(b"busy")]

    cache.run(act())


# --- pinned images ---


@pytest.mark.parametrize("target", [Tag("two"), None, Digest.of(TWO), Digest.of(OWN), Tag("also-two")])
def test_a_pinned_image_is_not_purged_by_any_of_its_names(target: Tag | Digest | None) -> None:
    cache = Cache()
    cache.upstream.put_manifest(str(NAME), "also-two", TWO)

    async def act() -> None:
        await cache.pull(CONFIG, SHARED, OWN)
        await cache.pull(tag="also-two")
        await cache.service.parts.background().close()
        await cache.pin("two", TWO, CONFIG, SHARED, OWN)
        before = set(cache.store.content)
        for ask in (cache.inspect.to_purge, cache.inspect.purge):
            with pytest.raises(ImagePinned, match="public/app:two is pinned and cannot be purged; unpin it first"):
                await ask(cache.source(), target)
        assert set(cache.store.content) == before
        await cache.pins.forget((await cache.pins.all())[0].pin)
        assert await cache.inspect.purge(cache.source(), target)

    cache.run(act())


def test_an_image_whose_pin_was_not_fetched_yet_is_not_purged() -> None:
    cache = Cache()

    async def act() -> None:
        await cache.pull(CONFIG)
        await cache.service.parts.background().close()
        await cache.pin("two")
        for target in (Tag("two"), None):
            with pytest.raises(ImagePinned):
                await cache.inspect.purge(cache.source(), target)
        assert len(cache.store.content) == 2

    cache.run(act())


def test_a_purge_leaves_what_a_pinned_image_of_the_same_repository_shares() -> None:
    cache = Cache()

    async def act() -> None:
        await cache.pull(CONFIG, SHARED, OWN)
        await cache.pull(CONFIG, SHARED, tag="one")
        await cache.service.parts.background().close()
        await cache.pin("one", ONE, CONFIG, SHARED)
        previewed = {one.digest for one in await cache.inspect.to_purge(cache.source(), Tag("two"))}
        dropped = await cache.inspect.purge(cache.source(), Tag("two"), known=[Digest.of(SHARED)])
        assert set(dropped) == previewed == {Digest.of(TWO), Digest.of(OWN)}
        cache.upstream.asked.clear()
        await cache.pull(CONFIG, SHARED, tag="one")
        assert cache.upstream.asked == [], "its links are still there"

    cache.run(act())


def test_a_purge_of_another_repository_leaves_pinned_content_and_forgets_its_links() -> None:
    cache = Cache()

    async def act() -> None:
        await cache.pull(CONFIG, SHARED, tag="one")
        await cache.pull(CONFIG, SHARED, name=PRIVATE, tag="one")
        await cache.service.parts.background().close()
        await cache.pin("one", ONE, CONFIG, SHARED)
        before = set(cache.store.content)
        assert await cache.inspect.to_purge(cache.source(PRIVATE), None) == []
        assert await cache.inspect.purge(cache.source(PRIVATE), None) == []
        index = cache.service.parts.storage().index
        assert set(cache.store.content) == before
        assert await index.links_of(cache.source(PRIVATE)) == []
        assert len(await index.links_of(cache.source())) == 3

    cache.run(act())


def test_nothing_is_purged_while_the_pins_cannot_be_read() -> None:
    cache = Cache()

    async def act() -> None:
        await cache.pull(CONFIG, SHARED)
        await cache.service.parts.background().close()
        cache.pins.is_broken = True
        for ask in (cache.inspect.to_purge, cache.inspect.purge):
            with pytest.raises(StorageFailed):
                await ask(cache.source(), Tag("two"))
        assert await cache.inspect.prune(-1) == []
        assert len(cache.store.content) == 3

    cache.run(act())


def test_pruning_leaves_pinned_content() -> None:
    cache = Cache()

    async def act() -> None:
        await cache.pull(CONFIG, SHARED, OWN)
        await cache.pull(CONFIG, SHARED, tag="one")
        await cache.service.parts.background().close()
        await cache.pin("one", ONE, CONFIG, SHARED)
        cache.service.clock.advance(100)
        previewed = {one.digest for one in await cache.inspect.to_prune(99)}
        dropped = {one.digest for one in await cache.inspect.prune(99)}
        assert dropped == previewed == {Digest.of(TWO), Digest.of(OWN)}
        assert set(cache.store.content) == {Digest.of(one) for one in (ONE, CONFIG, SHARED)}
        statistics = await cache.inspect.statistics([cache.source().upstream])
        assert statistics.pinned == Stored(3, len(ONE) + len(CONFIG) + len(SHARED))

    cache.run(act())


def test_verifying_drops_pinned_content_that_is_wrong() -> None:
    cache = Cache()

    async def act() -> None:
        await cache.pull(CONFIG, SHARED)
        await cache.service.parts.background().close()
        await cache.pin("two", TWO, CONFIG, SHARED)
        cache.store.disk.inodes[Digest.of(SHARED)] = MemoryInode(b"!" + SHARED[1:])
        assert [one.used.digest async for one in cache.inspect.verify() if not one.is_right] == [Digest.of(SHARED)]
        assert Digest.of(SHARED) not in cache.store.content

    cache.run(act())


def nested_indexes(levels: int = 40, width: int = 2) -> list[bytes]:
    """Indexes of which each names each of the next level twice: few bytes, and a number of paths that doubles with each
    level. The deepest come first.
    """
    found = [ONE]
    for level in range(levels):
        entries = [{"digest": str(Digest.of(found[-1])), "size": 1, "level": level} for _ in range(width)]
        found.append(json.dumps({"schemaVersion": 2, "manifests": entries}).encode())
    return found


def test_deeply_nested_indexes_are_listed_and_purged_in_bounded_time() -> None:
    cache = Cache()
    indexes = nested_indexes()
    assert sum(map(len, indexes)) < 32_000
    for index in indexes[1:]:
        cache.upstream.put_manifest(str(NAME), str(Digest.of(index)), index, INDEX_MEDIA_TYPE)
    cache.upstream.put_manifest(str(NAME), "deep", indexes[-1], INDEX_MEDIA_TYPE)

    async def act() -> Any:
        await cache.service.manifest(name=NAME, reference="deep")
        for index in indexes[1:]:
            await cache.service.manifest(name=NAME, reference=str(Digest.of(index)))
        await cache.service.parts.background().close()
        async with asyncio.timeout(60):
            listed = await cache.inspect.tags(cache.source().upstream)
            return listed, await cache.inspect.purge(cache.source(), Tag("deep"))

    listed, purged = cache.run(act())
    assert [entry.cached_tag.key.tag.text for entry in listed] == ["deep"]
    assert Digest.of(indexes[-1]) in purged
