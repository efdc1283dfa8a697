"""Sends parts of a file without their bytes passing through this process: the kernel copies them into the socket.

Sanic sends the head and keeps the connection; the copy goes to a duplicate of the connection's descriptor. Each rule
below was learnt by breaking a sketch without it.
"""

import asyncio
import errno
import os
import socket
import time
from collections.abc import Callable
from typing import Any, TypeVar, cast

from sanic import Request, Sanic
from sanic.exceptions import RequestCancelled, ServerError
from sanic.http.constants import Stage
from sanic.http.http1 import Http
from sanic.response import BaseHTTPResponse
from sanic.server.protocols.base_protocol import SanicProtocol

from application.concurrency import until_done
from application.ports.content import ContentPart, OpenFile
from application.ports.file_backed import FileBacked
from entrypoints.http.delivery.copy_threads import ContentShort, CopyThreads, Send, Sending

# The socket's send buffer is left to grow by itself. Set by hand, loopback gains a fifth; but most systems allow
# 416 KiB at the most, and a distant client would never have more than that under way.
_SLOW, _LONGEST = 0.1, 3.0  # seconds
_UNSENT = 384 * 1024  # bytes that wait in the kernel for a slow client, besides those that are under way
_AS_THE_SYSTEM_SAYS = 0
_CHUNK = 256 * 1024  # where the bytes do have to pass through this process
# What sendfile says when the connection is gone; anything else is about the file.
_GONE = frozenset({errno.EPIPE, errno.ECONNRESET, errno.ECONNABORTED, errno.ETIMEDOUT, errno.EHOSTUNREACH})

T = TypeVar("T")
_Account = Callable[["asyncio.Future[int]"], None]


class FileSender:
    """Sends file parts as pieces of one answer's body; `moved` hears how many bytes went. Whoever made it closes it."""

    def __init__(self, request: Request, response: BaseHTTPResponse, moved: Callable[[int], None]) -> None:
        self._response = response
        self._stream = cast("Http", request.stream)
        self._transport = cast("asyncio.Transport", request.transport)
        self._app = request.app
        self._moved = moved
        self._socket: _Duplicate | None = None

    async def send(self, part: ContentPart) -> None:
        """Raises ContentShort, RequestCancelled when the client has left, OSError when the file cannot be read."""
        if part.start >= part.stop:
            return
        if self._stream.stage is Stage.HANDLER:
            await self._response.send(b"")  # the head alone
        # Inside TLS, and between the marks of chunks, the bytes are not those of the file.
        is_plain = self._transport.get_extra_info("ssl_object") is None
        if is_plain and isinstance(part.file, FileBacked) and "content-length" in self._response.headers:
            await self._copy(part.file.descriptor, part.start, part.stop)
        else:
            await self._read_and_send(part)

    def close(self) -> None:
        if self._socket:
            self._socket.close()

    async def _copy(self, file: int, start: int, stop: int) -> None:
        if stop - start > self._stream.response_bytes_left:
            raise ServerError("Response was bigger than content-length")  # as Sanic refuses bytes; nothing is sent
        await _written_out(self._stream.protocol, self._transport)
        if self._socket is None:
            # A client that is given nothing for so long as a silent one may be silent would be cut off as such.
            longest = min(_LONGEST, self._stream.protocol.response_timeout / 3)
            self._socket = _Duplicate(self._transport, _threads_of(self._app), self._account, longest)
        # A client that says that it will send no more still reads, but Sanic would close the connection on that.
        # One that leaves is noticed by the copy itself. Where Sanic has paused already, it has read enough.
        was_reading = self._transport.is_reading()
        self._transport.pause_reading()
        try:
            await self._socket.fill(file, start, stop)
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

    async def _read_and_send(self, part: ContentPart) -> None:
        position = part.start
        while position < part.stop:
            content = await self._read(part.file, position, min(_CHUNK, part.stop - position))
            if not content:
                raise ContentShort
            await self._response.send(content)
            self._moved(len(content))
            position += len(content)

    async def _read(self, file: OpenFile, start: int, size: int) -> bytes:
        if not isinstance(file, FileBacked):
            return await file.read(start, start + size)
        # In the threads of the copies: a request that opens content must not wait until a slow disk has been read.
        loop, pool = asyncio.get_running_loop(), _threads_of(self._app).pool
        return await _returned(loop.run_in_executor(pool, os.pread, file.descriptor, size, start))


