"""Blobs and parts of blobs that go past the cache, where the upstream breaks them off."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from domain.byte_ranges import ByteRange, Span
from domain.errors import UpstreamBroken, UpstreamThrottled
from domain.events import DigestMismatch, DownloadResumed
from tests.application.support.breaking import Breaking
from tests.application.support.watched import BIG, PIECE
from tests.fakes.upstream import FakeAnswer

SIZE = len(BIG)


class Uncached(Breaking):
    def __init__(self, **settings: Any) -> None:
        super().__init__(cache_dir="off", **settings)


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("application.blobs.retries._FIRST_PAUSE", 0.001)


def test_an_interrupted_range_continues_where_it_ended() -> None:
    crowd = Uncached(breaks=2, after=2 * PIECE)
    got = crowd.run(crowd_read(crowd, ranges=(ByteRange(5, SIZE - 2),)))
    assert got == BIG[5:-1]
    assert crowd.ranges == [
        ByteRange(5, SIZE - 2),
        ByteRange(5 + 2 * PIECE, SIZE - 2),
        ByteRange(5 + 4 * PIECE, SIZE - 2),
    ]
    assert crowd.count(DownloadResumed) == 2


def test_each_of_several_ranges_continues_where_it_ended() -> None:
    crowd = Uncached(breaks=1, after=PIECE)
    asked = (ByteRange(0, 2 * PIECE - 1), ByteRange(8 * PIECE, 9 * PIECE - 1))
    assert crowd.run(crowd_read(crowd, ranges=asked)) == BIG[: 2 * PIECE] + BIG[8 * PIECE : 9 * PIECE]
    assert crowd.ranges == [asked[0], ByteRange(PIECE, 2 * PIECE - 1), asked[1]]


def test_an_interrupted_passthrough_of_a_whole_blob_continues_and_is_verified() -> None:
    crowd = Uncached()
    assert crowd.run(crowd_read(crowd)) == BIG
    assert crowd.ranges == [None, ByteRange(3 * PIECE, SIZE - 1)]


def test_an_upstream_without_ranges_repeats_the_beginning() -> None:
    crowd = Uncached()

    def ignoring(number: int, answer: FakeAnswer) -> FakeAnswer:
        if number == 1:
            return answer
        metadata = answer.metadata
        return FakeAnswer(replace(metadata, size=SIZE, span=None, whole_size=None), BIG, PIECE)

    crowd.answer = ignoring  # type: ignore[method-assign]
    assert crowd.run(crowd_read(crowd, ranges=(ByteRange(7, SIZE - 1),))) == BIG[7:]


def test_a_rest_that_does_not_match_the_beginning_is_never_completed() -> None:
    crowd = Uncached()

    def other(number: int, answer: FakeAnswer) -> FakeAnswer:
        if number == 1:
            return answer
        return FakeAnswer(answer.metadata, bytes(len(answer.content)), PIECE)

    crowd.answer = other  # type: ignore[method-assign]
    with pytest.raises(UpstreamBroken):
        crowd.run(crowd_read(crowd))
    assert crowd.count(DigestMismatch) == 1


def test_another_range_than_the_rest_is_refused_without_a_retry() -> None:
    crowd = Uncached()

    def elsewhere(number: int, answer: FakeAnswer) -> FakeAnswer:
        if number == 1 or answer.metadata.span is None:
            return answer
        span = Span(0, answer.metadata.span.length)
        return FakeAnswer(replace(answer.metadata, span=span), answer.content, PIECE)

    crowd.answer = elsewhere  # type: ignore[method-assign]
    with pytest.raises(UpstreamBroken):
        crowd.run(crowd_read(crowd, ranges=(ByteRange(5, SIZE - 2),)))
    assert len(crowd.ranges) == 2


@pytest.mark.parametrize("retries", [0, 2])
def test_retries_without_a_byte_are_counted(retries: int) -> None:
    crowd = Uncached(breaks=100, after=0, fill_retries=retries)
    with pytest.raises(UpstreamBroken):
        crowd.run(crowd_read(crowd, ranges=(ByteRange(5, 99),)))
    # Nobody was let in before: a HEAD and no body, then the GET and its retries.
    assert len(crowd.ranges) == 1 + retries


def test_a_retry_waits_for_as_long_as_the_upstream_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []
    sleep = asyncio.sleep

    async def noted(seconds: float) -> None:
        waited.append(seconds)
        await sleep(0)

    monkeypatch.setattr("application.blobs.retries.asyncio.sleep", noted)
    crowd = Uncached()
    refusals = [UpstreamThrottled("slowly", retry_after="7"), UpstreamThrottled("slowly", retry_after="3600")]
    crowd.upstream.refuse = lambda fetch: refusals.pop(0) if fetch.byte_range and refusals else None
    assert crowd.run(crowd_read(crowd)) == BIG
    assert [seconds for seconds in waited if seconds] == [0.001, 7.0, 10.0]


async def crowd_read(crowd: Uncached, **query: Any) -> bytes:
    return await crowd.read(**query)
