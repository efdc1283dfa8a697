"""Parts of blobs that are here, on their way, or neither."""

import asyncio
from dataclasses import replace

import pytest

from application.access.access_request import Caller
from application.blobs.blob_query import BlobQuery
from domain.authorization import parse_authorization
from domain.byte_ranges import ByteRange
from domain.errors import RangeUnsatisfiable
from domain.events import ContentDamaged
from domain.records import ANONYMOUS_CLASS, ContentKind, ContentLocation, Link
from tests.application.support.crowd import Crowd
from tests.application.support.service import PRIVATE, REALM, bytes_of
from tests.application.support.watched import ALICES, BIG, BIG_DIGEST, PIECE, held, soon
from tests.fakes.storage import MemoryInode

RANGES = [ByteRange(0, None), ByteRange(0, 0), ByteRange(5, 9), ByteRange(None, 7), ByteRange(len(BIG) - 1, None)]


@pytest.mark.parametrize("asked", [*RANGES, ByteRange(len(BIG) - 3, 10**9)])
def test_a_range_of_a_cached_blob_comes_from_the_cache(asked: ByteRange) -> None:
    crowd = Crowd()
    span = asked.of(len(BIG))

    async def act() -> bytes:
        await crowd.read()
        crowd.upstream.asked.clear()
        return await crowd.read(ranges=(asked,))

    assert crowd.run(act()) == BIG[span.start : span.stop]
    assert crowd.upstream.asked == []


def test_an_unsatisfiable_range_is_refused_with_the_size() -> None:
    crowd = Crowd()

    async def act() -> int | None:
        await crowd.read()
        with pytest.raises(RangeUnsatisfiable) as refused:
            await crowd.read(ranges=(ByteRange(len(BIG), None),))
        return refused.value.size

    assert crowd.run(act()) == len(BIG)


def test_ranges_of_a_cold_blob_are_kept_and_may_start_a_download_of_the_whole() -> None:
    crowd = Crowd()

    async def act() -> bytes:
        got = await crowd.read(ranges=(ByteRange(5, 9),))
        assert not crowd.download.is_whole_wanted
        assert await crowd.read(ranges=(ByteRange(0, len(BIG) // 8),)) == BIG[: len(BIG) // 8 + 1]
        await soon(lambda: BIG_DIGEST in crowd.service.parts.store().content)
        crowd.upstream.asked.clear()
        assert await crowd.read(ranges=(ByteRange(100, 199),)) == BIG[100:200]
        return got

    assert crowd.run(act()) == BIG[5:10]
    assert crowd.upstream.asked == []


def test_the_end_of_a_blob_does_not_wait_for_its_running_download() -> None:
    crowd = Crowd()

    async def act() -> bytes:
        gate = held(crowd.upstream)
        first = crowd.read()
        await crowd.under_way()
        got = await crowd.read(ranges=(ByteRange(None, 5),))
        assert not first.done()
        gate.set()
        assert await first == BIG
        return got

    assert crowd.run(act()) == BIG[-5:]
    assert [fetch.byte_range for fetch in crowd.upstream.gets] == [None, ByteRange(len(BIG) - 5, None)]


def test_a_range_that_a_running_download_has_received_comes_from_it() -> None:
    crowd = Crowd()

    async def act() -> bytes:
        gate = held(crowd.upstream)
        first = crowd.read()
        await crowd.under_way()
        got = await crowd.read(ranges=(ByteRange(100, PIECE - 1),))
        gate.set()
        assert await first == BIG
        return got

    assert crowd.run(act()) == BIG[100:PIECE]
    assert len(crowd.upstream.gets) == 1


def test_a_range_from_the_first_byte_on_joins_the_download() -> None:
    crowd = Crowd()

    async def act() -> list[bytes]:
        return await asyncio.gather(*(crowd.read(ranges=(ByteRange(0, None),)) for _ in range(3)))

    assert crowd.run(act()) == [BIG] * 3
    assert [fetch.byte_range for fetch in crowd.upstream.gets] == [None]


def test_content_whose_size_is_not_the_links_is_fetched_again() -> None:
    crowd = Crowd()

    async def act() -> bytes:
        await crowd.read()
        disk = crowd.service.parts.store().disk
        disk.inodes[BIG_DIGEST] = MemoryInode(BIG[:1000])
        crowd.upstream.asked.clear()
        return await crowd.read()

    assert crowd.run(act()) == BIG
    assert len(crowd.upstream.gets) == 1
    assert ContentDamaged(str(BIG_DIGEST)) in crowd.service.events
    assert crowd.service.parts.store().content[BIG_DIGEST] == BIG


def test_a_file_that_is_too_short_is_dropped_by_the_request_that_notices() -> None:
    crowd = Crowd()

    async def act() -> None:
        await crowd.read()
        answers = crowd.service.parts.pull_blob()
        caller = Caller(parse_authorization(ALICES), REALM)
        async with answers.open(caller, BlobQuery(PRIVATE, BIG_DIGEST)) as answer:
            assert answer.damaged
            await answer.damaged()
            got = b"".join([bytes_of(piece) async for piece in answer.pieces])
        assert got == BIG  # who has it open is not cut
        assert crowd.service.parts.store().content == {}

    crowd.run(act())


def test_a_link_without_a_size_is_a_hit() -> None:
    crowd = Crowd()

    async def act() -> bytes:
        await crowd.read()
        rights = crowd.service.parts.read_permissions()
        source = crowd.service.parts.upstreams().source_of(PRIVATE)
        location = ContentLocation(source, ContentKind.BLOB, BIG_DIGEST)
        rights._links.put(
            location, (Link(location, "t", None, frozenset({ANONYMOUS_CLASS})), crowd.service.clock.now())
        )
        crowd.upstream.asked.clear()
        return await crowd.read(ALICES)

    assert crowd.run(act()) == BIG
    assert crowd.upstream.asked == []


def test_a_head_without_a_length_is_completed_by_a_get() -> None:
    crowd = Crowd()
    crowd.upstream.alter = lambda answer: (
        replace(answer, metadata=replace(answer.metadata, size=None)) if crowd.upstream.asked[-1].head else answer
    )

    async def act() -> bytes:
        return await crowd.read(head=True)

    assert crowd.run(act()) == b""
    assert [fetch.head for fetch in crowd.upstream.asked] == [True, False]
