"""The first bytes of a blob reach its readers before they are stored."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from application.access.access_request import FOREVER, Caller, PullAccess
from application.blobs.blob_query import BlobQuery
from application.blobs.download import Download, PartialBlobLost
from application.ports.index import CallerIdentity
from application.ports.upstream import ForwardedCredentials
from domain.authorization import parse_authorization
from domain.digest import Bytes
from domain.errors import UpstreamBroken
from domain.records import ANONYMOUS_CALLER
from domain.span_set import SpanSet
from domain.upstreams import Source
from tests.application.support.crowd import Crowd
from tests.application.support.service import PRIVATE, REALM, bytes_of
from tests.application.support.watched import ALICES, BIG, BIG_DIGEST, PIECE, held
from tests.fakes.storage import MemoryPartialBlob


@asynccontextmanager
async def reading(crowd: Crowd) -> AsyncIterator[AsyncIterator[bytes]]:
    caller = Caller(parse_authorization(ALICES), REALM)
    async with crowd.service.parts.pull_blob().open(caller, BlobQuery(PRIVATE, BIG_DIGEST)) as answer:
        assert answer.pieces
        yield (bytes_of(piece) async for piece in answer.pieces)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    """Each write waits until the event is set."""
    is_free, write = asyncio.Event(), MemoryPartialBlob.write

    async def waiting(
        self: MemoryPartialBlob,
        offset: int,
        pieces: deque[Bytes],
        expects_more: Callable[[], bool],
        has_grown: Callable[[], None],
    ) -> int:
        await is_free.wait()
        return await write(self, offset, pieces, expects_more, has_grown)

    monkeypatch.setattr(MemoryPartialBlob, "write", waiting)
    return is_free


def test_a_reader_receives_them_while_the_disk_is_busy(disk: asyncio.Event) -> None:
    crowd = Crowd()

    async def act() -> None:
        async with reading(crowd) as pieces:
            received = await asyncio.wait_for(anext(pieces), 10)
            assert received == BIG[: len(received)]
            assert not crowd.download.present
            disk.set()
            assert received + b"".join([piece async for piece in pieces]) == BIG

    crowd.run(act())


@pytest.mark.parametrize("is_wrong", [False, True])
def test_a_disk_that_then_is_full_costs_the_reader_nothing(disk: asyncio.Event, *, is_wrong: bool) -> None:
    """The reader fetches the rest alone. Its digest is verified together with the first bytes, which no file has."""
    crowd = Crowd()

    async def act() -> bytes:
        async with reading(crowd) as pieces:
            received = await asyncio.wait_for(anext(pieces), 10)
            crowd.service.parts.store().capacity = 1
            if is_wrong:
                crowd.upstream.blobs[str(PRIVATE), str(BIG_DIGEST)] = b"!" + BIG[1:-1] + b"!"
            disk.set()
            async for piece in pieces:
                received += piece
            (rest,) = [fetch.byte_range.first for fetch in crowd.upstream.gets if fetch.byte_range]
            assert rest == PIECE  # the reader is not sent the beginning again
        return received

    if is_wrong:
        with pytest.raises(UpstreamBroken, match="digest"):
            crowd.run(act())
    else:
        assert crowd.run(act()) == BIG
    assert crowd.service.parts.store().content == {}


def test_readers_that_come_later_read_what_is_stored() -> None:
    crowd = Crowd()

    async def act() -> list[bytes]:
        gate = held(crowd.upstream)
        first = crowd.read()
        await crowd.under_way()
        assert crowd.download.first_bytes is None
        second = crowd.read()
        gate.set()
        return await asyncio.gather(first, second)

    assert crowd.run(act()) == [BIG, BIG]


def test_other_first_bytes_are_not_joined_to_those_that_a_reader_has() -> None:
    crowd = Crowd()

    async def act() -> None:
        source = Source(crowd.service.parts.upstream(), PRIVATE)
        access = PullAccess(CallerIdentity(ANONYMOUS_CALLER, FOREVER), ForwardedCredentials(), source)
        download = Download(BIG_DIGEST, access)
        download.expect(len(BIG))
        with download.reading(), download.wanting([]):
            download.arrive(b"first")
            with pytest.raises(PartialBlobLost):
                download.arrive(b"other")
            download.grow(SpanSet.up_to(5))
            assert not download.first_bytes

    crowd.run(act())
