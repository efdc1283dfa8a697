"""What a download does that breaks off, and what its readers get."""

import asyncio
from collections import deque
from dataclasses import replace
from email.utils import formatdate
from typing import Any

import pytest

from application.blobs.retries import Retries
from domain.byte_ranges import ByteRange, Span
from domain.digest import Digest
from domain.errors import (
    RegistryError,
    UpstreamBroken,
    UpstreamContentChanged,
    UpstreamThrottled,
    UpstreamTimedOut,
    UpstreamUnavailable,
    UpstreamUnreachable,
)
from domain.events import DigestMismatch, DownloadResumed, DownloadStarted
from tests.application.support.breaking import Breaking
from tests.application.support.crowd import Crowd
from tests.application.support.service import PRIVATE
from tests.application.support.watched import ALICES, BIG, BIG_DIGEST, PIECE, soon
from tests.fakes.upstream import FakeAnswer

OTHER = b"!" + BIG[1:]


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("application.blobs.retries._FIRST_PAUSE", 0.005)
    monkeypatch.setattr("application.blobs.retries._LONGEST_PAUSE", 0.02)


def test_an_interrupted_download_is_continued() -> None:
    crowd = Breaking(breaks=2)
    assert crowd.run(crowd.both()) == [BIG, BIG]
    assert crowd.ranges == [None, ByteRange(3 * PIECE, None), ByteRange(6 * PIECE, None)]
    assert crowd.kept == BIG
    assert (crowd.count(DownloadStarted), crowd.count(DownloadResumed)) == (1, 2)


def test_only_the_configured_retries_are_made_without_a_new_byte() -> None:
    crowd = Breaking(fill_retries=3)
    crowd.upstream.refuse = lambda fetch: UpstreamUnreachable("gone") if fetch.byte_range else None
    first, second = crowd.run(crowd.both())
    assert isinstance(first, UpstreamUnreachable)
    assert isinstance(second, UpstreamUnreachable)
    assert len(crowd.ranges) == 1 + 3
    assert crowd.kept is None


def test_bytes_that_are_sent_again_do_not_reset_the_count_of_retries() -> None:
    crowd = Breaking(breaks=100, fill_retries=3)
    crowd.upstream.accepts_ranges = False
    first, second = crowd.run(crowd.both())
    assert isinstance(first, UpstreamBroken)
    assert isinstance(second, UpstreamBroken)
    assert len(crowd.ranges) == 1 + 3
    assert crowd.kept is None


def test_each_new_byte_resets_the_count_of_retries() -> None:
    crowd = Breaking(breaks=9, after=PIECE, fill_retries=1)
    assert crowd.run(crowd.both()) == [BIG, BIG]
    assert len(crowd.ranges) == 10


def test_a_failed_first_response_is_not_retried() -> None:
    crowd = Crowd()
    crowd.upstream.refuse = lambda _: UpstreamTimedOut("too late")

    async def act() -> None:
        with pytest.raises(UpstreamTimedOut):
            await crowd.read()

    crowd.run(act())
    assert len(crowd.upstream.asked) == 1


def test_the_next_download_continues_with_the_bytes_of_a_failed_one() -> None:
    crowd = Breaking(fill_retries=0)

    async def act() -> bytes:
        with pytest.raises(UpstreamBroken):
            await crowd.read()
        return await crowd.read()

    assert crowd.run(act()) == BIG
    assert crowd.ranges == [None, ByteRange(3 * PIECE, None)]


@pytest.mark.parametrize(
    ("retry_after", "seconds"),
    [("7", 7.0), ("date", 7.0), ("99", 10.0), ("soon", 0.5), (None, 0.5)],
)
def test_a_retry_waits_for_retry_after_of_a_429(
    monkeypatch: pytest.MonkeyPatch, retry_after: str | None, seconds: float
) -> None:
    """`date`: seven seconds from now on. Ten seconds at most."""
    monkeypatch.setattr("application.blobs.retries._FIRST_PAUSE", 0.25)
    monkeypatch.setattr("application.blobs.retries._LONGEST_PAUSE", 10.0)
    crowd, waited, pause = Breaking(breaks=0), [], Retries.pause
    if retry_after == "date":
        retry_after = formatdate(crowd.service.clock.now() + 7, usegmt=True)
    faults = [UpstreamThrottled("slow down", retry_after=retry_after)]

    def noted(retries: Retries, fault: UpstreamUnavailable, *, has_progressed: bool) -> float:
        waited.append(pause(retries, fault, has_progressed=has_progressed))
        return 0.0

    monkeypatch.setattr(Retries, "pause", noted)
    crowd.breaks, crowd.after = 1, PIECE
    crowd.upstream.refuse = lambda fetch: faults.pop() if fetch.byte_range and faults else None
    assert crowd.run(crowd.both()) == [BIG, BIG]
    assert waited == [0.25, seconds]


@pytest.mark.parametrize(
    "change",
    [
        lambda metadata: replace(metadata, span=Span(metadata.span.start + 1, metadata.span.stop)),
        lambda metadata: replace(metadata, span=Span(0, len(BIG) - metadata.span.start)),
        lambda metadata: replace(metadata, span=Span(metadata.span.start, metadata.span.stop - 1)),
        lambda metadata: replace(metadata, whole_size=len(BIG) + 1),
    ],
    ids=["too late", "from the beginning", "too short", "another total"],
)
def test_a_range_that_was_not_requested_is_not_accepted(change: Any) -> None:
    class Lying(Breaking):
        def answer(self, number: int, answer: FakeAnswer) -> FakeAnswer:
            return replace(answer, metadata=change(answer.metadata)) if number == 2 else answer

    crowd = Lying()
    assert crowd.run(crowd.both()) == [BIG, BIG]
    assert len(crowd.ranges) == 3
    assert crowd.kept == BIG


