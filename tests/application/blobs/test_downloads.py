"""Many want one blob at the same time: it is fetched once, for each who may have it."""

import asyncio
from typing import Any

import pytest

from domain.byte_ranges import ByteRange
from domain.errors import RangeUnsatisfiable, Unauthorized
from domain.events import BytesFetched, ContentRequested, DownloadJoined, DownloadStarted
from domain.records import ContentKind
from domain.tokens import IssuedToken
from tests.application.support.crowd import Crowd
from tests.application.support.service import ALICE, NAME, PRIVATE
from tests.application.support.watched import (
    ALICES,
    ALICES_OTHER,
    BIG,
    BIG_DIGEST,
    BOBS,
    NOBODYS,
    PIECE,
    challenged,
    dripping,
    held,
    soon,
)


@pytest.mark.parametrize("scheme", ["none", "bearer"])
def test_any_number_of_clients_share_one_download(scheme: str) -> None:
    crowd = Crowd(scheme)
    header = ALICES if scheme == "bearer" else None

    async def act() -> list[bytes]:
        return await asyncio.gather(*(crowd.read(header) for _ in range(30)))

    assert crowd.run(act()) == [BIG] * 30
    assert [fetch.head for fetch in crowd.upstream.asked] == ([True, False] if scheme == "bearer" else [False])
    assert (crowd.count(DownloadStarted), crowd.count(DownloadJoined)) == (1, 29)
    assert sum(event.count for event in crowd.service.events if isinstance(event, BytesFetched)) == len(BIG)
    asked = [event for event in crowd.service.events if isinstance(event, ContentRequested)]
    assert asked == [ContentRequested(ContentKind.BLOB, is_hit=False)] * 30


def test_another_caller_proves_its_permission_by_head_and_joins() -> None:
    crowd = Crowd()

    async def act() -> list[bytes]:
        gate = held(crowd.upstream)
        first = crowd.read()
        await crowd.under_way()
        second = crowd.read(BOBS)
        await soon(lambda: len(crowd.upstream.asked) == 3)
        gate.set()
        return await asyncio.gather(first, second)

    assert crowd.run(act()) == [BIG, BIG]
    assert [fetch.head for fetch in crowd.upstream.asked] == [True, False, True]
    assert "bob" in repr(crowd.upstream.asked[2].credentials.raw)


def test_a_caller_that_the_upstream_refuses_does_not_join() -> None:
    crowd = Crowd()

    async def act() -> bytes:
        gate = held(crowd.upstream)
        first = crowd.read()
        await crowd.under_way()
        for header in (NOBODYS, "Bearer somebody's"):
            with pytest.raises(Unauthorized):
                await crowd.read(header)
        assert not first.done()
        gate.set()
        return await first

    assert crowd.run(act()) == BIG


def test_a_caller_that_the_upstream_refuses_does_not_learn_the_size() -> None:
    """An answer of 416 tells that somebody fetches this blob, and how long it is."""
    crowd = Crowd()

    async def act() -> None:
        gate = held(crowd.upstream)
        first = crowd.read()
        await crowd.under_way()
        try:
            with pytest.raises(Unauthorized):
                await crowd.read(NOBODYS, ranges=(ByteRange(10**9, None),))
            with pytest.raises(RangeUnsatisfiable):
                await crowd.read(ALICES, ranges=(ByteRange(10**9, None),))
        finally:
            gate.set()
            await first

    crowd.run(act())


def test_a_client_of_another_repository_needs_a_permission_there() -> None:
    crowd = Crowd()

    async def act() -> list[bytes]:
        gate = held(crowd.upstream)
        first = crowd.read()
        await crowd.under_way()
        second = crowd.read(ALICES, name=NAME)
        await soon(lambda: len(crowd.upstream.asked) == 3)
        gate.set()
        return await asyncio.gather(first, second)

    assert crowd.run(act()) == [BIG, BIG]
    assert crowd.upstream.asked[2].resource.path.startswith(f"{NAME}/")
    assert crowd.upstream.asked[2].head


def test_a_caller_that_lost_its_permission_does_not_join_its_own_download_again() -> None:
    """Only the starter's own GET is its own proof; a later one needs what a hit needs."""
    crowd = Crowd(grant_ttl=300)

    async def act() -> None:
        gate = held(crowd.upstream)
        first = crowd.read()
        await crowd.under_way()
        crowd.service.clock.advance(301)
        crowd.upstream.refuse = lambda _: challenged()
        second = crowd.read(ALICES)
        await asyncio.sleep(0.05)
        gate.set()
        assert await first == BIG
        with pytest.raises(Unauthorized):
            await second

    crowd.run(act())


