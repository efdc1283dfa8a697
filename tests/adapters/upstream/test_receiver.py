"""Large bodies, which BodyReceiver receives instead of aiohttp."""

import asyncio
import random
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, suppress
from pathlib import Path
from typing import Any

import pytest
import uvloop

from adapters.upstream.response_protocol import SingleResponseHandler
from application.ports.upstream import ForwardedCredentials, UpstreamRequest
from domain.digest import Bytes
from domain.errors import UpstreamBroken, UpstreamTimedOut
from tests.adapters.upstream.authority import Authority
from tests.adapters.upstream.line import Line, line, parts, resources, upstream_at
from tests.adapters.upstream.wire import Heard, Say, WireServer, reply

MIB = 1024 * 1024
SMALL = b"small" * 20_000
LARGE = random.Random(1).randbytes(5 * MIB + 321)  # noqa: S311 - content, not a secret
_LONG = 512 * MIB
LOOPS = pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])

NewLoop = Callable[[], asyncio.AbstractEventLoop]


def run(loop: NewLoop, test: Any) -> Any:
    with asyncio.Runner(loop_factory=loop) as runner:
        return runner.run(test)


def pieces_of(one: Line, into: list[Bytes], pause: float = 0) -> AsyncIterator[Bytes]:
    async def pieces() -> AsyncIterator[Bytes]:
        async with one.parts.registry.open(
            UpstreamRequest(resources(one.upstream)["blob"], ForwardedCredentials())
        ) as answer:
            await asyncio.sleep(pause)
            async for piece in answer.pieces():
                into.append(piece)
                yield piece

    return pieces()


async def all_of(one: Line, pause: float = 0) -> bytes:
    """`pause`: seconds between the head and the body."""
    got: list[Bytes] = []
    async for _ in pieces_of(one, got, pause):
        pass
    return b"".join(got)


def whole(_: Heard) -> Say:
    return reply(body=LARGE)


def begun(then: str, size: int = 3 * MIB) -> Say:
    """Reads only the beginning of the body."""
    return Say(reply(200, ("Content-Length", str(len(LARGE))), body=LARGE[:size]).data, then)


@LOOPS
def test_a_large_body_is_complete_and_its_connection_is_reused(loop: NewLoop) -> None:
    async def go() -> None:
        async with line(whole) as one:
            for _ in range(3):
                assert await all_of(one) == LARGE
            assert one.server.connections == 1

    run(loop, go())


@LOOPS
def test_the_first_bytes_of_a_large_body_do_not_wait_for_more(loop: NewLoop, monkeypatch: pytest.MonkeyPatch) -> None:
    """aiohttp receives one piece. It would buffer 2 MiB of a body that arrives at once, before the client gets any."""
    received: list[int] = []
    by_aiohttp = SingleResponseHandler.data_received

    def data_received(self: SingleResponseHandler, data: bytes) -> None:
        received.append(len(data))
        by_aiohttp(self, data)

    monkeypatch.setattr(SingleResponseHandler, "data_received", data_received)

    async def go() -> None:
        async with line(whole) as one:
            for _ in range(3):  # the kernel buffers more on a connection that has been used
                received.clear()
                assert await all_of(one, 0.3) == LARGE
                assert sum(received) <= 512 * 1024

    run(loop, go())


@LOOPS
def test_a_large_body_through_tls(loop: NewLoop, tmp_path: Path) -> None:
    async def go() -> None:
        authority = Authority(tmp_path)
        async with WireServer(whole, authority.context()) as server, parts(ca_file=authority.certificate) as adapters:
            one = Line(server, adapters, upstream_at(server.url))
            for _ in range(2):
                assert await all_of(one) == LARGE
            assert server.connections == 1

    run(loop, go())


@LOOPS
@pytest.mark.parametrize(
    "head", [f"Content-Length: {_LONG}", "X-Length: unknown"], ids=["known length", "unknown length"]
)
def test_the_rest_of_a_body_that_is_not_read_any_more_is_not_received(loop: NewLoop, tmp_path: Path, head: str) -> None:
    """A server in Go goes on sending when the client ends TLS: it only notices that the connection is closed."""
    authority = Authority(tmp_path)
    sent = 0

    def serve(listener: socket.socket) -> None:
        nonlocal sent
        with listener.accept()[0] as accepted, authority.context().wrap_socket(accepted, server_side=True) as client:
            client.recv(64 * 1024)
            client.sendall(f"HTTP/1.1 200 OK\r\n{head}\r\n\r\n".encode())
            with suppress(OSError):
                while sent < _LONG:
                    client.sendall(bytes(MIB))
                    sent += MIB

    async def go(url: str) -> None:
        async with parts(ca_file=authority.certificate) as adapters, asyncio.timeout(30):
            request = UpstreamRequest(resources(upstream_at(url))["blob"], ForwardedCredentials())
            async with adapters.registry.open(request) as answer:
                await anext(aiter(answer.pieces()))
            await asyncio.to_thread(server.join)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = threading.Thread(target=serve, args=(listener,))
        server.start()
        run(loop, go(f"https://127.0.0.1:{listener.getsockname()[1]}"))
    assert sent <= 32 * MIB


@LOOPS
@pytest.mark.parametrize("then", ["close", "reset"])
def test_the_bytes_of_an_incomplete_body_are_returned_before_the_error(loop: NewLoop, then: str) -> None:
    async def go() -> None:
        async with line(lambda _: begun(then)) as one:
            got: list[Bytes] = []
            with pytest.raises(UpstreamBroken):
                async for _ in pieces_of(one, got):
                    pass
            content = b"".join(got)
            assert LARGE.startswith(content)
            if then == "close":  # a reset may discard what is under way
                assert len(content) == 3 * MIB
            one.server.script = whole
            assert await all_of(one) == LARGE

    run(loop, go())


