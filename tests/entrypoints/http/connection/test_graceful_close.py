"""A connection ends when the client has received everything, with TLS and without."""

import asyncio
import os
import socket
import ssl
import time
from collections.abc import Callable, Coroutine
from functools import partial
from itertools import count
from typing import Any, cast

import pytest
import uvloop
from sanic import Sanic

from entrypoints.http.connection.connection_protocol import MirrorProtocol
from entrypoints.http.connection.connection_table import ConnectionLimits, ConnectionTable
from entrypoints.http.connection.graceful_close import GracefulClose
from tests.e2e.support.certificates import PrivateAuthority, make_authority

CONTENT = os.urandom(300_000)
LITTLE = 60_000
WINDOW = 16 * 1024
SOON = 2.0
"""Seconds. A transport of asyncio or uvloop alone waits for 30 seconds for a client that does not end TLS."""
LONG = 60.0

pytestmark = pytest.mark.slow
_NUMBERS = count()


class Sender(asyncio.Protocol):
    """Sends the content and closes."""

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self.ended: asyncio.Future[float] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        sending = cast("asyncio.Transport", transport)  # uvloop's own class
        sending.write(CONTENT)
        GracefulClose(asyncio.get_running_loop(), sending, self.ended.done, self._patience)

    def connection_lost(self, exc: Exception | None) -> None:
        self.ended.set_result(time.monotonic())


class MirrorSender(MirrorProtocol):
    """Sends a little, so that the TLS transport has nothing to write when it is closed, and the TCP transport has."""

    __slots__ = ("ended",)

    def __init__(self, patience: float) -> None:
        loop = asyncio.get_running_loop()
        app = Sanic(f"closing-{next(_NUMBERS)}", configure_logging=False)
        app.config.update({"RESPONSE_TIMEOUT": patience})
        table = ConnectionTable(lambda: ConnectionLimits(timeout=patience, connections=1, waiting=1))
        super().__init__(loop=loop, app=app, connection=table.open(None, lambda: None))
        self.ended: asyncio.Future[float] = loop.create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        cast("asyncio.Transport", transport).write(CONTENT[:LITTLE])
        self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.ended.set_result(time.monotonic())


Client = Callable[[socket.socket], bytes]


Run = Callable[[Coroutine[Any, Any, tuple[bytes, float]]], tuple[bytes, float]]


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    def go(test: Coroutine[Any, Any, tuple[bytes, float]]) -> tuple[bytes, float]:
        with asyncio.Runner(loop_factory=request.param) as runner:
            return runner.run(test)

    return go


async def received(
    client: Client, patience: float, tls: ssl.SSLContext | None, make: Callable[[float], Sender | MirrorSender] = Sender
) -> tuple[bytes, float]:
    """What the client returns, and the seconds between then and the end of the connection at the sender."""
    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0)) as listening, socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, WINDOW)
        connection.settimeout(20)
        connection.connect(listening.getsockname())
        accepted, _ = listening.accept()
        accepted.setblocking(False)
        accepted.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, WINDOW)
        sender = make(patience)
        reading = asyncio.create_task(asyncio.to_thread(client, connection))
        await loop.connect_accepted_socket(lambda: sender, accepted, ssl=tls)
        content = await reading
        before = time.monotonic()
        return content, await asyncio.wait_for(sender.ended, 20) - before


def slowly(connection: socket.socket) -> bytes:
    """Read everything, with pauses."""
    content = bytearray()
    while piece := connection.recv(8192):
        content += piece
        time.sleep(0.01)
    return bytes(content)


def over_tls(trusting: ssl.SSLContext, connection: socket.socket) -> bytes:
    with trusting.wrap_socket(connection, server_hostname="127.0.0.1") as secure:
        return slowly(secure)


def without_end(trusting: ssl.SSLContext, connection: socket.socket) -> bytes:
    """Read the content, and neither send close_notify nor close the connection."""
    secure = trusting.wrap_socket(connection.dup(), server_hostname="127.0.0.1")
    content = bytearray()
    while len(content) < len(CONTENT) and (piece := secure.recv(8192)):
        content += piece
    secure.detach()
    return bytes(content)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> PrivateAuthority:
    return make_authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def trusting(authority: PrivateAuthority) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(authority.certificate))


@pytest.fixture
def serving(authority: PrivateAuthority) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority.server.certificate, authority.server.key)
    return context


def test_a_slow_client_receives_everything(run: Run) -> None:
    assert run(received(slowly, LONG, None))[0] == CONTENT


def test_a_slow_client_with_tls_receives_everything(
    run: Run, trusting: ssl.SSLContext, serving: ssl.SSLContext
) -> None:
    assert run(received(partial(over_tls, trusting), LONG, serving))[0] == CONTENT


def test_the_protocol_of_the_mirror_loses_nothing(run: Run, trusting: ssl.SSLContext, serving: ssl.SSLContext) -> None:
    content, seconds = run(received(partial(over_tls, trusting), LONG, serving, MirrorSender))
    assert content == CONTENT[:LITTLE]
    assert seconds < SOON


def test_the_connection_ends_without_close_notify_of_the_client(
    run: Run, trusting: ssl.SSLContext, serving: ssl.SSLContext
) -> None:
    content, seconds = run(received(partial(without_end, trusting), LONG, serving))
    assert content == CONTENT
    assert seconds < SOON


def test_the_connection_of_a_client_that_does_not_read_ends(run: Run) -> None:
    content, seconds = run(received(lambda _: b"", 0.5, None))
    assert content == b""
    assert 0.4 < seconds < 0.5 + SOON
