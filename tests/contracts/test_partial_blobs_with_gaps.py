"""The contract of partial blobs that are written in any order, and of what the processes that follow want."""

import asyncio
from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from application.ports.content import StorageRefused
from application.ports.lease import WHOLE, PartialBlobState
from domain.byte_ranges import Span
from domain.digest import Digest
from domain.span_set import END_UNKNOWN, SpanSet
from tests.contracts.storage import (
    KINDS,
    Worker,
    append,
    by_two_workers,
    content_of,
    followed_by,
    lease_of,
    partial_blob_of,
    two_workers,
    unverified,
    verified,
)

CONTENT = bytes(range(256)) * 40
DIGEST = Digest.of(CONTENT)


def with_gaps(*spans: tuple[int, int], total: int = len(CONTENT)) -> PartialBlobState:
    present = SpanSet.of(Span(start, stop) for start, stop in spans)
    return PartialBlobState(present, total, is_verified=False, is_discarded=False)


@by_two_workers
async def test_a_follower_sees_exactly_the_bytes_that_are_present(one: Worker, other: Worker) -> None:
    partial_blob, followed = await partial_blob_of(one, DIGEST), await followed_by(other, DIGEST)
    await append(partial_blob, deque([CONTENT[:10]]))
    assert followed.look() == unverified(10)
    partial_blob.total = len(CONTENT)
    assert await partial_blob.write(500, deque([CONTENT[500:600], CONTENT[600:700]])) == 200
    assert followed.look() == with_gaps((0, 10), (500, 700))
    assert await followed.file.read(500, 700) == CONTENT[500:700]
    await partial_blob.write(10, deque([CONTENT[10:500]]))
    assert followed.look() == with_gaps((0, 700))
    await partial_blob.write(9000, deque([CONTENT[9000:]]))
    await partial_blob.write(700, deque([CONTENT[700:9000]]))
    assert followed.look().present == partial_blob.present == SpanSet.up_to(len(CONTENT))
    assert await partial_blob.commit()
    assert followed.look() == verified(len(CONTENT))
    assert await content_of(other, DIGEST) == await followed.file.read(0, len(CONTENT) + 1) == CONTENT
    partial_blob.file.close()
    followed.file.close()


@by_two_workers
async def test_the_next_lease_and_new_followers_know_the_gaps_and_the_length(one: Worker, other: Worker) -> None:
    lease = await lease_of(one, DIGEST)
    lease.partial_blob.total = len(CONTENT)
    await lease.partial_blob.write(3000, deque([CONTENT[3000:]]))
    await lease.partial_blob.write(0, deque([CONTENT[:1000]]))
    await lease.release(keep=True)
    lease.partial_blob.file.close()
    again, followed = await partial_blob_of(other, DIGEST), await followed_by(one, DIGEST)
    assert again.total == len(CONTENT)
    assert again.present == SpanSet.of([Span(0, 1000), Span(3000, len(CONTENT))])
    assert followed.look() == with_gaps((0, 1000), (3000, len(CONTENT)))
    await again.write(1000, deque([CONTENT[1000:3000]]))
    assert await again.commit()
    assert await content_of(one, DIGEST) == CONTENT
    again.file.close()
    followed.file.close()


@by_two_workers
async def test_a_partial_blob_with_a_gap_is_discarded_at_the_commit(one: Worker, other: Worker) -> None:
    for parts in (((0, 5000), (5001, len(CONTENT))), ((1, len(CONTENT)),), ((0, 5000), (6000, len(CONTENT) - 1))):
        partial_blob = await partial_blob_of(one, DIGEST)
        partial_blob.total = len(CONTENT)
        for start, stop in reversed(parts):
            await partial_blob.write(start, deque([CONTENT[start:stop]]))
        followed = await followed_by(other, DIGEST)
        assert not await partial_blob.commit()
        assert followed.look().is_discarded
        assert await content_of(other, DIGEST) is None
        partial_blob.file.close()
        followed.file.close()


@by_two_workers
async def test_a_partial_blob_with_one_wrong_byte_after_a_gap_is_discarded(one: Worker, other: Worker) -> None:
    partial_blob = await partial_blob_of(one, DIGEST)
    partial_blob.total = len(CONTENT)
    await partial_blob.write(8000, deque([CONTENT[8000:-1], b"!"]))
    await partial_blob.write(0, deque([CONTENT[:8000]]))
    assert not await partial_blob.commit()
    assert await content_of(other, DIGEST) is None
    partial_blob.file.close()


@by_two_workers
async def test_bytes_after_a_gap_are_compared(one: Worker, other: Worker) -> None:
    partial_blob = await partial_blob_of(one, DIGEST)
    partial_blob.total = len(CONTENT)
    await partial_blob.write(8000, deque([CONTENT[8000:]]))
    assert await partial_blob.holds(8100, CONTENT[8100:8200])
    assert not await partial_blob.holds(8100, CONTENT[8101:8201])
    partial_blob.file.close()


@by_two_workers
async def test_only_the_present_bytes_of_a_partial_blob_take_space(one: Worker, other: Worker) -> None:
    lease = await lease_of(one, DIGEST)
    lease.partial_blob.total = len(CONTENT)
    await lease.partial_blob.write(3000, deque([CONTENT[3000:4000]]))
    assert (await other.maintenance.space()).partial_blobs == 1000
    await lease.partial_blob.write(0, deque([CONTENT[:10]]))
    assert (await other.maintenance.space()).partial_blobs == 1010
    await lease.release(keep=True)
    assert await other.maintenance.remove_abandoned_partial_blobs() == 1
    assert (await other.maintenance.space()).partial_blobs == 0
    lease.partial_blob.file.close()


