"""A download over several connections, from an upstream without faults."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from domain.byte_ranges import ByteRange
from domain.errors import Unauthorized
from domain.events import DownloadResumed, DownloadStarted
from tests.application.support.line import LARGE, LARGE_DIGEST, MIB, RATE, Line, all_slow, elapsed, seconds
from tests.application.support.watched import ALICES, BOBS, NOBODYS

HALF = ByteRange(0, 8 * MIB - 1)


def part(first: int, last: int) -> dict[str, Any]:
    return {"ranges": (ByteRange(first, last),)}


# --- the number of connections ---


@pytest.mark.parametrize("connections", [2, 3, 4])
def test_a_slow_upstream_gets_as_many_connections_as_configured(connections: int) -> None:
    line = Line(download_connections=connections)
    got, duration = line.run(seconds(line.read()))
    assert got == line.stored == LARGE
    assert line.upstream.most_open == connections
    assert duration < 1.4 * len(LARGE) / RATE / connections + 1
    assert line.fetched < 1.02 * len(LARGE)
    assert (line.count(DownloadStarted), line.count(DownloadResumed)) == (1, 0)


def test_readers_from_the_beginning_receive_bytes_sooner_with_several_connections() -> None:
    line = Line()

    async def act() -> float:
        reading = line.reading()
        await line.received(len(LARGE) // 2)
        at_half = elapsed()
        assert await reading == LARGE
        return at_half

    assert line.run(act()) < 0.7 * len(LARGE) / 2 / RATE


def test_a_line_that_one_connection_fills_stays_at_one() -> None:
    line = Line(pace=all_slow())

    async def act() -> int:
        reading = line.reading()
        await line.received(len(LARGE) // 2)
        open_at_half = line.upstream.open_count
        assert await reading == LARGE
        return open_at_half

    assert line.run(act()) == 1
    assert line.upstream.most_open == 2
    assert line.fetched < 1.02 * len(LARGE)


def test_one_connection_is_used_if_one_is_configured() -> None:
    line = Line(download_connections=1)
    assert line.run(line.read()) == LARGE
    assert line.ranges == [None]


def test_a_download_that_ends_soon_uses_one_connection() -> None:
    line = Line(pace=all_slow(8 * RATE))
    assert line.run(line.read()) == LARGE
    assert line.ranges == [None]


def test_an_extra_connection_that_the_limit_refuses_leaves_the_first_one_uncut() -> None:
    line = Line()
    line.upstream.connections = 1
    got, duration = line.run(seconds(line.read()))
    assert got == line.stored == LARGE
    assert [fetch.is_extra for fetch in line.upstream.gets].count(False) == 1
    assert 1 <= len(line.extra) <= 3  # one try after each pause
    assert duration < len(LARGE) / RATE + 0.5
    assert line.count(DownloadResumed) == 0


def test_an_upstream_without_ranges_is_asked_once() -> None:
    line = Line()
    line.upstream.accepts_ranges = False
    assert line.run(line.read()) == LARGE
    assert line.ranges == [None]


def test_a_redirect_target_serves_all_pieces() -> None:
    line = Line()
    line.upstream.storage = "https://storage.test"
    assert line.run(line.read()) == LARGE
    assert line.upstream.signatures == 1
    assert line.extra


def test_an_expired_redirect_target_is_requested_again() -> None:
    line = Line()
    line.upstream.storage = "https://storage.test"

    async def act() -> bytes:
        reading = line.reading()
        await line.received(4 * MIB)
        line.upstream.signed.clear()
        return await reading

    assert line.run(act()) == line.stored == LARGE
    assert line.upstream.signatures == 2
    assert line.count(DownloadResumed) == 0


# --- readers of parts ---


def test_a_reader_far_ahead_does_not_wait_for_the_beginning() -> None:
    line = Line(download_connections=1)

    async def act() -> None:
        first = line.reading()
        await line.received(MIB)
        got, duration = await seconds(line.read(**part(12 * MIB, 13 * MIB - 1)))
        assert got == LARGE[12 * MIB : 13 * MIB]
        assert duration < 1.5 * MIB / RATE
        assert await first == LARGE

    line.run(act())
    assert ByteRange(12 * MIB, 13 * MIB - 1) in line.ranges
    assert line.fetched < 1.02 * len(LARGE)


def test_only_ranges_that_are_close_together_share_a_request() -> None:
    line = Line()
    ranges = (ByteRange(0, 9), ByteRange(1000, 1009), ByteRange(9 * MIB, 9 * MIB + 9))
    assert line.run(line.read(ranges=ranges)) == LARGE[:10] + LARGE[1000:1010] + LARGE[9 * MIB : 9 * MIB + 10]
    assert line.ranges == [ByteRange(0, 1009), ByteRange(9 * MIB, 9 * MIB + 9)]


def test_readers_of_the_same_part_share_one_request() -> None:
    line = Line()

    async def act() -> list[bytes]:
        return await asyncio.gather(*(line.read(**part(MIB, 2 * MIB - 1)) for _ in range(4)))

    assert line.run(act()) == [LARGE[MIB : 2 * MIB]] * 4
    assert line.ranges == [ByteRange(MIB, 2 * MIB - 1)]


def test_overlapping_parts_are_fetched_once() -> None:
    line = Line()

    async def act() -> list[bytes]:
        return await asyncio.gather(*(line.read(**part(start, start + MIB - 1)) for start in (0, 1000, MIB // 2)))

    assert line.run(act()) == [LARGE[start : start + MIB] for start in (0, 1000, MIB // 2)]
    assert line.fetched == 1.5 * MIB


def test_a_kept_part_needs_a_permission_and_no_bytes() -> None:
    line = Line()

    async def act() -> None:
        await line.read(**part(MIB, 2 * MIB - 1))
        await asyncio.sleep(5)  # that transfer has ended
        assert line.download is None
        line.upstream.asked.clear()
        for header in (NOBODYS, "Bearer somebody's"):
            with pytest.raises(Unauthorized):
                await line.read(header, **part(MIB, 2 * MIB - 1))
        assert line.fetched == MIB
        assert await line.read(BOBS, **part(MIB + 5, MIB + 9)) == LARGE[MIB + 5 : MIB + 10]

    line.run(act())
    assert any("bob" in repr(fetch.credentials.raw) for fetch in line.upstream.asked)
    assert line.fetched <= MIB + 5


def test_parts_that_cover_much_of_the_blob_make_a_download_of_the_whole() -> None:
    line = Line()

    async def act() -> None:
        assert await line.read(ranges=(HALF,)) == LARGE[: 8 * MIB]
        await line.ended()
        line.upstream.asked.clear()
        assert await line.read() == LARGE

    line.run(act())
    assert line.stored == LARGE
    assert line.upstream.gets == []
    assert line.count(DownloadStarted) == 1
    assert line.fetched < 1.02 * len(LARGE)


def test_a_transfer_of_parts_waits_a_second_for_the_next_reader_and_keeps_its_bytes() -> None:
    line = Line()

    async def act() -> None:
        await line.read(**part(0, 9))
        first = line.download
        await asyncio.sleep(0.9)
        await line.read(**part(MIB, MIB + 9))
        await asyncio.sleep(0.9)
        assert line.download is first
        _, duration = await seconds(line.ended())
        assert duration < 0.3
        assert line.service.parts.store().partial_blobs[LARGE_DIGEST][MIB : MIB + 10] == LARGE[MIB : MIB + 10]
        assert await line.read() == LARGE

    line.run(act())
    assert line.count(DownloadStarted) == 1
    assert line.fetched == len(LARGE)


def test_a_reader_that_leaves_does_not_end_the_part_of_another_reader() -> None:
    line = Line()

    async def act() -> bytes:
        leaving, staying = line.reading(**part(0, MIB - 1)), line.reading(**part(3 * MIB, 4 * MIB - 10))
        await line.received(3 * MIB + 1, at=3 * MIB)
        leaving.cancel()
        await asyncio.gather(leaving, return_exceptions=True)
        return await staying

    assert line.run(act()) == LARGE[3 * MIB : 4 * MIB - 9]
    assert line.fetched < 2 * MIB


# --- the end of a download ---


def test_a_download_that_is_cancelled_keeps_the_bytes_of_all_connections() -> None:
    line = Line()

    async def act() -> tuple[int, set[Any]]:
        before = asyncio.all_tasks()
        reading = line.reading()
        await line.received(6 * MIB)
        assert line.upstream.open_count == 4
        await line.service.parts.downloads().close()
        await asyncio.gather(reading, return_exceptions=True)
        assert line.upstream.open_count == 0
        await asyncio.sleep(0)
        return line.fetched, asyncio.all_tasks() - before

    fetched, left = line.run(act())
    assert not left
    inode = next(iter(line.service.parts.store().disk.growing.values()))
    assert len(inode.present.spans) > 1
    assert inode.size > fetched - 4 * 64 * 1024  # what was cut off at the end of a piece is not written
    assert all(inode.read()[span.start : span.stop] == LARGE[span.start : span.stop] for span in inode.present)

    assert line.run(line.read()) == LARGE
    assert line.fetched < 1.05 * len(LARGE)


def test_the_reserved_space_is_that_of_the_missing_bytes() -> None:
    line = Line()

    async def act() -> list[tuple[int, int]]:
        eviction, seen = line.service.parts.eviction(), []
        reading = line.reading()
        while not reading.done():
            await asyncio.sleep(0.25)
            if line.download:
                missing = len(LARGE) - line.download.present.length
                seen.append((sum(eviction._reserved.values()), missing))
        assert await reading == LARGE
        assert not eviction._reserved
        return seen

    seen = line.run(act())
    assert any(reserved for reserved, _ in seen)
    assert all(0 <= reserved <= missing for reserved, missing in seen)


@pytest.mark.parametrize("header", [ALICES, BOBS])
def test_a_full_storage_lets_all_readers_go_on_uncached(header: str) -> None:
    line = Line()

    async def act() -> list[bytes]:
        whole, part_of_it = line.reading(), line.reading(header, **part(12 * MIB, 13 * MIB - 1))
        await line.received(3 * MIB)
        line.service.parts.store().capacity = 5 * MIB
        ahead = line.reading(**part(14 * MIB, 15 * MIB - 1))
        return await asyncio.gather(whole, part_of_it, ahead)

    assert line.run(act()) == [LARGE, LARGE[12 * MIB : 13 * MIB], LARGE[14 * MIB : 15 * MIB]]
    assert line.service.parts.store().content == line.service.parts.store().partial_blobs == {}
    assert not line.service.parts.eviction()._reserved


def test_parts_go_on_uncached_if_the_storage_is_full() -> None:
    line = Line()
    line.service.parts.store().capacity = MIB

    async def act() -> list[bytes]:
        ranges = (ByteRange(0, MIB - 1), ByteRange(4 * MIB, 5 * MIB - 1))
        return await asyncio.gather(line.read(ranges=ranges), line.read(**part(8 * MIB, 9 * MIB - 1)))

    assert line.run(act()) == [LARGE[:MIB] + LARGE[4 * MIB : 5 * MIB], LARGE[8 * MIB : 9 * MIB]]
    assert line.service.parts.store().partial_blobs == {}


def test_the_answer_without_a_length_of_the_blob_is_not_divided() -> None:
    line = Line()
    line.change = lambda _, answer: replace(answer, metadata=replace(answer.metadata, size=None))
    assert line.run(line.read()) == LARGE
    assert line.ranges == [None]
