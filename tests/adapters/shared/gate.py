"""A relay in front of a server, which a test can make silent, close or count."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from functools import wraps
from typing import Any

PIECE = 65536


class Gate:
    """A TCP relay to `backend_port`, which may change for new connections. `is_silent`: it accepts connections and
    requests, and passes nothing on in either direction. `connections`: how many it has accepted; `requests`: how many
    pieces it has received from clients.
    """

    def __init__(self, backend_port: int) -> None:
        self.backend_port = backend_port
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self.port = 0
        self._opened = asyncio.Event()
        self._opened.set()
        self.connections = self.requests = 0

    @property
    def is_silent(self) -> bool:
        return not self._opened.is_set()

    @is_silent.setter
    def is_silent(self, value: bool) -> None:
        (self._opened.clear if value else self._opened.set)()

    def cut(self) -> None:
        """Reset all connections."""
        for writer in self._writers:
            writer.transport.abort()

    async def serve(self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self._tasks.add(task)
        self.connections += 1
        try:
            server, to_server = await asyncio.open_connection("127.0.0.1", self.backend_port)
        except OSError:
            to_client.transport.abort()
            return
        self._writers |= {to_client, to_server}
        try:
            await asyncio.gather(self._relay(client, to_server, is_up=True), self._relay(server, to_client))
        finally:
            for writer in (to_client, to_server):
                self._writers.discard(writer)
                writer.transport.abort()

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _relay(self, source: asyncio.StreamReader, target: asyncio.StreamWriter, *, is_up: bool = False) -> None:
        with suppress(OSError):
            while piece := await source.read(PIECE):
                self.requests += is_up
                await self._opened.wait()
                target.write(piece)
        target.close()


@asynccontextmanager
async def gate(backend_port: int, certificate: ssl.SSLContext | None = None) -> AsyncIterator[Gate]:
    """A relay to this port on loopback, with TLS if there is a certificate."""
    one = Gate(backend_port)
    listener = await asyncio.start_server(one.serve, "127.0.0.1", 0, ssl=certificate)
    one.port = listener.sockets[0].getsockname()[1]
    try:
        yield one
    finally:
        listener.close()
        await one.close()


def in_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Runs the test in an event loop of its own. Its parameters are fixtures."""

    @wraps(test)
    def run(*args: object, **kwargs: object) -> None:
        asyncio.run(test(*args, **kwargs))

    return run


async def seconds_of(work: Awaitable[object]) -> float:
    """How long this takes until it returns or fails."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    await asyncio.gather(work, return_exceptions=True)
    return loop.time() - began