@LOOPS
def test_silence_in_the_body_is_a_timeout(loop: NewLoop) -> None:
    async def go() -> None:
        async with line(lambda _: begun("hang"), read_timeout=0.3) as one:
            got: list[Bytes] = []
            with pytest.raises(UpstreamTimedOut):
                async for _ in pieces_of(one, got):
                    pass
            assert b"".join(got) == LARGE[: 3 * MIB]

    run(loop, go())


@LOOPS
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "TLS"])
def test_a_connection_lost_before_the_first_piece_is_noticed_at_once(
    loop: NewLoop, tmp_path: Path, *, tls: bool
) -> None:
    async def go() -> None:
        authority = Authority(tmp_path)
        server = WireServer(lambda _: begun("reset", 100_000), authority.context() if tls else None)
        async with server, parts(read_timeout=5, ca_file=authority.certificate) as adapters:
            one = Line(server, adapters, upstream_at(server.url))
            began = time.monotonic()
            with pytest.raises(UpstreamBroken):
                await all_of(one, 0.3)
            assert time.monotonic() - began < 4  # and not only when its time is over

    run(loop, go())


@LOOPS
def test_a_slow_reader_gets_the_whole_body(loop: NewLoop) -> None:
    """The timeout applies to the upstream, not to the reader."""

    async def go() -> None:
        async with line(whole, read_timeout=0.2) as one:
            got: list[Bytes] = []
            async for _ in pieces_of(one, got):
                if len(got) < 3:
                    await asyncio.sleep(0.4)
            assert b"".join(got) == LARGE

    run(loop, go())


@LOOPS
def test_a_reader_that_leaves_does_not_affect_the_next_request(loop: NewLoop) -> None:
    async def go() -> None:
        async with line(whole) as one:
            async with aclosing(pieces_of(one, [])) as pieces:  # type: ignore[type-var]
                await anext(pieces)
            assert await all_of(one) == LARGE
            assert one.server.connections == 2

    run(loop, go())


@LOOPS
def test_bytes_after_the_end_belong_to_no_response(loop: NewLoop) -> None:
    async def go() -> None:
        async with line(lambda _: Say(reply(body=LARGE).data + b"HTTP/1.1 200 OK\r\n\r\nmore")) as one:
            got: list[Bytes] = []
            async for _ in pieces_of(one, got):
                await asyncio.sleep(0.01)  # so that all has come before the last pieces are taken
            assert b"".join(got) == LARGE
            one.server.script = whole
            assert await all_of(one) == LARGE
            assert one.server.connections == 2

    run(loop, go())


def test_pieces_may_be_kept() -> None:
    async def go() -> None:
        async with line(whole) as one:
            got: list[Bytes] = []
            async for _ in pieces_of(one, got):
                await asyncio.sleep(0)
            assert max(map(len, got[1:])) <= MIB
            assert b"".join(got) == LARGE

    run(asyncio.new_event_loop, go())


@LOOPS
def test_a_kept_piece_keeps_its_bytes_while_later_bodies_are_received(loop: NewLoop) -> None:
    """The buffers of the other pieces are reused meanwhile."""

    async def go() -> None:
        async with line(whole) as one:
            kept: list[tuple[bytes, Bytes]] = []
            for body in (LARGE, LARGE[::-1], LARGE):
                one.server.script = lambda _, body=body: reply(body=body)
                position = 0
                async for piece in pieces_of(one, []):
                    if (position // MIB) % 2:
                        kept.append((body[position : position + len(piece)], piece))
                    position += len(piece)
            assert len(kept) > 3
            assert all(piece == expected for expected, piece in kept)

    run(loop, go())


def small_first(heard: Heard) -> Say:
    return reply(body=SMALL) if heard.target.endswith("/manifests/1") else whole(heard)


@LOOPS
def test_a_late_reader_of_an_earlier_response_takes_no_bytes_of_this_one(loop: NewLoop) -> None:
    """The earlier response is complete but unread, so aiohttp has given its connection to the next request."""

    async def go() -> None:
        async with line(small_first, read_timeout=3) as one:
            things = resources(one.upstream)
            async with one.parts.registry.open(UpstreamRequest(things["manifest"], ForwardedCredentials())) as earlier:
                await asyncio.sleep(0.2)
                async with one.parts.registry.open(UpstreamRequest(things["blob"], ForwardedCredentials())) as answer:
                    assert one.server.connections == 1
                    assert await earlier.read(len(SMALL)) == SMALL
                    await asyncio.sleep(0.2)
                    assert await answer.read(len(LARGE)) == LARGE
            assert await all_of(one) == LARGE

    run(loop, go())


@LOOPS
def test_a_response_tells_how_many_bytes_wait_to_be_read(loop: NewLoop) -> None:
    async def go() -> None:
        async with line(whole) as one:
            fetch = UpstreamRequest(resources(one.upstream)["blob"], ForwardedCredentials())
            async with one.parts.registry.open(fetch) as answer, asyncio.timeout(20):
                while answer.unread() < 64 * 1024:  # noqa: ASYNC110 - nothing tells when bytes arrive
                    await asyncio.sleep(0.01)
                assert len(b"".join([piece async for piece in answer.pieces()])) == len(LARGE)
                assert answer.unread() == 0

    run(loop, go())
