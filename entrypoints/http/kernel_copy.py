"""Sends parts of a file without their bytes passing through this process: the kernel copies them into the socket.

Sanic sends the head and keeps the connection; the copy goes to a duplicate of the connection's descriptor. Each rule
below was learnt by breaking a sketch without it.
"""

import asyncio
import errno
import os
import select
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, TypeVar, cast

from sanic import Request, Sanic
from sanic.exceptions import RequestCancelled, ServerError
from sanic.http.constants import Stage
from sanic.http.http1 import Http
from sanic.response import BaseHTTPResponse
from sanic.server.protocols.base_protocol import SanicProtocol

from application.ports.content_store import FilePart

# The socket's send buffer is left to grow by itself. Set by hand, loopback gains a fifth; but most systems allow
# 416 KiB at the most, and a distant client would never have more than that under way.
_THREADS = 16
_CALL = 2 * 1024 * 1024  # for one sendfile; more bytes gain nothing, and occupy the thread longer on a slow disk
_TURN_SECONDS = 0.05  # then another download has the thread, however fast this client reads
# Who took so much in this turn already will take more at once. To wait for that here, a moment, costs less than the way
# through the loop and back; all others are waited for in the loop.
_FAST = 512 * 1024
_BRIEFLY = 2  # milliseconds
_SLOW, _LONGEST = 0.02, 1.0  # seconds
_CHUNK = 256 * 1024  # where the bytes do have to pass through this process
# What sendfile says when the connection is gone; anything else is about the file.
_GONE = frozenset({errno.EPIPE, errno.ECONNRESET, errno.ECONNABORTED, errno.ETIMEDOUT, errno.EHOSTUNREACH})

T = TypeVar("T")
_Account = Callable[["asyncio.Future[int]"], None]


class ContentShort(Exception):
    """The file ends before the part does."""


class FileSender:
    """Sends file parts as pieces of one answer's body; `moved` hears how many bytes went. Whoever made it closes it."""

    def __init__(self, request: Request, response: BaseHTTPResponse, moved: Callable[[int], None]) -> None:
        self._response = response
        self._stream = cast("Http", request.stream)
        self._transport = cast("asyncio.Transport", request.transport)
        self._app = request.app
        self._moved = moved
        self._socket: _Duplicate | None = None

    async def send(self, part: FilePart) -> None:
        """Raises ContentShort, RequestCancelled when the client has left, OSError when the file cannot be read."""
        if part.start >= part.stop:
            return
        if self._stream.stage is Stage.HANDLER:
            await self._response.send(b"")  # the head alone
        # Inside TLS, and between the marks of chunks, the bytes are not those of the file.
        is_plain = self._transport.get_extra_info("ssl_object") is None
        if is_plain and "content-length" in self._response.headers:
            await self._copy(part)
        else:
            await self._read_and_send(part)

    def close(self) -> None:
        if self._socket:
            self._socket.close()

    async def _copy(self, part: FilePart) -> None:
        if part.stop - part.start > self._stream.response_bytes_left:
            raise ServerError("Response was bigger than content-length")  # as Sanic refuses bytes; nothing is sent
        await _written_out(self._stream.protocol, self._transport)
        self._socket = self._socket or _Duplicate(self._transport, _threads_of(self._app), self._account)
        # A client that says that it will send no more still reads, but Sanic would close the connection on that.
        # One that leaves is noticed by the copy itself. Where Sanic has paused already, it has read enough.
        was_reading = self._transport.is_reading()
        self._transport.pause_reading()
        try:
            await self._socket.fill(part)
        finally:
            if was_reading:
                self._transport.resume_reading()

    def _account(self, step: "asyncio.Future[int]") -> None:
        if step.cancelled() or step.exception() or not step.result():
            return
        # RESPONSE_TIMEOUT, which cuts a client that has stopped reading, sees nothing else of these bytes.
        self._stream.protocol._time = time.monotonic()  # noqa: SLF001 - Sanic has no other way to be told
        # Sanic's own count: where it is 0 the answer has ended, and the connection can take the next request.
        self._stream.response_bytes_left -= step.result()
        self._moved(step.result())

    async def _read_and_send(self, part: FilePart) -> None:
        loop, threads, position = asyncio.get_running_loop(), _threads_of(self._app), part.start
        while position < part.stop:
            size = min(_CHUNK, part.stop - position)
            content = await _returned(loop.run_in_executor(threads, os.pread, part.descriptor, size, position))
            if not content:
                raise ContentShort
            await self._response.send(content)
            self._moved(len(content))
            position += len(content)


