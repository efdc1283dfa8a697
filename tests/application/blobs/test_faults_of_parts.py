"""Faults of the upstream while several connections fetch one blob."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from application.ports.upstream import UpstreamRequest
from domain.byte_ranges import ByteRange, Span
from domain.errors import (
    BlobUnknown,
    Denied,
    RangeUnsatisfiable,
    RegistryError,
    UpstreamBroken,
    UpstreamContentChanged,
    UpstreamRejected,
    UpstreamThrottled,
    UpstreamTimedOut,
)
from domain.events import DigestMismatch, DownloadResumed
from tests.application.support.line import LARGE, LARGE_DIGEST, MIB, RATE, Line, once, refused_once, seconds
from tests.application.support.service import PRIVATE
from tests.application.support.watched import ALICES, BOBS, challenged
from tests.fakes.upstream import FakeAnswer


def is_extra(fetch: UpstreamRequest) -> bool:
    return fetch.is_extra


def is_later(fetch: UpstreamRequest) -> bool:
    """A request for a piece, in the middle of the download."""
    return fetch.is_extra and fetch.byte_range is not None and (fetch.byte_range.first or 0) > 5 * MIB


def cut(answer: FakeAnswer) -> FakeAnswer:
    return replace(answer, cut_after=256 * 1024)


def wrong_byte(answer: FakeAnswer) -> FakeAnswer:
    return replace(answer, content=answer.content[:-9] + bytes([answer.content[-9] ^ 1]) + answer.content[-8:])


def whole(answer: FakeAnswer) -> FakeAnswer:
    return replace(
        answer, content=LARGE, metadata=replace(answer.metadata, size=len(LARGE), span=None, whole_size=None)
    )


def with_metadata(change: Callable[[Any], dict[str, Any]]) -> Callable[[FakeAnswer], FakeAnswer]:
    return lambda answer: replace(answer, metadata=replace(answer.metadata, **change(answer.metadata)))


WRONG_PARTS = {
    "another offset": with_metadata(lambda m: {"span": Span(m.span.start + 1, m.span.stop + 1)}),
    "another end": with_metadata(lambda m: {"span": Span(m.span.start, m.span.stop - 1)}),
    "another total": with_metadata(lambda m: {"whole_size": m.whole_size + 1}),
    "another total and no range to check": with_metadata(lambda m: {"span": Span(0, 9), "whole_size": 9}),
    "another etag": with_metadata(lambda _: {"etag": '"other"'}),
    "another length": with_metadata(lambda m: {"size": m.size - 1}),
    "the whole blob": whole,
}


def test_a_piece_that_is_cut_is_fetched_again() -> None:
    line = Line()
    line.change = once(is_later, cut)
    assert line.run(line.read()) == line.stored == LARGE
    assert line.fetched < 1.05 * len(LARGE)
    assert line.count(DownloadResumed) == 1


@pytest.mark.parametrize("fault", WRONG_PARTS)
def test_a_wrong_part_ends_the_division_and_no_reader_notices(fault: str) -> None:
    line = Line()
    line.change = once(is_extra, WRONG_PARTS[fault])

    async def act() -> list[bytes]:
        return await asyncio.gather(line.read(), line.read(BOBS))

    assert line.run(act()) == [LARGE, LARGE]
    assert line.stored == LARGE
    assert len(line.extra) == 1
    assert line.count(DownloadResumed) == 1


def test_a_part_without_a_total_is_accepted() -> None:
    line = Line()
    line.change = lambda fetch, answer: (
        with_metadata(lambda _: {"whole_size": None})(answer) if fetch.is_extra else answer
    )
    assert line.run(line.read()) == line.stored == LARGE
    assert line.count(DownloadResumed) == 0
    assert line.upstream.most_open == 4


@pytest.mark.parametrize(
    "error",
    [
        UpstreamThrottled("slow down", retry_after="2"),
        UpstreamBroken("503"),
        UpstreamTimedOut("too late"),
        RangeUnsatisfiable("no such bytes", size=len(LARGE)),
        RangeUnsatisfiable("no such bytes", size=None),
    ],
    ids=["429", "5xx", "timeout", "416", "416 without a length"],
)
@pytest.mark.parametrize("matches", [is_extra, is_later])
def test_a_refused_piece_reduces_the_connections_and_no_reader_notices(
    error: RegistryError, matches: Callable[[UpstreamRequest], bool]
) -> None:
    line = Line()
    line.upstream.refuse = refused_once(matches, error)
    assert line.run(line.read()) == line.stored == LARGE
    assert line.count(DownloadResumed) == 1


def test_the_number_of_connections_is_halved_after_a_429() -> None:
    line = Line()
    line.upstream.refuse = refused_once(is_later, UpstreamThrottled("slow down", retry_after=None))

    async def act() -> int:
        reading = line.reading()
        while not line.count(DownloadResumed):  # noqa: ASYNC110 - nothing tells when it becomes so
            await asyncio.sleep(0.01)
        requests = len(line.upstream.gets)
        await asyncio.sleep(3)  # the other pieces have ended by then
        assert len(line.upstream.gets) > requests
        open_then = line.upstream.open_count
        assert await reading == LARGE
        return open_then

    assert line.run(act()) <= 2


@pytest.mark.parametrize("error", [Denied("denied"), challenged(), BlobUnknown("gone")], ids=["403", "401", "404"])
def test_a_running_body_is_completed_when_the_upstream_refuses_further_requests(error: RegistryError) -> None:
    """For instance, the token of the client has expired."""
    line = Line()
    line.upstream.refuse = lambda fetch: error if is_later(fetch) else None
    assert line.run(line.read()) == line.stored == LARGE
    assert sum(is_later(fetch) for fetch in line.upstream.gets) == 1


def test_a_refused_access_is_replaced_by_that_of_another_reader() -> None:
    """The running body breaks off after the refusal."""
    line = Line()
    line.change = once(lambda fetch: fetch.byte_range is None, lambda answer: replace(answer, cut_after=12 * MIB))

    def refuse(fetch: UpstreamRequest) -> RegistryError | None:
        return challenged() if fetch.byte_range and "alice" in repr(fetch.credentials.raw) else None

    async def act() -> list[bytes]:
        line.upstream.refuse = refuse
        return await asyncio.gather(line.read(ALICES), line.read(BOBS))

    assert line.run(act()) == [LARGE, LARGE]
    assert any(fetch.byte_range and "bob" in repr(fetch.credentials.raw) for fetch in line.upstream.gets)
    assert line.stored == LARGE


def test_wrong_bytes_in_a_piece_cut_the_readers_and_start_one_download_over_one_connection() -> None:
    line = Line()
    line.change = once(is_extra, wrong_byte)
    received: list[int] = []

    async def act() -> list[Any]:
        cut_off = await asyncio.gather(line.read(), line.read(BOBS), return_exceptions=True)
        received.append(len(line.upstream.gets))
        return [*cut_off, await line.read()]

    first, second, afterwards = line.run(act())
    assert isinstance(first, UpstreamContentChanged)
    assert isinstance(second, UpstreamContentChanged)
    assert afterwards == line.stored == LARGE
    assert line.ranges[received[0] :] in ([], [None])
    assert line.ranges[-1] is None
    assert line.count(DigestMismatch) == 1
    assert line.service.parts.store().partial_blobs == {}


def test_no_reader_receives_the_last_byte_of_a_blob_with_wrong_bytes() -> None:
    line = Line()
    line.change = once(is_extra, wrong_byte)
    assert line.run(received_bytes(line)) == len(LARGE) - 1


def test_bytes_that_stay_wrong_are_fetched_twice_and_not_for_ever() -> None:
    line = Line()
    line.upstream.blobs[str(PRIVATE), str(LARGE_DIGEST)] = LARGE[:-1] + bytes([LARGE[-1] ^ 1])

    async def act() -> None:
        with pytest.raises(UpstreamContentChanged):
            await line.read()
        await line.ended()
        await asyncio.sleep(60)

    line.run(act())
    assert line.ranges.count(None) == 2
    assert line.fetched < 2.1 * len(LARGE)
    assert line.service.parts.store().content == {}


async def received_bytes(line: Line) -> int:
    """How many bytes a reader receives that is cut."""
    count = 0

    async def read() -> None:
        nonlocal count
        async for size in line.sizes():
            count += size

    with pytest.raises(UpstreamContentChanged):
        await read()
    return count


def test_after_a_wrong_part_the_rest_is_one_request_at_a_time() -> None:
    """The requests have no Range then, so each of them begins at the first byte."""
    line = Line()
    line.change = once(is_later, WRONG_PARTS["another offset"])

    async def act() -> tuple[bytes, int]:
        reading, most = line.reading(), 0
        while not reading.done():
            await asyncio.sleep(0.1)
            most = max(most, [fetch.byte_range for fetch in line.upstream.gets][1:].count(None))
        return await reading, most

    got, whole_requests = line.run(act())
    assert got == line.stored == LARGE
    assert whole_requests <= 1
    assert line.fetched < 2.1 * len(LARGE)


def test_an_upstream_that_ignores_ranges_midway_sends_the_blob_once_more() -> None:
    """The first body breaks off; from then on every answer is the whole blob."""
    line = Line()
    bodies = [lambda answer: replace(answer, cut_after=4 * MIB)]

    def change(fetch: UpstreamRequest, answer: FakeAnswer) -> FakeAnswer:
        return bodies.pop()(answer) if bodies else whole(answer)

    line.change = change

    async def act() -> list[bytes]:
        first = line.reading()
        await line.received(MIB)
        return await asyncio.gather(first, line.read(ranges=(ByteRange(12 * MIB, 13 * MIB - 1),)))

    assert line.run(act()) == [LARGE, LARGE[12 * MIB : 13 * MIB]]
    assert line.stored == LARGE
    assert line.fetched < 3 * len(LARGE)


@pytest.mark.parametrize("delay", [0, 3], ids=["at once", "later"])
def test_a_whole_blob_instead_of_the_rest_does_not_overwrite_a_part_that_arrives_meanwhile(delay: float) -> None:
    """Each server behind one address answers ranges in its own way."""
    line = Line(download_connections=1)

    async def late(size: int) -> None:
        await asyncio.sleep(delay + size / RATE)

    def change(fetch: UpstreamRequest, answer: FakeAnswer) -> FakeAnswer:
        if len(line.upstream.gets) == 1:
            return replace(answer, cut_after=2 * MIB)
        is_part = fetch.byte_range is not None and fetch.byte_range.first in {4 * MIB, 12 * MIB}
        return replace(answer, pace=late) if is_part else whole(answer)

    line.change = change

    async def act() -> list[bytes]:
        first = line.reading()
        await line.received(2 * MIB)
        ahead = [line.reading(ranges=(ByteRange(start, start + MIB // 2 - 1),)) for start in (4 * MIB, 12 * MIB)]
        return await asyncio.gather(first, *ahead)

    assert line.run(act()) == [LARGE, *(LARGE[start : start + MIB // 2] for start in (4 * MIB, 12 * MIB))]
    assert line.stored == LARGE
    assert len(line.upstream.gets) == 5  # one request after the parts have arrived, and none meanwhile


def test_a_body_that_is_cut_again_and_again_without_new_bytes_is_given_up() -> None:
    line = Line(fill_retries=3)
    line.change = lambda _, answer: replace(whole(answer), cut_after=2 * MIB)

    async def act() -> Any:
        async with asyncio.timeout(3600):
            return await line.read()

    with pytest.raises(UpstreamBroken):
        line.run(act())
    assert len(line.upstream.gets) <= 5


def test_one_connection_that_stalls_does_not_hold_up_the_others() -> None:
    line = Line()
    gate = asyncio.Event()

    async def stalled(_: int) -> None:
        await gate.wait()

    line.change = once(is_extra, lambda answer: replace(answer, pace=stalled))

    async def act() -> tuple[bytes, float]:
        asyncio.get_running_loop().call_later(25, gate.set)
        return await seconds(line.read())

    got, duration = line.run(act())
    assert got == LARGE
    assert duration < 25 + len(LARGE) / RATE


@pytest.mark.parametrize("first", [0, 4 * MIB])
def test_a_part_of_a_blob_of_unknown_length_is_passed_through_and_not_requested_again_and_again(first: int) -> None:
    line = Line()

    async def slower(size: int) -> None:
        await asyncio.sleep(3 * size / RATE)

    def change(_: UpstreamRequest, answer: FakeAnswer) -> FakeAnswer:
        pace = slower if len(line.upstream.gets) == 2 else answer.pace
        return with_metadata(lambda _: {"whole_size": None})(replace(answer, pace=pace))

    line.change = change

    async def act() -> bytes:
        got = await line.read(ranges=(ByteRange(first, first + MIB - 1),))
        await line.ended()
        return got

    assert line.run(act()) == LARGE[first : first + MIB]
    assert len(line.upstream.gets) == 2


@pytest.mark.parametrize("pause", [0, 0.5])
def test_a_reader_of_the_whole_blob_gets_it_although_no_earlier_answer_told_its_length(pause: float) -> None:
    line = Line()
    normal = line.upstream.alter

    def alter(answer: FakeAnswer) -> FakeAnswer:
        size = None if line.upstream.asked[-1].head else answer.metadata.size
        return normal(with_metadata(lambda _: {"whole_size": None, "size": size})(answer))

    line.upstream.alter = alter

    async def act() -> bytes:
        await line.read(ranges=(ByteRange(0, 9),))
        await asyncio.sleep(pause)
        async with asyncio.timeout(600):
            return await line.read()

    assert line.run(act()) == LARGE


def test_a_first_part_of_a_shorter_blob_is_not_accepted() -> None:
    line = Line()
    line.change = lambda _, answer: replace(
        with_metadata(lambda _: {"span": Span(0, 9), "whole_size": 9, "size": 9})(answer), content=LARGE[:9]
    )

    async def act() -> None:
        with pytest.raises(UpstreamBroken):
            await line.read(ranges=(ByteRange(100, 199),))

    line.run(act())
    assert line.service.parts.store().content == {}


def test_an_outage_ends_all_readers_also_if_requests_fail_at_different_times() -> None:
    """One for the whole blob and two for parts: no failed request may be replaced again and again."""
    line = Line()
    line.upstream.refuse = lambda fetch: UpstreamTimedOut("no byte came") if fetch.byte_range else None
    line.change = once(lambda fetch: fetch.byte_range is None, lambda answer: replace(answer, cut_after=2 * MIB))

    async def act() -> list[Any]:
        whole = line.reading()
        await line.received(MIB)
        parts = [line.read(ranges=(ByteRange(at * MIB, at * MIB + 99),)) for at in (10, 14)]
        return await asyncio.gather(whole, *parts, return_exceptions=True)

    assert [type(one) for one in line.run(act())] == [UpstreamTimedOut] * 3


def test_an_error_of_a_request_that_the_download_does_not_need_concerns_no_reader() -> None:
    line = Line()
    line.upstream.refuse = lambda fetch: UpstreamRejected("the upstream answered 400") if fetch.is_extra else None
    assert line.run(line.read()) == line.stored == LARGE


def test_a_range_outside_a_kept_partial_blob_is_refused_and_fetches_nothing() -> None:
    line = Line()

    async def act() -> int:
        await line.read(ranges=(ByteRange(0, 99),))
        await line.ended()
        with pytest.raises(RangeUnsatisfiable):
            await line.read(ranges=(ByteRange(10**9, 10**9 + 5),))
        await line.ended()
        return int(line.service.parts.store().disk.growing.popitem()[1].size)

    assert line.run(act()) == 100
    assert len(line.upstream.gets) == 2
