"""Readers in one process want bytes of a blob that another process downloads."""

import asyncio
from typing import Any

import pytest

from domain.byte_ranges import ByteRange
from domain.errors import Unauthorized
from domain.events import BytesFetched, DownloadStarted
from domain.tokens import IssuedToken
from tests.application.support.line import LARGE, LARGE_DIGEST, MIB, RATE, Line, seconds
from tests.application.support.service import ALICE, BOB, PRIVATE, Service
from tests.application.support.watched import ALICES, BOBS, NOBODYS, shared
from tests.fakes.parts import memory_storage


def part(first: int, last: int) -> dict[str, Any]:
    return {"ranges": (ByteRange(first, last),)}


class TwoProcesses(Line):
    """Two processes with one storage. The first one begins the download."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        storage = memory_storage()
        self.service = Service(self.upstream, storage=storage, **settings)
        self.second = Service(self.upstream, self.service.clock, shared(storage), **settings)

    async def logged_in(self) -> None:
        await super().logged_in()
        await self.second.warm_up()
        for login, header in [(ALICE, ALICES), (BOB, BOBS)]:
            token = IssuedToken(header.removeprefix("Bearer "), 3000, int(self.service.clock.now()))
            await self.second.parts.caller_identities().remember(login, token)

    async def follow(self, header: str = ALICES, **others: Any) -> bytes:
        return await self.second.blob(header, **{"name": PRIVATE, "digest": LARGE_DIGEST, **others})

    @property
    def followed(self) -> Any:
        return self.second.parts.downloads().running(self.second.parts.upstream(), LARGE_DIGEST)

    @property
    def fetched_by_the_second(self) -> int:
        return sum(event.count for event in self.second.events if isinstance(event, BytesFetched))

    def run(self, action: Any) -> Any:
        async def both() -> Any:
            return await self.second._finish(action)

        return super().run(both())


def test_a_part_far_ahead_is_fetched_by_the_process_that_downloads() -> None:
    pair = TwoProcesses(download_connections=1)

    async def act() -> None:
        first = pair.reading()
        await pair.received(MIB)
        got, duration = await seconds(pair.follow(**part(12 * MIB, 13 * MIB - 1)))
        assert got == LARGE[12 * MIB : 13 * MIB]
        assert duration < 1.5 * MIB / RATE
        assert await first == LARGE

    pair.run(act())
    assert pair.fetched_by_the_second == 0
    assert pair.fetched < 1.02 * len(LARGE)


def test_parts_of_two_processes_are_fetched_once_and_by_one_of_them() -> None:
    pair = TwoProcesses()

    async def act() -> None:
        first = pair.reading(**part(0, MIB // 2 - 1))
        await pair.received(1)
        others = (pair.follow(**part(start, start + MIB // 2 - 1)) for start in (0, 4 * MIB))
        assert await asyncio.gather(*others) == [LARGE[: MIB // 2], LARGE[4 * MIB : 4 * MIB + MIB // 2]]
        assert await first == LARGE[: MIB // 2]
        _, duration = await seconds(pair.ended())
        assert duration < 1.5  # nobody wants anything any more

    pair.run(act())
    assert (pair.fetched, pair.fetched_by_the_second) == (MIB, 0)
    assert pair.count(DownloadStarted) == 0


def test_a_reader_of_the_whole_blob_makes_the_other_process_download_all_of_it() -> None:
    pair = TwoProcesses()

    async def act() -> bytes:
        first = pair.reading(**part(4 * MIB, 5 * MIB - 1))
        await pair.received(4 * MIB + 1, at=4 * MIB)
        got = await pair.follow()
        assert await first == LARGE[4 * MIB : 5 * MIB]
        return got

    assert pair.run(act()) == pair.stored == LARGE
    assert pair.fetched_by_the_second == 0
    assert pair.fetched < 1.02 * len(LARGE)


def test_a_follower_continues_with_the_missing_bytes_when_the_other_process_dies() -> None:
    pair = TwoProcesses()

    async def act() -> bytes:
        first = pair.reading()
        await pair.received(4 * MIB)
        second = asyncio.create_task(pair.follow(BOBS))
        while not pair.followed or pair.followed.present.length < 4 * MIB:  # noqa: ASYNC110 - nothing tells
            await asyncio.sleep(0.01)
        pair.service.parts.store().die()
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        return await second

    assert pair.run(act()) == pair.stored == LARGE
    assert 0 < pair.fetched_by_the_second < len(LARGE) - 4 * MIB + MIB


def test_a_reader_of_a_part_in_another_process_needs_a_permission_of_its_own() -> None:
    pair = TwoProcesses()

    async def act() -> None:
        first = pair.reading()
        await pair.received(2 * MIB)
        for header in (NOBODYS, "Bearer somebody's"):
            with pytest.raises(Unauthorized):
                await pair.follow(header, **part(0, 9))
        assert await pair.follow(BOBS, **part(0, 9)) == LARGE[:10]
        assert await first == LARGE

    pair.run(act())


def test_the_wants_of_a_reader_that_has_left_keep_no_download_running() -> None:
    pair = TwoProcesses()

    async def act() -> float:
        first = pair.reading(**part(0, 9))
        await pair.received(1)
        leaving = asyncio.create_task(pair.follow(**part(8 * MIB, 10 * MIB - 99999)))
        await pair.received(8 * MIB + 1, at=8 * MIB)
        assert await first == LARGE[:10]
        leaving.cancel()
        await asyncio.gather(leaving, return_exceptions=True)
        _, duration = await seconds(pair.ended())
        return duration

    assert pair.run(act()) < 1.2
    assert pair.fetched < 1.5 * MIB


def test_a_want_that_was_served_is_withdrawn() -> None:
    pair = TwoProcesses()

    async def act() -> None:
        first = pair.reading(**part(0, MIB // 2 - 1))
        await pair.received(1)
        others = [asyncio.create_task(pair.follow(**part(start, start + 9))) for start in (4 * MIB, 8 * MIB)]
        await asyncio.gather(*others)
        slow = asyncio.create_task(pair.follow(**part(0, MIB // 2 - 1)))
        await asyncio.sleep(0.1)
        (inode,) = pair.service.parts.store().disk.growing.values()
        wanted = [span.start for follower in inode.followers for span in follower.wants]
        assert len(wanted) == 1
        assert wanted[0] < MIB // 2
        assert await asyncio.gather(first, slow) == [LARGE[: MIB // 2]] * 2

    pair.run(act())