class _Duplicate:
    """The one owner of a second descriptor of the connection, since no loop lets others wait on a transport's own.
    It is never closed while a thread may use it: a closed number is given away again within microseconds, and the
    bytes would go into a stranger's connection or file.
    """

    def __init__(self, transport: asyncio.Transport, threads: ThreadPoolExecutor, account: _Account) -> None:
        self._descriptor = os.dup(transport.get_extra_info("socket").fileno())
        self._loop = asyncio.get_running_loop()
        self._threads = threads
        self._account = account

    async def fill(self, part: FilePart) -> None:
        position, run = part.start, self._loop.run_in_executor
        while position < part.stop:
            step = run(self._threads, _send_some, self._descriptor, part.descriptor, position, part.stop)
            step.add_done_callback(self._account)
            try:
                position += await _returned(step)
            except OSError as error:
                if error.errno in _GONE:
                    raise RequestCancelled from error  # what Sanic's own send says
                raise
            if position < part.stop:
                waited = await self._writable()
                if waited > _SLOW:
                    # A third of the buffer became free in that time, and two are still full. Half of what these will
                    # last, and more, may pass: thousands of slow clients then cost less than half as many turns.
                    await asyncio.sleep(min(1.4 * waited, _LONGEST))

    def close(self) -> None:
        """At once after an abort too: while it is open, the kernel tells the client nothing of the end."""
        self._loop.remove_writer(self._descriptor)  # always first: a registration outlives its descriptor
        os.close(self._descriptor)

    async def _writable(self) -> float:
        """Not waited for in a thread: so any number of slow clients occupy none."""
        writable, began = asyncio.Event(), self._loop.time()
        self._loop.add_writer(self._descriptor, writable.set)
        try:
            await writable.wait()
        finally:
            self._loop.remove_writer(self._descriptor)  # or it would be told so for as long as it is so
        return self._loop.time() - began


def _send_some(connection: int, file: int, start: int, stop: int) -> int:
    """In a thread, since the file may have to be read from a disk. As much as the socket takes; 0 if it is full.

    What ends it after some bytes, an error or the end of the file, ends the next step at its first byte.
    """
    position, turn_ends = start, time.monotonic() + _TURN_SECONDS
    while position < stop and time.monotonic() < turn_ends:
        try:
            sent = os.sendfile(connection, file, position, min(_CALL, stop - position))
        except BlockingIOError:
            if position - start < _FAST or not _has_room_soon(connection):
                break
            continue
        except OSError:
            if position == start:
                raise
            break
        if not sent:
            if position == start:
                raise ContentShort
            break
        position += sent
    return position - start


def _has_room_soon(connection: int) -> bool:
    room = select.poll()
    room.register(connection, select.POLLOUT)
    return bool(room.poll(_BRIEFLY))


async def _returned(step: "asyncio.Future[T]") -> T:
    """What the thread's step returns. A cancellation waits for that too: until then the descriptors are in use."""
    try:
        return await asyncio.shield(step)
    except asyncio.CancelledError:
        while not step.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait([step])
        raise


async def _written_out(protocol: SanicProtocol, transport: asyncio.Transport) -> None:
    """Waits until what Sanic has sent is in the kernel; the copy would overtake it."""
    if transport.get_write_buffer_size() and not transport.is_closing():
        low, high = transport.get_write_buffer_limits()
        transport.set_write_buffer_limits(high=0)  # now the protocol counts as paused until nothing is left
        await protocol._can_write.wait()  # noqa: SLF001 - what Sanic's own send waits for
        if not transport.is_closing():
            transport.set_write_buffer_limits(high=high, low=low)
    if transport.is_closing():
        raise RequestCancelled


def _threads_of(app: Sanic[Any, Any]) -> ThreadPoolExecutor:
    """Made when first needed, in the worker, for threads do not survive a fork; ended with the worker's parts."""
    if not hasattr(app.ctx, "copy_threads"):
        app.ctx.copy_threads = ThreadPoolExecutor(_THREADS, "copy")
        app.ctx.opened.callback(app.ctx.copy_threads.shutdown, cancel_futures=True)
    return cast("ThreadPoolExecutor", app.ctx.copy_threads)