@by_two_workers
async def test_a_partial_blob_with_gaps_cannot_be_changed_after_its_lease(one: Worker, other: Worker) -> None:
    lease = await lease_of(one, DIGEST)
    lease.partial_blob.total = len(CONTENT)
    await lease.partial_blob.write(3000, deque([CONTENT[3000:4000]]))
    await lease.release(keep=True)
    with pytest.raises(StorageRefused):
        await lease.partial_blob.write(5000, deque([CONTENT[5000:]]))
    again = await partial_blob_of(other, DIGEST)
    assert again.present == SpanSet.of([Span(3000, 4000)])
    lease.partial_blob.file.close()
    again.file.close()


@pytest.mark.parametrize("kind", KINDS)
@given(
    pieces=st.lists(st.binary(min_size=1, max_size=40), max_size=12).flatmap(
        lambda pieces: st.tuples(st.just(pieces), st.permutations(range(len(pieces))))
    ),
    at_once=st.integers(1, 5),
    leases=st.integers(1, 3),
)
def test_pieces_in_any_order_and_from_several_calls_become_the_content(
    kind: str,
    pieces: tuple[list[bytes], list[int]],
    at_once: int,
    leases: int,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    texts, order = pieces
    content = b"".join(texts)
    digest, starts = Digest.of(content), [len(b"".join(texts[:place])) for place in range(len(texts))]

    async def go() -> None:
        async with two_workers(kind, tmp_path_factory.mktemp("storage")) as workers:
            expected = SpanSet()
            share = max(1, -(-len(order) // leases))
            parts = [order[start : start + share] for start in range(0, len(order), share)]
            for number, part in enumerate(parts):
                lease = await lease_of(workers[number % 2], digest)
                followed = await followed_by(workers[1 - number % 2], digest)
                partial_blob = lease.partial_blob
                assert partial_blob.present == expected
                partial_blob.total = len(content)
                for first in range(0, len(part), at_once):
                    group = part[first : first + at_once]
                    await asyncio.gather(*(partial_blob.write(starts[one], deque([texts[one]])) for one in group))
                    expected = SpanSet.of(
                        [*expected, *(Span(starts[one], starts[one] + len(texts[one])) for one in group)]
                    )
                    assert followed.look().present == partial_blob.present == expected
                await lease.release(keep=True)
                partial_blob.file.close()
                followed.file.close()
            last = await partial_blob_of(workers[0], digest)
            assert await last.commit()
            last.file.close()
            assert await content_of(workers[1], digest) == content

    asyncio.run(go())


@by_two_workers
async def test_the_holder_sees_what_followers_want(one: Worker, other: Worker) -> None:
    lease, followed = await lease_of(one, DIGEST), [await followed_by(worker, DIGEST) for worker in (one, other, other)]
    assert not lease.wanted()
    low, middle, high = (SpanSet.of([Span(start, start + 10)]) for start in (0, 100, 200))
    for each, spans in zip(followed, (middle, high, low), strict=True):
        each.want(spans)
    assert lease.wanted() == SpanSet.of([*low, *middle, *high])
    followed[0].want(SpanSet.of([Span(105, 300), Span(5000, 6000)]))
    assert lease.wanted() == SpanSet.of([*low, Span(105, 300), Span(5000, 6000)])
    followed[1].want(SpanSet())
    followed[0].file.close()
    assert lease.wanted() == low
    followed[2].want(SpanSet.of([Span(7, END_UNKNOWN)]))
    assert lease.wanted() == SpanSet.of([Span(7, END_UNKNOWN)])
    assert lease.wanted().covers(WHOLE)
    followed[2].want(SpanSet.of([WHOLE, Span(3, 4)]))
    assert lease.wanted() == SpanSet.of([Span(3, 4), WHOLE])
    for file in (lease.partial_blob.file, followed[1].file, followed[2].file):
        file.close()


@by_two_workers
async def test_a_follower_that_gets_the_lease_wants_nothing_any_more(one: Worker, other: Worker) -> None:
    lease, followed = await lease_of(one, DIGEST), await followed_by(other, DIGEST)
    followed.want(SpanSet.of([WHOLE]))
    await lease.release(keep=True)
    followed.file.close()
    again = await lease_of(other, DIGEST)
    assert not again.wanted()
    lease.partial_blob.file.close()
    again.partial_blob.file.close()


@pytest.mark.parametrize("kind", KINDS)
@given(wants=st.lists(st.lists(st.tuples(st.integers(0, 60), st.integers(1, 20)), max_size=6), min_size=1, max_size=3))
def test_all_wants_arrive(
    kind: str, wants: list[list[tuple[int, int]]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    async def go() -> None:
        async with two_workers(kind, tmp_path_factory.mktemp("storage")) as (one, other):
            lease = await lease_of(one, DIGEST)
            followed = [await followed_by(other, DIGEST) for _ in wants]
            sets = [SpanSet.of(Span(start, start + length) for start, length in spans) for spans in wants]
            for each, spans in zip(followed, sets, strict=True):
                each.want(SpanSet.of([Span(30, 50)]))
                each.want(spans)
            assert lease.wanted() == SpanSet.of(span for spans in sets for span in spans)
            for file in (lease.partial_blob.file, *(each.file for each in followed)):
                file.close()

    asyncio.run(go())
