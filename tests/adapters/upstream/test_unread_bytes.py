"""Bytes after a response are never read as the response to the next request."""

import asyncio
import random
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import uvloop
from aiohttp.client_proto import ResponseHandler

from adapters.upstream.response_protocol import SingleResponseHandler, use_single_response_handler
from application.ports.upstream import ForwardedCredentials, UpstreamRequest
from domain.errors import RegistryError
from tests.adapters.upstream.authority import Authority
from tests.adapters.upstream.line import CONTENT, Line, in_loop, line, parts, resources, upstream_at
from tests.adapters.upstream.relays import Relay, SocksProxy, TunnelProxy
from tests.adapters.upstream.wire import LATE_SECONDS, Heard, Say, WireServer, reply

LARGE = random.Random(5).randbytes(3 * 1024 * 1024)  # noqa: S311 - content, not a secret
FORGED = reply(200, ("Content-Type", "a/b"), body=b"an unrequested response").data
LOOPS = pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])

NewLoop = Callable[[], asyncio.AbstractEventLoop]
CHUNKED = b"HTTP/1.1 200 Said\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
FIRST = {
    "length": reply(body=b"hello").data,
    "empty": reply(body=b"").data,
    "chunked": CHUNKED,
    "204": b"HTTP/1.1 204 Said\r\n\r\n",
    "304": b"HTTP/1.1 304 Said\r\n\r\n",
    "099": b"HTTP/1.1 099 Said\r\nContent-Length: 0\r\n\r\n",
    "401": reply(401, ("WWW-Authenticate", "Basic"), body=b"{}").data,
    "large": reply(body=LARGE).data,
}
BODIES = {"length": b"hello", "empty": b"", "chunked": b"hello", "large": LARGE}
"""The other responses are not successful."""
EXCESS = {
    "a whole answer": FORGED,
    "two answers": FORGED * 2,
    "the beginning of an answer": FORGED[:20],
    "a head without its body": FORGED[: FORGED.index(b"an unrequested")],
    "one byte": b"x",
    "empty lines": b"\r\n\r\n",
    "an interim answer": b"HTTP/1.1 100 Continue\r\n\r\n",
}


def run(loop: NewLoop, test: Any) -> None:
    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(test)


async def ask(one: Line, *, head: bool = False) -> bytes | None:
    """The body; None if the response is not successful."""
    try:
        return (await one.fetch(head=head))[1]
    except RegistryError:
        return None


def answering(first: bytes, excess: bytes, *, late: bool) -> Callable[[Heard], Say]:
    """Only the first response has excess bytes."""
    said: list[Heard] = []

    def script(heard: Heard) -> Say:
        said.append(heard)
        if len(said) == 1:
            return Say(first, late=excess) if late else Say(first + excess)
        return reply(body=b"" if heard.method == "HEAD" else CONTENT)

    return script


@LOOPS
@pytest.mark.parametrize("excess", EXCESS)
@pytest.mark.parametrize("first", FIRST)
@pytest.mark.parametrize("late", [False, True], ids=["at once", "late"])
def test_a_connection_with_excess_bytes_is_not_reused(loop: NewLoop, first: str, excess: str, *, late: bool) -> None:
    async def go() -> None:
        async with line(answering(FIRST[first], EXCESS[excess], late=late), read_timeout=2) as one:
            got = await ask(one)
            # Where the parser gets an answer and what is none in one piece, it gives neither.
            assert got == BODIES.get(first) or (got is None and (excess, late) == ("one byte", False))
            if late:
                await asyncio.sleep(2 * LATE_SECONDS)
            for _ in range(2):
                assert await ask(one) == CONTENT
            connections = [heard.connection for heard in one.server.heard]
            # The parser reads over empty lines.
            assert connections == [0, 1, 1] or (connections == [0, 0, 0] and (excess, late) == ("empty lines", False))

    run(loop, go())


@LOOPS
@pytest.mark.parametrize("excess", EXCESS)
def test_excess_bytes_after_a_redirect_are_not_the_next_response(loop: NewLoop, excess: str) -> None:
    async def go() -> None:
        moved = reply(307, ("Location", "/moved"), body=b"moved").data
        async with line(answering(moved, EXCESS[excess], late=False), read_timeout=2) as one:
            assert await ask(one) == (None if excess == "one byte" else CONTENT)
            assert await ask(one) == CONTENT
            asked = [(heard.target, heard.connection) for heard in one.server.heard]
            assert ("/moved", 0) not in asked or excess == "empty lines"

    run(loop, go())


@LOOPS
@pytest.mark.parametrize("late", [False, True], ids=["at once", "late"])
@pytest.mark.parametrize("body", [CONTENT, FORGED, b"{}"])
def test_a_body_after_the_response_to_a_head_is_not_the_next_response(
    loop: NewLoop, body: bytes, *, late: bool
) -> None:
    head = reply(200, ("Content-Length", str(len(body)))).data

    async def go() -> None:
        async with line(answering(head, body, late=late), read_timeout=2) as one:
            metadata, _ = await one.fetch(head=True)
            assert metadata.size == len(body)
            if late:
                await asyncio.sleep(2 * LATE_SECONDS)
            for _ in range(2):
                assert await ask(one) == CONTENT
            assert [heard.connection for heard in one.server.heard if heard.method == "GET"] == [1, 1]

    run(loop, go())


