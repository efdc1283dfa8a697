"""A server that delivers response bodies as the service does. The test defines the pieces of each body."""

import asyncio
import logging
import os
import random
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from sanic import HTTPResponse, Request, Sanic

from adapters.storage.open_files import DescriptorFile
from adapters.storage.threads import Threads
from application.ports.content import ContentPart
from application.ports.tracing import NoTracer
from domain.digest import DigestCheck
from domain.errors import RegistryError
from entrypoints.http import access_log
from entrypoints.http.app import AnyTargetRequest
from entrypoints.http.delivery.body_delivery import deliver
from entrypoints.http.delivery.kernel_copy import CopyThreads
from entrypoints.http.requests.request_ids import RequestIds
from entrypoints.http.responses.error_responses import error_response
from tests.entrypoints.service import Wire
from tests.fakes.events import RecordingEventSink

_NUMBERS = count()  # Sanic refuses a second application of the same name
_SIZE = 20_000_000  # more than the sockets between here and there take at once

Part = bytes | tuple[int, int]
Event = Part | Exception | float


class Elsewhere:
    """Implements OpenFile, of content that is not in a file of this machine."""

    def __init__(self, path: Path) -> None:
        self.identity: object = path
        self._path = path

    async def read(self, start: int, stop: int) -> bytes:
        return self._path.read_bytes()[start:stop]

    async def hash(self, check: DigestCheck, start: int, stop: int) -> None:
        check.update(self._path.read_bytes()[start:stop])

    def close(self) -> None:
        pass


@dataclass
class Body:
    """A body of bytes, parts of a file, errors and pauses in seconds. Counts open and damaged files."""

    path: Path
    events: Sequence[Event]
    length: int | None
    open_now: int = 0
    damaged: int = 0
    is_elsewhere: bool = False

    @property
    def parts(self) -> list[Part]:
        return [event for event in self.events if isinstance(event, bytes | tuple)]

    async def pieces(self) -> AsyncIterator[bytes | ContentPart]:
        file: Any = Elsewhere(self.path)
        if not self.is_elsewhere:
            file = DescriptorFile(os.open(self.path, os.O_RDONLY), Threads(1, "unused"))
        self.open_now += 1
        try:
            for event in self.events:
                match event:
                    case Exception():
                        raise event
                    case float():
                        await asyncio.sleep(event)
                    case bytes():
                        yield event
                    case _:
                        yield ContentPart(file, *event)
        finally:
            self.open_now -= 1
            file.close()

    async def drop(self) -> None:
        self.damaged += 1
        assert self.open_now


@dataclass
class FileService:
    """`content` is the file's. `GET /body/N` answers with the Nth body; `get` is such a request."""

    client: Any
    path: Path
    content: bytes
    log: pytest.LogCaptureFixture
    bodies: list[Body] = field(default_factory=list)

    def body(self, *events: Event, length: int | None = -1) -> Body:
        """The next one. Its length is what its parts say, unless another is given, or None."""
        body = Body(self.path, events, length)
        if length == -1:
            body.length = sum(len(part) if isinstance(part, bytes) else part[1] - part[0] for part in body.parts)
        self.bodies.append(body)
        return body

    def get(self, body: Body, version: str = "1.1", method: str = "GET") -> str:
        return f"{method} /body/{self.bodies.index(body)} HTTP/{version}\r\nHost: a\r\n\r\n"

    def expected(self, body: Body) -> bytes:
        return b"".join(part if isinstance(part, bytes) else self.content[slice(*part)] for part in body.parts)

    @property
    def lines(self) -> list[Any]:
        """Those of the access log: `bytes`, `fault` and more."""
        return [record for record in self.log.records if record.name == "docker_image_proxy.access"]

    @property
    def sends_later(self) -> bool:
        """Whether some client has turned out to be slow."""
        return any(self.client.app.ctx.copy_threads._due.values())

    @property
    def connections(self) -> Any:
        """Sanic's protocols of the connections that are open."""
        return self.client._server.connections

    @asynccontextmanager
    async def wire(self, tls: ssl.SSLContext | None = None) -> AsyncIterator[Wire]:
        """One connection; leaving it resets the connection, so that nothing waits for what was not read."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.client.port, ssl=tls)
        try:
            yield Wire(reader, writer)
        finally:
            if not writer.is_closing():
                reset(writer)

    async def answer(self, request: Request, number: int) -> HTTPResponse | None:
        body = self.bodies[number]
        headers = {} if body.length is None else {"Content-Length": str(body.length)}
        if request.method == "HEAD":
            return HTTPResponse(None, 200, headers)
        async with aclosing(body.pieces()) as pieces:
            await deliver(request, 200, headers, "application/octet-stream", pieces, damaged=body.drop)
        return None


def reset(writer: asyncio.StreamWriter) -> None:
    """Reset the connection at once."""
    connection = writer.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


def _application(silence: float) -> Sanic[Any, Any]:
    """The parts of the application that the delivery needs."""
    app = Sanic(f"files_{next(_NUMBERS)}", configure_logging=False, request_class=AnyTargetRequest)
    app.ctx.request_ids = RequestIds()
    # The access log also counts each answer.
    container = SimpleNamespace(events=RecordingEventSink)
    app.ctx.runtimes = SimpleNamespace(current=SimpleNamespace(container=container, tracer=NoTracer()))
    app.config.update({"ACCESS_LOG": False, "MOTD": False, "TOUCHUP": False, "RESPONSE_TIMEOUT": silence})
    app.ctx.is_stopping = False
    app.register_middleware(access_log.begin, "request")
    app.register_middleware(access_log.end, "response")
    app.error_handler.add(RegistryError, lambda _, error: error_response(error, "service"))
    app.add_route(_other, "/other")
    return app


async def _other(_: Request) -> HTTPResponse:
    return HTTPResponse("another answer")


ServeFiles = Callable[..., Awaitable[FileService]]


@pytest.fixture(scope="session")
def content_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("files") / "content"
    path.write_bytes(random.Random(1).randbytes(_SIZE))  # noqa: S311 - so that no part looks like another
    return path


@pytest.fixture
def serve_files(
    sanic_client: Any,
    loop: asyncio.AbstractEventLoop,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    content_path: Path,
) -> Iterator[ServeFiles]:
    """Starts it: `await serve_files(silence=1.0)`. tests/entrypoints/conftest.py explains the workarounds."""
    monkeypatch.setattr(Sanic, "is_running", property(lambda _: True, lambda _, __: None), raising=False)
    caplog.set_level(logging.INFO)
    content = content_path.read_bytes()
    running: list[Any] = []

    async def started(*, silence: float = 120, tls: ssl.SSLContext | None = None) -> FileService:
        app = _application(silence)
        app.ctx.copy_threads = CopyThreads()
        service = FileService(None, content_path, content, caplog)
        app.add_route(service.answer, "/body/<number:int>", methods=["GET", "HEAD"])
        await app._startup()
        await app._server_event("init", "before", loop)
        service.client = await sanic_client(app, ssl=tls, trust_env=False)
        running.append(service.client)
        return service

    async def stop(client: Any) -> None:
        await client.close()
        client.app.ctx.copy_threads.close()

    yield started
    for client in running:
        loop.run_until_complete(stop(client))
