"""Connections that arrive together, and connections that end while they are being opened."""

import asyncio
import socket
from collections.abc import Callable
from contextlib import ExitStack, closing
from typing import cast

import pytest
import uvloop

from entrypoints.http.connection.acceptor import Acceptor
from entrypoints.http.connection.connection_table import Connection, ConnectionLimits, ConnectionTable


class Recorded(asyncio.Protocol):
    """Implements the MirrorProtocol."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.transport: asyncio.Transport | None = None
        self.events: list[str] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's own class
        self.connection.abort = self.transport.abort
        self.events.append("made")

    def connection_lost(self, exc: Exception | None) -> None:
        self.connection.closed()
        self.events.append("lost")

    def data_received(self, data: bytes) -> None:
        assert self.transport
        self.transport.write(data)


def stop(acceptor: Acceptor, _: Recorded) -> None:
    acceptor.close()


def abort(_: Acceptor, protocol: Recorded) -> None:
    protocol.connection.abort()


@pytest.mark.parametrize("steps", range(6))
@pytest.mark.parametrize("end", [stop, abort])
def test_a_connection_that_ends_while_it_is_opened_leaves_nothing(
    end: Callable[[Acceptor, Recorded], None], steps: int
) -> None:
    """After each number of turns of the loop it is either open and answers, or gone: from the table as well, and the
    protocol that got the connection was notified of its end.
    """
    assert uvloop.run(asyncio.wait_for(_accepted_and_ended(end, steps), 10))


async def _accepted_and_ended(end: Callable[[Acceptor, Recorded], None], steps: int) -> bool:
    made: list[Recorded] = []

    def make(*, connection: Connection) -> Recorded:
        made.append(Recorded(connection))
        return made[0]

    table = ConnectionTable(lambda: ConnectionLimits(60.0, 10, 10))
    with socket.create_server(("127.0.0.1", 0)) as listening, closing(socket.socket()) as client:
        acceptor = Acceptor([listening], table, make, is_exempt=lambda _: False)  # type: ignore[arg-type]
        client.connect(listening.getsockname())
        client.setblocking(False)
        while not made:  # noqa: ASYNC110 - the steps of the loop are what the test counts
            await asyncio.sleep(0)
        for _ in range(steps):
            await asyncio.sleep(0)
        end(acceptor, made[0])
        await asyncio.sleep(0.05)
        is_right = await _is_right(table, client, made[0], is_stop=end is stop)
        acceptor.close()
        if made[0].transport:
            made[0].transport.abort()
        await asyncio.sleep(0.05)
        return is_right


async def _is_right(table: ConnectionTable, client: socket.socket, protocol: Recorded, *, is_stop: bool) -> bool:
    loop = asyncio.get_running_loop()
    if not len(table):
        return await loop.sock_recv(client, 1) == b"" and protocol.events in ([], ["made", "lost"])
    await loop.sock_sendall(client, b"x")
    return is_stop and await loop.sock_recv(client, 1) == b"x" and protocol.events == ["made"]


def test_connections_that_arrive_together_are_shared_by_the_workers() -> None:
    """A client with a pool of connections opens them at once, and then each worker should have a part of them."""
    assert min(uvloop.run(asyncio.wait_for(_accepted_by_two(20), 10))) >= 8


async def _accepted_by_two(number: int) -> list[int]:
    """How many of the connections each of two acceptors gets. They wait when the acceptors begin."""
    tables = [ConnectionTable(lambda: ConnectionLimits(60.0, 100, 100)) for _ in range(2)]
    with ExitStack() as stack:
        listening = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        for _ in range(number):
            stack.enter_context(socket.create_connection(listening.getsockname()))
        acceptors = [Acceptor([listening], table, Recorded, is_exempt=lambda _: False) for table in tables]  # type: ignore[arg-type]
        while sum(map(len, tables)) < number:  # noqa: ASYNC110 - nothing tells it
            await asyncio.sleep(0)
        counts = [len(table) for table in tables]
        for acceptor in acceptors:
            acceptor.close()
    while any(map(len, tables)):  # noqa: ASYNC110 - the same
        await asyncio.sleep(0)
    return counts
