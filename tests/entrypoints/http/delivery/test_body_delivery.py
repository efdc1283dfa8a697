"""Bodies that break off, clients that leave, and connections that live on."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from application.ports.upstream import ResponseMetadata, UpstreamRequest, UpstreamResponse
from domain.digest import Digest
from domain.errors import UpstreamBroken
from tests.entrypoints.conftest import Start
from tests.entrypoints.service import Service, until
from tests.fakes.upstream import FakeAnswer, FakeUpstream

CONTENT = bytes(range(256)) * 1200  # five pieces
DIGEST = str(Digest.of(CONTENT))
PIECE = 64 * 1024
GET = f"GET /v2/team/app/blobs/{DIGEST} HTTP/1.1\r\nHost: a\r\n"


@dataclass
class CountingUpstream(FakeUpstream):
    """Knows how many of its answers are open."""

    open_now: int = 0

    @asynccontextmanager
    async def open(self, fetch: UpstreamRequest) -> AsyncIterator[UpstreamResponse]:
        async with super().open(fetch) as answer:
            self.open_now += 1
            try:
                yield answer
            finally:
                self.open_now -= 1


@dataclass
class EndlessAnswer:
    """A body that never ends; `waits` holds it up before its first piece."""

    metadata: ResponseMetadata
    waits: bool = False
    sent: int = 0
    closed: list[bool] = field(default_factory=list)

    async def pieces(self) -> AsyncIterator[bytes]:
        try:
            if self.waits:
                await asyncio.Event().wait()
            while True:
                yield bytes(PIECE)
                self.sent += 1
                await asyncio.sleep(0)
        finally:
            self.closed.append(True)

    async def read(self, limit: int) -> bytes:
        raise NotImplementedError


@pytest.fixture
def start(start: Start) -> Start:
    """Without a cache, which would continue downloads that fail or that the client leaves."""

    async def uncached(**settings: object) -> Service:
        return await start(cache_dir="off", **settings)

    return uncached


@pytest.fixture
def upstream() -> CountingUpstream:
    upstream = CountingUpstream()
    upstream.put_blob("team/app", CONTENT)
    return upstream


def _failing(fault: Exception, after: int, **metadata: object) -> Callable[[FakeAnswer], Any]:
    """The answer, but its body fails once this many pieces have gone."""

    class Failing(FakeAnswer):
        async def pieces(self) -> AsyncIterator[bytes]:
            left = after
            async for piece in super().pieces():
                if not left:
                    raise fault
                left -= 1
                yield piece

    return lambda answer: Failing(replace(answer.metadata, **metadata), answer.content)


def _unsized(answer: FakeAnswer) -> FakeAnswer:
    return replace(answer, metadata=replace(answer.metadata, size=None))


async def _nothing_left(upstream: CountingUpstream) -> None:
    """Waits until the service has let go of everything: the test's own task is left, and the service's upkeep: of the
    cache, of the history, of the pinned images, and of the bytes by upstream.
    """
    await until(lambda: not upstream.open_now and len(asyncio.all_tasks()) == 5)


async def test_large_body_arrives_as_one(start: Start) -> None:
    answer = await (await start()).ask(GET)
    assert (answer.status, answer.body == CONTENT, answer.get("transfer-encoding")) == (200, True, None)


async def test_body_of_unknown_length_comes_chunked(start: Start, upstream: CountingUpstream) -> None:
    upstream.alter = _unsized
    answer = await (await start()).ask(GET)
    assert (answer.is_whole, answer.body == CONTENT) == (True, True)
    assert (answer.get("transfer-encoding"), answer.get("content-length")) == ("chunked", None)


async def test_old_protocol_gets_no_chunks(start: Start, upstream: CountingUpstream) -> None:
    # RFC 9112 section 6.1: no Transfer-Encoding unless the request is of HTTP/1.1.
    upstream.alter = _unsized
    answer = await (await start()).ask(GET.replace("1.1", "1.0"))
    assert (answer.status, answer.get("transfer-encoding")) == (400, None)
    assert json.loads(answer.body)["errors"][0]["code"] == "UNSUPPORTED"
    await _nothing_left(upstream)


@pytest.mark.parametrize("size", [len(CONTENT), None])
@pytest.mark.parametrize(("fault", "status"), [(UpstreamBroken("cut"), 502), (OSError("inside"), 500)])
async def test_an_error_before_the_first_byte_is_a_json_response(
    start: Start, upstream: CountingUpstream, size: int | None, fault: Exception, status: int
) -> None:
    service = await start(fill_retries=0)
    for after in (0, 1):  # the newest piece is held back, so one has not left us yet
        upstream.alter = _failing(fault, after, size=size)
        answer = await service.ask(GET)
        assert (answer.status, answer.get("content-type"), answer.is_whole) == (status, "application/json", True)
        assert set(json.loads(answer.body)["errors"][0]) == {"code", "message", "detail"}
        assert (answer.get("etag"), answer.get("content-range")) == (None, None)


@pytest.mark.parametrize("size", [len(CONTENT), None])
@pytest.mark.parametrize("fault", [UpstreamBroken("cut"), OSError("inside")])
async def test_an_error_after_the_first_byte_aborts_the_connection(
    start: Start, upstream: CountingUpstream, size: int | None, fault: Exception
) -> None:
    upstream.alter = _failing(fault, 3, size=size)
    service = await start(fill_retries=0)
    async with service.wire() as wire:
        await wire.send(GET + "\r\n" + GET + "\r\n")
        answer = await wire.answer()
        assert (answer.status, answer.is_whole, len(answer.body) < len(CONTENT)) == (200, False, True)
        assert await wire.rest() == b""
    await _nothing_left(upstream)


@pytest.mark.slow
@pytest.mark.parametrize("size", [len(CONTENT), None])
@pytest.mark.parametrize("change", [lambda c: c + b"x", lambda c: c[:-1], lambda c: c[:-1] + b"x"])
async def test_wrong_content_is_never_complete(
    start: Start, upstream: CountingUpstream, size: int | None, change: Callable[[bytes], bytes]
) -> None:
    upstream.alter = lambda answer: FakeAnswer(replace(answer.metadata, size=size), change(answer.content))
    answer = await (await start()).ask(GET)
    assert (answer.status, answer.is_whole, len(answer.body) < len(CONTENT)) == (200, False, True)


async def test_small_wrong_content_is_an_error(start: Start, upstream: CountingUpstream) -> None:
    upstream.alter = lambda answer: FakeAnswer(replace(answer.metadata, size=5), b"wrong")
    answer = await (await start()).ask(GET)
    assert (answer.status, json.loads(answer.body)["errors"][0]["code"]) == (502, "UNAVAILABLE")


@pytest.mark.parametrize("alter", [lambda answer: answer, _unsized])
async def test_connection_lives_after_streamed_answers(
    start: Start, upstream: CountingUpstream, alter: Callable[[FakeAnswer], FakeAnswer]
) -> None:
    upstream.alter = alter
    service = await start()
    async with service.wire() as wire:
        for lines in ("", "Range: bytes=70000-270000\r\n", ""):
            await wire.send(GET + lines + "\r\n")
            answer = await wire.answer()
            assert answer.body == (CONTENT[70000:270001] if lines else CONTENT)
        await wire.send("GET /livez HTTP/1.1\r\nHost: a\r\n\r\n")
        assert (await wire.answer()).status == 200
    await _nothing_left(upstream)


async def test_empty_blob_keeps_the_connection(start: Start, upstream: CountingUpstream) -> None:
    empty = upstream.put_blob("team/app", b"")
    async with (await start()).wire() as wire:
        for alter in (lambda answer: answer, _unsized, lambda answer: answer):
            upstream.alter = alter
            await wire.send(f"GET /v2/team/app/blobs/{empty} HTTP/1.1\r\nHost: a\r\n\r\n")
            answer = await wire.answer()
            assert (answer.status, answer.body, answer.is_whole) == (200, b"", True)


@pytest.mark.parametrize("size", [10**12, None])
@pytest.mark.parametrize("waits", [False, True])
async def test_client_that_leaves_leaves_nothing_open(
    start: Start, upstream: CountingUpstream, size: int | None, *, waits: bool
) -> None:
    answers: list[EndlessAnswer] = []

    def endless(answer: FakeAnswer) -> Any:
        answers.append(EndlessAnswer(replace(answer.metadata, size=size), waits))
        return answers[-1]

    upstream.alter = endless
    service = await start()
    async with service.wire() as wire:
        await wire.send(GET + "\r\n")
        if not waits:
            await wire.reader.readexactly(1_000_000)
        await until(lambda: upstream.open_now == 1)
    await _nothing_left(upstream)
    assert answers[0].closed == [True]


async def test_slow_client_holds_the_upstream_up(start: Start, upstream: CountingUpstream) -> None:
    answers: list[EndlessAnswer] = []

    def endless(answer: FakeAnswer) -> Any:
        answers.append(EndlessAnswer(replace(answer.metadata, size=10**12)))
        return answers[-1]

    upstream.alter = endless
    service = await start()
    async with service.wire() as wire:
        await wire.send(GET + "\r\n")
        await wire.reader.readexactly(1000)
        await asyncio.sleep(0.2)
        taken = -1
        while taken != answers[0].sent:  # until the buffers between here and there are full
            taken = answers[0].sent
            assert taken * PIECE < 256 * 1024 * 1024
            await asyncio.sleep(0.2)
        await wire.reader.readexactly(taken * PIECE)
        await until(lambda: answers[0].sent > taken)