class _Duplicate:
    """The one owner of a second descriptor of the connection, since no loop lets others wait on a transport's own.
    It is never closed while a thread may use it: a closed number is given away again within microseconds, and the
    bytes would go into a stranger's connection or file.
    """

    def __init__(self, transport: asyncio.Transport, threads: CopyThreads, account: _Account, longest: float) -> None:
        """`longest`: seconds for which a slow client is left alone."""
        self._socket = socket.socket(fileno=os.dup(transport.get_extra_info("socket").fileno()))
        self._descriptor = self._socket.fileno()
        self._loop = asyncio.get_running_loop()
        self._threads = threads
        self._account = account
        self._longest = longest

    async def fill(self, file: int, start: int, stop: int) -> None:
        """From the descriptor `file`."""
        position = start
        while position < stop:
            position += await self._done(self._threads.send(Send(self._descriptor, file, position, stop)))
            if position < stop:
                waited = await self._writable()
                if waited > _SLOW:
                    position = await self._fill_slowly(Send(self._descriptor, file, position, stop), waited)

    async def _fill_slowly(self, rest: Send, waited: float) -> int:
        """How far it has come when the client turns out to be faster."""
        self._hold_unsent(_UNSENT)
        # Half of what may be unsent has gone in the time that was waited, and half is left. Most of what that will last
        # may pass, and then the same again: so the kernel need not be asked about each of thousands.
        pause = 0.7 * waited
        while rest.start < rest.stop:
            sent = await self._done(self._threads.send_later(rest, min(pause, self._longest)))
            rest = rest._replace(start=rest.start + sent)
            pause = 1.7 * waited
            if not sent:
                waited = await self._writable()
                pause = 0.7 * waited
            if sent >= _UNSENT or waited <= _SLOW:
                break  # it had taken all
        self._hold_unsent(_AS_THE_SYSTEM_SAYS)
        return rest.start

    def _hold_unsent(self, limit: int) -> None:
        """Megabytes for each of a thousand slow clients are more than the kernel has for sockets; it would take them
        from the fast ones.
        """
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, limit)

    async def _done(self, step: "asyncio.Future[int]") -> int:
        step.add_done_callback(self._account)
        try:
            return await _returned(step)
        except OSError as error:
            if error.errno in _GONE:
                raise RequestCancelled from error  # what Sanic's own send says
            raise

    def close(self) -> None:
        """At once after an abort too: while it is open, the kernel tells the client nothing of the end."""
        self._loop.remove_writer(self._descriptor)  # always first: a registration outlives its descriptor
        self._socket.close()

    async def _writable(self) -> float:
        """Not waited for in a thread: so any number of slow clients occupy none."""
        writable, began = asyncio.Event(), self._loop.time()
        self._loop.add_writer(self._descriptor, writable.set)
        try:
            await writable.wait()
        finally:
            self._loop.remove_writer(self._descriptor)  # or it would be told so for as long as it is so
        return self._loop.time() - began


async def _returned(step: "asyncio.Future[T]") -> T:
    """What the thread's step returns. A cancellation waits for that too: until then the descriptors are in use."""
    try:
        return await asyncio.shield(step)
    except asyncio.CancelledError:
        if isinstance(step, Sending) and not step.has_begun:
            step.cancel()
        await until_done(step)
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


def _threads_of(app: Sanic[Any, Any]) -> CopyThreads:
    """Made when first needed, in the worker, for threads do not survive a fork; ended with the worker's parts."""
    if not hasattr(app.ctx, "copy_threads"):
        app.ctx.copy_threads = CopyThreads()
        app.ctx.resources.callback(app.ctx.copy_threads.close)
    return cast("CopyThreads", app.ctx.copy_threads)