def test_an_upstream_without_ranges_sends_the_blob_again_and_readers_continue() -> None:
    class Whole(Breaking):
        def answer(self, number: int, answer: FakeAnswer) -> FakeAnswer:
            metadata = replace(answer.metadata, span=None, whole_size=None, size=len(BIG))
            return replace(answer, metadata=metadata, content=BIG)

    crowd = Whole()
    assert crowd.run(crowd.both()) == [BIG, BIG]
    assert crowd.ranges == [None, ByteRange(3 * PIECE, None)]
    assert crowd.kept == BIG


def test_different_first_bytes_end_all_readers_and_start_a_new_download() -> None:
    class Otherwise(Breaking):
        def answer(self, number: int, answer: FakeAnswer) -> FakeAnswer:
            metadata = replace(answer.metadata, span=None, whole_size=None, size=len(BIG))
            return replace(answer, metadata=metadata, content=OTHER if number == 1 else BIG)

    crowd = Otherwise()

    async def act() -> list[Any]:
        got = await crowd.both()
        await soon(lambda: crowd.kept == BIG)
        return [*got, await crowd.read()]

    *cut, afterwards = crowd.run(act())
    assert [type(one) for one in cut] == [UpstreamContentChanged, UpstreamContentChanged]
    assert afterwards == BIG
    assert crowd.service.parts.store().partial_blobs == {}


def test_wrong_bytes_are_never_stored_or_completed() -> None:
    crowd = Crowd()
    crowd.upstream.blobs[str(PRIVATE), str(BIG_DIGEST)] = BIG[:-1] + b"!"
    got: list[bytes] = []

    async def act() -> None:
        for _ in range(2):
            with pytest.raises(UpstreamBroken):
                await crowd.read()

    crowd.run(act())
    assert got == []
    assert crowd.service.parts.store().content == crowd.service.parts.store().partial_blobs == {}
    assert (crowd.count(DigestMismatch), len(crowd.upstream.gets)) == (2, 2)


def test_a_body_with_a_wrong_content_length_is_never_completed() -> None:
    for size in (len(BIG) - 1, len(BIG) + 1):
        crowd = Crowd(fill_retries=1)
        crowd.upstream.alter = lambda answer, size=size: replace(
            answer, piece=PIECE, metadata=replace(answer.metadata, size=size)
        )
        first, second = crowd.run(Breaking.both(crowd))
        assert first != BIG
        assert isinstance(first, RegistryError)
        assert isinstance(second, RegistryError)
        assert crowd.service.parts.store().content == {}


def test_a_blob_of_unknown_length_is_downloaded() -> None:
    crowd = Crowd()
    crowd.upstream.alter = lambda answer: replace(answer, piece=PIECE, metadata=replace(answer.metadata, size=None))
    assert crowd.run(Breaking.both(crowd)) == [BIG, BIG]


def test_a_resumed_download_works_without_a_total_size() -> None:
    """`Content-Range: bytes 90000-307199/*`: the length of the rest is not that of the blob."""

    class Silent(Breaking):
        def answer(self, number: int, answer: FakeAnswer) -> FakeAnswer:
            return replace(answer, metadata=replace(answer.metadata, whole_size=None)) if number > 1 else answer

    crowd = Silent(fill_retries=0)

    async def act() -> bytes:
        with pytest.raises(UpstreamBroken):
            await crowd.read()
        return await crowd.read()

    assert crowd.run(act()) == BIG


def test_a_complete_partial_blob_needs_no_more_bytes() -> None:
    crowd = Crowd()

    async def act() -> bytes:
        lease = await crowd.service.parts.store().lease(crowd.service.parts.upstream(), BIG_DIGEST)
        partial_blob = lease.partial_blob
        await partial_blob.write(0, deque([BIG]))
        partial_blob.file.close()
        return await crowd.read()

    assert crowd.run(act()) == BIG
    assert crowd.upstream.gets[0].byte_range == ByteRange(len(BIG), None)


def test_a_partial_blob_longer_than_the_blob_is_discarded() -> None:
    crowd = Crowd()

    async def act() -> bytes:
        lease = await crowd.service.parts.store().lease(crowd.service.parts.upstream(), BIG_DIGEST)
        partial_blob = lease.partial_blob
        await partial_blob.write(0, deque([BIG, b"more"]))
        partial_blob.file.close()
        with pytest.raises(UpstreamBroken):
            await crowd.read()
        return await crowd.read()

    assert crowd.run(act()) == BIG


def test_each_digest_has_its_own_download() -> None:
    crowd = Crowd()
    other = crowd.upstream.put_blob(str(PRIVATE), OTHER)
    assert other == Digest.of(OTHER)

    async def act() -> list[bytes]:
        return await asyncio.gather(crowd.read(ALICES), crowd.read(ALICES, digest=other))

    assert crowd.run(act()) == [BIG, OTHER]
