"""No room: what is asked for is delivered all the same, whole and checked, and kept nowhere."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from application.access.access_request import FOREVER, PullAccess
from application.ports.content import StorageFailed
from application.ports.index import CallerIdentity
from application.ports.upstream import ForwardedCredentials, ResponseMetadata
from domain.byte_ranges import ByteRange, Span
from domain.errors import UpstreamBroken
from domain.events import CacheFull, CacheWriteFailed
from domain.records import ANONYMOUS_CALLER
from tests.application.support.crowd import Crowd
from tests.application.support.service import LAYER, LAYER_DIGEST, NAME, PRIVATE, Service, replace_store, stocked
from tests.application.support.watched import ALICES, BIG, BIG_DIGEST, PIECE, held, soon
from tests.fakes.storage import MemoryContentStore
from tests.fakes.upstream import FakeAnswer


class Full(Crowd):
    def __init__(self, capacity: int | None = None, **settings: Any) -> None:
        super().__init__(**settings)
        self.store.capacity = capacity

    @property
    def store(self) -> Any:
        return self.service.parts.store()

    async def fills_up(self, *, after: Any = None) -> list[Any]:
        """Two readers who have the beginning when the disk turns out to be full."""
        gate = held(self.upstream)
        readers = self.read(), self.read()
        await self.under_way()
        self.store.capacity = 2 * PIECE
        if after:
            after()
        gate.set()
        return await asyncio.gather(*readers, return_exceptions=True)


@pytest.mark.parametrize("capacity", [0, 1, len(BIG) - 1])
def test_without_any_space_the_blob_is_delivered_whole(capacity: int) -> None:
    crowd = Full(capacity)

    async def act() -> list[bytes]:
        return await asyncio.gather(*(crowd.read() for _ in range(3)))

    assert crowd.run(act()) == [BIG] * 3
    assert crowd.store.content == crowd.store.partial_blobs == {}


@pytest.mark.parametrize("capacity", [0, 1])
def test_a_full_cache_is_reported(capacity: int) -> None:
    crowd = Full(capacity)

    async def act() -> bytes:
        return await crowd.read()

    crowd.run(act())
    assert CacheFull(str(BIG_DIGEST)) in crowd.service.events


def test_readers_receive_the_whole_blob_although_the_disk_runs_full() -> None:
    crowd = Full()
    assert crowd.run(crowd.fills_up()) == [BIG, BIG]
    assert crowd.store.content == crowd.store.partial_blobs == {}
    assert crowd.count(CacheFull) == 1
    starts = [fetch.byte_range.first for fetch in crowd.upstream.gets if fetch.byte_range]
    assert len(starts) == 2
    assert all(PIECE < start <= 2 * PIECE for start in starts)  # nobody is sent the beginning again


def test_the_rest_after_a_full_disk_is_verified_with_the_beginning() -> None:
    crowd = Full()

    def another_blob() -> None:
        crowd.upstream.blobs[str(PRIVATE), str(BIG_DIGEST)] = BIG[:-1] + b"!"

    first, second = crowd.run(crowd.fills_up(after=another_blob))
    assert isinstance(first, UpstreamBroken)
    assert isinstance(second, UpstreamBroken)


def test_the_rest_after_a_full_disk_needs_no_ranges() -> None:
    crowd = Full()

    async def act() -> list[Any]:
        gate = held(crowd.upstream)
        first = crowd.read()
        await crowd.under_way()
        crowd.store.capacity = 2 * PIECE
        normal = crowd.upstream.alter

        def whole(answer: Any) -> Any:
            metadata = replace(answer.metadata, span=None, whole_size=None, size=len(BIG))
            return normal(replace(answer, metadata=metadata, content=BIG))

        crowd.upstream.alter = whole
        gate.set()
        return await first

    assert crowd.run(act()) == BIG


def test_a_blob_that_did_not_fit_is_not_downloaded_again_at_once() -> None:
    crowd = Full(1)

    async def act() -> None:
        await crowd.read()
        crowd.upstream.asked.clear()
        crowd.store.capacity = None
        assert await crowd.read() == BIG
        assert crowd.store.content == {}
        assert len(crowd.upstream.asked) == 1
        crowd.service.clock.advance(61)
        assert await crowd.read() == BIG
        assert list(crowd.store.content) == [BIG_DIGEST]

    crowd.run(act())


def test_without_a_cache_blobs_are_delivered_and_not_stored() -> None:
    crowd = Crowd(cache_dir="off")

    async def act() -> list[bytes]:
        whole = [await crowd.read() for _ in range(2)]
        return [*whole, await crowd.read(ranges=(ByteRange(5, 9),))]

    assert crowd.run(act()) == [BIG, BIG, BIG[5:10]]
    assert crowd.count(CacheFull) == 0


def test_old_content_is_evicted_for_new_content() -> None:
    crowd = Full(len(BIG) + 40_000, cache_size="1MiB")
    others = [crowd.upstream.put_blob(str(PRIVATE), bytes([number]) * 30_000) for number in range(3)]

    async def act() -> None:
        for digest in others:
            await crowd.read(digest=digest)
            crowd.service.clock.advance(1)
        assert await crowd.read() == BIG
        await soon(lambda: BIG_DIGEST in crowd.store.content)

    crowd.run(act())


def test_a_blob_of_unknown_length_stays_below_the_bound_too() -> None:
    """It must neither fill the disk nor push everything else out, only to be thrown away itself."""
    crowd = Full(cache_size="1MiB")
    large = b"-" * 3_000_000
    digest = crowd.upstream.put_blob(str(PRIVATE), large)
    most = 0

    async def act() -> bytes:
        nonlocal most
        await crowd.read()
        crowd.upstream.alter = lambda answer: replace(answer, piece=PIECE, metadata=replace(answer.metadata, size=None))
        reading = crowd.read(digest=digest)
        while not reading.done():
            held_now = (*crowd.store.content.values(), *crowd.store.partial_blobs.values())
            most = max(most, sum(map(len, held_now)))
            await asyncio.sleep(0)
        return await reading

    assert crowd.run(act()) == large
    assert most <= 2**20
    assert BIG_DIGEST in crowd.store.content


def test_many_downloads_at_once_stay_below_the_bound() -> None:
    """Each fits alone; together they do not. What lies in drafts counts."""
    crowd = Full(cache_size="1MiB")
    blobs = [bytes([number]) * 400_000 for number in range(1, 5)]
    digests = [crowd.upstream.put_blob(str(PRIVATE), blob) for blob in blobs]
    most = 0

    async def act() -> list[bytes]:
        nonlocal most
        reading = [crowd.read(digest=digest) for digest in digests]
        while not all(one.done() for one in reading):
            held_now = (*crowd.store.content.values(), *crowd.store.partial_blobs.values())
            most = max(most, sum(map(len, held_now)))
            await asyncio.sleep(0)
        return await asyncio.gather(*reading)

    assert crowd.run(act()) == blobs
    assert most <= 2**20


@pytest.mark.parametrize("is_stated", [True, False])
def test_a_reader_that_continues_alone_gets_at_most_the_promised_length(is_stated: bool) -> None:  # noqa: FBT001
    """An upstream that now has more than before: its rest must not stand in for the one that was promised."""
    service = Service(stocked("none"))
    size = len(LAYER)

    async def act() -> None:
        store = service.parts.store()
        await store.put(LAYER_DIGEST, LAYER)
        begun = await store.open(LAYER_DIGEST)
        assert begun
        source = service.parts.upstreams().source_of(NAME)
        ask = PullAccess(CallerIdentity(ANONYMOUS_CALLER, FOREVER), ForwardedCredentials(), source)
        metadata = (
            ResponseMetadata("t", size - 3, None, Span(4, size + 1), size + 1)
            if is_stated
            else ResponseMetadata("t", None)
        )
        body = b"!" * (size - 3) if is_stated else LAYER[:4] + b"!" * (size - 3)
        service.upstream.alter = lambda _: FakeAnswer(metadata, body, piece=7)
        rest = service.parts.passthrough().rest(ask, LAYER_DIGEST, begun.file, Span(4, size), size)
        got = bytearray()

        async def read() -> None:
            async for piece in rest:
                got.extend(piece)

        with pytest.raises(UpstreamBroken):
            await read()
        assert len(got) < size - 4
        begun.file.close()

    service.run(act())


class Broken(MemoryContentStore):
    """Gives no draft, for another reason than room, and keeps no manifest."""

    async def lease(self, *_: Any, **__: Any) -> Any:
        raise StorageFailed("a partial blob cannot be opened: Too many open files")

    async def put(self, *_: Any) -> None:
        raise StorageFailed("content cannot be kept: Read-only file system")


def test_a_storage_failure_other_than_full_is_reported_as_such() -> None:
    crowd = Crowd()
    replace_store(crowd.service, Broken())

    async def act() -> None:
        assert await crowd.read() == BIG
        await crowd.service.manifest(ALICES, PRIVATE)

    crowd.run(act())
    broke = [event for event in crowd.service.events if isinstance(event, CacheWriteFailed)]
    assert [event.reason for event in broke] == [
        "a partial blob cannot be opened: Too many open files",
        "content cannot be kept: Read-only file system",
    ]
    assert crowd.count(CacheFull) == 0
