"""A server that sends exactly the given bytes, and ends connections in every way."""

import asyncio
import ssl
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Self

_LIMIT = 512 * 1024
LATE_SECONDS = 0.05


@dataclass(frozen=True)
class Heard:
    """One request: the `turn`-th of the `connection`-th connection, both from 0."""

    method: str
    target: str
    headers: tuple[tuple[str, str], ...]
    body: bytes
    connection: int
    turn: int

    def lines(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key.lower() == name.lower()]

    def header(self, name: str) -> str | None:
        return next(iter(self.lines(name)), None)


@dataclass(frozen=True)
class Say:
    """The bytes of a response. `then`: what happens to the connection afterwards: "keep", "close", "reset" or "hang".
    `late`: further bytes, which are sent when the client has received the response.
    """

    data: bytes = b""
    then: str = "keep"
    late: bytes = b""


Headers = tuple[tuple[str, str], ...]


def reply(status: int = 200, *headers: tuple[str, str], body: bytes = b"", then: str = "keep") -> Say:
    """A complete response. Content-Length is the length of `body` unless a header replaces it."""
    named = {name.lower() for name, _ in headers}
    if not named & {"content-length", "transfer-encoding"}:
        headers = (*headers, ("Content-Length", str(len(body))))
    lines = [f"HTTP/1.1 {status} Said", *(f"{name}: {value}" for name, value in headers), "", ""]
    return Say("\r\n".join(lines).encode() + body, then)


def whole(heard: Heard, content: bytes, *headers: tuple[str, str]) -> Say:
    """The response with the content, or its headers for a HEAD."""
    length = ("Content-Length", str(len(content)))
    return reply(200, length, *headers, body=b"" if heard.method == "HEAD" else content)


Script = Callable[[Heard], Say]


class WireServer:
    """Listens on loopback; `script` may be set at any time; `heard` keeps every request."""

    def __init__(self, script: Script = lambda _: reply(404), tls: ssl.SSLContext | None = None) -> None:
        self.script = script
        self.heard: list[Heard] = []
        self.connections = 0
        self._tls = tls
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=_LIMIT, ssl=self._tls)
        self.port: int = self._server.sockets[0].getsockname()[1]
        self.url = f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self._tasks.add(task)
        number, self.connections = self.connections, self.connections + 1
        try:
            await self._talk(reader, writer, number)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.close()
            with suppress(ConnectionError, ssl.SSLError, asyncio.CancelledError):
                await writer.wait_closed()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        turn = 0
        while True:
            heard = await _hear(reader, number, turn)
            self.heard.append(heard)
            said = self.script(heard)
            writer.write(said.data)
            await writer.drain()
            if said.late:
                await asyncio.sleep(LATE_SECONDS)
                writer.write(said.late)
                await writer.drain()
            if said.then == "hang":
                await asyncio.Event().wait()
            if said.then == "reset":
                writer.transport.abort()
            if said.then != "keep":
                return
            turn += 1


async def _hear(reader: asyncio.StreamReader, connection: int, turn: int) -> Heard:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *lines = head.rstrip("\r\n").split("\r\n")
    method, target, _ = first.split(" ", 2)
    headers = tuple((name, value.strip()) for name, _, value in (line.partition(":") for line in lines))
    length = next((int(value) for name, value in headers if name.lower() == "content-length"), 0)
    return Heard(method, target, headers, await reader.readexactly(length), connection, turn)