def test_an_expired_token_joins_no_download() -> None:
    """The same user's other token is good, this one is not: a cache hit would be checked again."""
    crowd = Crowd()

    async def act() -> None:
        now = int(crowd.service.clock.now())
        await crowd.service.parts.caller_identities().remember(ALICE, IssuedToken(ALICES_OTHER[7:], 10, now))
        gate = held(crowd.upstream)
        first = crowd.read()
        await crowd.under_way()
        crowd.service.clock.advance(11)
        crowd.upstream.refuse = lambda fetch: challenged() if fetch.credentials.raw == ALICES_OTHER else None
        second = crowd.read(ALICES_OTHER)
        await asyncio.sleep(0.05)
        gate.set()
        assert await first == BIG
        with pytest.raises(Unauthorized):
            await second

    crowd.run(act())


def test_the_first_client_may_leave() -> None:
    crowd = Crowd()

    async def act() -> bytes:
        gate = held(crowd.upstream)
        first = crowd.read()
        await crowd.under_way()
        second = crowd.read()
        await soon(lambda: crowd.download.readers == 2)
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        gate.set()
        return await second

    assert crowd.run(act()) == BIG
    assert [fetch.head for fetch in crowd.upstream.asked] == [True, False]


def test_the_download_continues_after_its_only_client_leaves() -> None:
    crowd = Crowd()

    async def act() -> bytes:
        gate = held(crowd.upstream)
        first = crowd.read()
        await crowd.under_way()
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        gate.set()
        await soon(lambda: BIG_DIGEST in crowd.service.parts.store().content)
        crowd.upstream.asked.clear()
        return await crowd.read()

    assert crowd.run(act()) == BIG
    assert crowd.upstream.asked == []


def test_a_download_without_a_reader_ends_after_a_while_and_can_be_continued() -> None:
    crowd = Crowd()

    async def act() -> bytes:
        held(crowd.upstream)
        first = crowd.read()
        await crowd.under_way()
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        downloads = crowd.service.parts.downloads()
        downloads.end_abandoned()
        crowd.service.clock.advance(299)
        downloads.end_abandoned()
        assert crowd.download
        crowd.service.clock.advance(2)
        downloads.end_abandoned()
        await soon(lambda: crowd.download is None)
        return await crowd.read()

    assert crowd.run(act()) == BIG
    assert crowd.upstream.asked[-1].byte_range == ByteRange(2 * PIECE, None)


def test_a_download_with_a_reader_is_not_ended() -> None:
    crowd = Crowd()

    async def act() -> bytes:
        gate = held(crowd.upstream)
        first = crowd.read()
        await crowd.under_way()
        for _ in range(3):
            crowd.service.parts.downloads().end_abandoned()
            crowd.service.clock.advance(1000)
        gate.set()
        return await first

    assert crowd.run(act()) == BIG


def test_a_piece_is_readable_soon_however_slow_the_next_one_is() -> None:
    crowd = Crowd()

    async def act() -> None:
        gates = dripping(crowd.upstream, 4)
        first = crowd.read()
        seen = []
        for number, gate in enumerate(gates):
            await asyncio.sleep(0.05)  # far longer than a batch waits for more
            seen.append((number + 1, crowd.download.readable_from(0, is_part=False) // PIECE))
            gate.set()
        assert await first == BIG
        assert seen == [(1, 1), (2, 2), (3, 3), (4, 4)]

    crowd.run(act())


def test_the_last_byte_waits_for_the_digest() -> None:
    crowd = Crowd()

    async def act() -> set[int]:
        held(crowd.upstream).set()
        first, seen = crowd.read(), set()
        while not first.done():
            if (download := crowd.download) and download.present.length == len(BIG):
                seen.add(download.readable_from(0, is_part=False))
            await asyncio.sleep(0)
        assert await first == BIG
        return seen

    assert crowd.run(act()) == {len(BIG) - 1}


def test_a_small_blob_is_one_piece() -> None:
    crowd = Crowd()
    small = crowd.upstream.put_blob(str(PRIVATE), b"small")
    empty = crowd.upstream.put_blob(str(PRIVATE), b"")

    async def act() -> tuple[bytes, bytes]:
        return await crowd.read(digest=small), await crowd.read(digest=empty)

    assert crowd.run(act()) == (b"small", b"")
    assert {b"small", b""} <= set(crowd.service.parts.store().content.values())


def test_no_file_stays_open() -> None:
    crowd = Crowd()

    async def act() -> Any:
        gate = held(crowd.upstream)
        readers = [crowd.read() for _ in range(3)]
        await crowd.under_way()
        download = crowd.download
        readers[0].cancel()
        gate.set()
        await asyncio.gather(*readers, return_exceptions=True)
        await crowd.read()
        return download

    download = crowd.run(act())
    assert download._files == []
