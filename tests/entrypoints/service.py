"""The running service, as tests speak to it: through a client library, or byte by byte."""

import asyncio
import base64
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

from tests.fakes.upstream import FakeUpstream

_PATIENCE = 30.0  # seconds; a machine under load is slow

Headers = dict[str, str] | list[tuple[str, str]]


def basic(user: str, password: str) -> str:
    """The value of an Authorization header; an ACCOUNTS entry is what follows `Basic `."""
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


async def until(condition: Callable[[], bool]) -> None:
    """Waits for what will soon be so."""
    async with asyncio.timeout(_PATIENCE):
        while not condition():  # noqa: ASYNC110 - nothing tells when it becomes so
            await asyncio.sleep(0.01)


@dataclass(frozen=True)
class WireAnswer:
    """One answer as it came. `is_whole` is False where the connection ended before the body did."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes
    is_whole: bool = True

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key == name.lower()]

    def get(self, name: str) -> str | None:
        return next(iter(self.all(name)), None)


class Wire:
    """One connection, on which whatever bytes a test likes are sent."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, data: bytes | str) -> None:
        self.writer.write(data.encode() if isinstance(data, str) else data)
        await self.writer.drain()

    async def answer(self, *, head: bool = False) -> WireAnswer:
        """The next final answer; interim ones are read over."""
        async with asyncio.timeout(_PATIENCE):
            while True:
                status, headers = await self._head()
                if status >= 200:
                    break
            fields = dict(headers)
            if head or status in {204, 304}:
                return WireAnswer(status, headers, b"")
            try:
                return WireAnswer(status, headers, await self._body(fields))
            except asyncio.IncompleteReadError as cut:
                return WireAnswer(status, headers, cut.partial, is_whole=False)
            except ConnectionResetError:
                return WireAnswer(status, headers, b"", is_whole=False)

    async def rest(self) -> bytes:
        """What still comes until the service closes the connection."""
        try:
            async with asyncio.timeout(_PATIENCE):
                return await self.reader.read()
        except ConnectionResetError:
            return b""

    async def silence(self, seconds: float = 0.1) -> bytes:
        """What comes within this time; b"" both for nothing and for an end."""
        try:
            return await asyncio.wait_for(self.reader.read(65536), seconds)
        except TimeoutError:
            return b""

    async def _head(self) -> tuple[int, list[tuple[str, str]]]:
        text = (await self.reader.readuntil(b"\r\n\r\n")).decode()
        status_line, *lines = text.removesuffix("\r\n\r\n").split("\r\n")
        pairs = [line.split(":", 1) for line in lines]
        return int(status_line.split(" ")[1]), [(name.lower(), value.strip()) for name, value in pairs]

    async def _body(self, fields: dict[str, str]) -> bytes:
        if fields.get("transfer-encoding") == "chunked":
            return await self._chunks()
        if "content-length" in fields:
            return await self.reader.readexactly(int(fields["content-length"]))
        return await self.reader.read()

    async def _chunks(self) -> bytes:
        body = b""
        while True:
            try:
                size = int((await self.reader.readuntil(b"\r\n")).strip(), 16)
                body += (await self.reader.readexactly(size + 2))[:-2]
            except asyncio.IncompleteReadError as cut:
                raise asyncio.IncompleteReadError(body + cut.partial, None) from cut
            if size == 0:
                return body


@dataclass(frozen=True)
class Service:
    """`client` is pytest-sanic's; `upstream` what stands behind the service."""

    client: Any
    upstream: FakeUpstream

    @property
    def port(self) -> int:
        return int(self.client.port)

    @property
    def parts(self) -> Any:
        return self.client.app.ctx.runtimes.current.container

    async def get(self, path: str, headers: Headers | None = None) -> Any:
        return await self.client.get(path, headers=headers)

    async def head(self, path: str, headers: Headers | None = None) -> Any:
        return await self.client.head(path, headers=headers)

    async def post(self, path: str, form: dict[str, str], headers: Headers | None = None) -> Any:
        return await self.client.post(path, data=form, headers=headers)

    async def token(self, scope: str = "", authorization: str | None = None) -> str:
        """A token out of the token endpoint."""
        headers = {"Authorization": authorization} if authorization else {}
        answer = await self.get(f"/v2/auth?scope={scope}", headers)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["token"])

    @asynccontextmanager
    async def wire(self, limit: int = 2**16, address: str = "127.0.0.1") -> AsyncIterator[Wire]:
        """`address` is the client's; all of 127.0.0.0/8 is this machine."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, limit=limit, local_addr=(address, 0))
        try:
            yield Wire(reader, writer)
        finally:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()

    async def ask(self, request: str | bytes, address: str = "127.0.0.1") -> WireAnswer:
        """One request on a connection of its own: `GET /v2/ HTTP/1.1` and header lines, without the last empty one."""
        text = request.encode() if isinstance(request, str) else request
        lines = [line.strip(b" \r") for line in text.strip(b"\r\n ").split(b"\n")]
        async with self.wire(address=address) as wire:
            await wire.send(b"\r\n".join(lines) + b"\r\n\r\n")
            return await wire.answer(head=text.lstrip().startswith(b"HEAD"))