@LOOPS
@pytest.mark.parametrize("first", FIRST)
def test_a_connection_without_excess_bytes_is_reused(loop: NewLoop, first: str) -> None:
    async def go() -> None:
        async with line(answering(FIRST[first], b"", late=False), read_timeout=2) as one:
            assert await ask(one) == BODIES.get(first)
            for _ in range(2):
                assert await ask(one) == CONTENT
            assert one.server.connections == 1

    run(loop, go())


@LOOPS
@pytest.mark.parametrize("late", [False, True], ids=["at once", "late"])
@pytest.mark.parametrize("first", ["length", "large"])
def test_excess_bytes_inside_tls(loop: NewLoop, tmp_path: Path, first: str, *, late: bool) -> None:
    async def go() -> None:
        authority, script = Authority(tmp_path), answering(FIRST[first], FORGED, late=late)
        async with (
            WireServer(script, authority.context()) as server,
            parts(2, ca_file=authority.certificate) as adapters,
        ):
            one = Line(server, adapters, upstream_at(server.url))
            assert await ask(one) == BODIES[first]
            if late:
                await asyncio.sleep(2 * LATE_SECONDS)
            for _ in range(2):
                assert await ask(one) == CONTENT
            assert [heard.connection for heard in server.heard] == [0, 1, 1]

    run(loop, go())


@LOOPS
@pytest.mark.parametrize("relay", [TunnelProxy, SocksProxy], ids=["tunnel", "socks"])
@pytest.mark.parametrize("late", [False, True], ids=["at once", "late"])
def test_excess_bytes_behind_a_proxy(loop: NewLoop, tmp_path: Path, relay: type[Relay], *, late: bool) -> None:
    async def go() -> None:
        authority, script = Authority(tmp_path), answering(FIRST["length"], FORGED, late=late)
        async with (
            WireServer(script, authority.context()) as server,
            relay() as proxy,
            parts(2, ca_file=authority.certificate, proxy=proxy.url()) as adapters,
        ):
            one = Line(server, adapters, upstream_at(server.url))
            assert await ask(one) == BODIES["length"]
            await asyncio.sleep(3 * LATE_SECONDS)
            for _ in range(2):
                assert await ask(one) == CONTENT
            assert [heard.connection for heard in server.heard] == [0, 1, 1]

    run(loop, go())


class Threaded:
    """A server in a thread, on raw sockets: it sends while the loop of those who ask stands still."""

    def __init__(self, first: bytes) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.first = first
        self.connections = 0
        self.has_more = threading.Event()
        self.has_sent = threading.Event()
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def _serve(self) -> None:
        for number in range(2):
            connection, _ = self._listener.accept()
            self.connections += 1
            with connection, suppress(ConnectionError):
                self._answer(connection, number)

    def _answer(self, connection: socket.socket, number: int) -> None:
        while connection.recv(65536):
            is_first = not number and not self.has_sent.is_set()
            connection.sendall(self.first if is_first else reply(body=CONTENT).data)
            if is_first and self.has_more.wait(10):
                connection.sendall(FORGED)
                self.has_sent.set()

    def close(self) -> None:
        self._listener.close()
        self.thread.join(10)


@LOOPS
@pytest.mark.parametrize("first", ["length", "chunked", "204", "large"])
def test_excess_bytes_that_were_not_read_yet_are_noticed_before_the_next_request(loop: NewLoop, first: str) -> None:
    server = Threaded(FIRST[first])

    async def go() -> None:
        upstream = upstream_at(f"http://127.0.0.1:{server.port}")
        async with parts(2) as adapters:

            async def get() -> bytes | None:
                try:
                    async with adapters.registry.open(
                        UpstreamRequest(resources(upstream)["blob"], ForwardedCredentials())
                    ) as answer:
                        return await answer.read(8 * 1024 * 1024)
                except RegistryError:
                    return None

            assert await get() == BODIES.get(first)
            server.has_more.set()
            assert server.has_sent.wait(10)  # the loop stands still meanwhile
            time.sleep(0.05)  # noqa: ASYNC251 - as it should
            assert await get() == CONTENT
            assert server.connections == 2

    run(loop, go())
    server.close()


@in_loop
async def test_every_new_connection_uses_the_single_response_handler() -> None:
    async with aiohttp.TCPConnector() as connector:
        use_single_response_handler(connector)
        assert isinstance(connector._factory(), SingleResponseHandler)


@pytest.mark.parametrize("factory", [None, lambda: ResponseHandler(asyncio.get_running_loop())], ids=["none", "other"])
@in_loop
async def test_an_unknown_way_of_aiohttp_to_create_protocols_is_an_error(factory: Any) -> None:
    async with aiohttp.TCPConnector() as connector:
        if factory is None:
            del connector._factory
        else:
            connector._factory = factory
        with pytest.raises(RuntimeError, match="aiohttp"):
            use_single_response_handler(connector)
