"""BodySender: sends the pieces of a response body. It sends parts of a file by sendfile(2), so that the kernel copies
the bytes and this process does not.

Sanic sends the head and keeps the connection; sendfile writes to a duplicate of the connection's descriptor. Each rule
below prevents a failure that occurred without it.
"""

import asyncio
import errno
import os
import socket
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar, cast

from sanic import Request
from sanic.exceptions import RequestCancelled, ServerError
from sanic.http.constants import Stage
from sanic.http.http1 import Http
from sanic.response import BaseHTTPResponse

from application.blobs.blob_query import Piece
from application.concurrency import until_done
from application.ports.content import ContentPart
from application.ports.file_backed import FileBacked
from entrypoints.http.access_log import BodyOutcome
from entrypoints.http.delivery.copy_threads import ContentShort, CopyThreads, Send

# The kernel sizes the send buffer of the socket. A fixed size makes loopback a fifth faster, but most systems allow at
# most 416 KiB, which would limit distant clients.
_SLOW, _LONGEST = 0.1, 3.0  # seconds
_UNSENT = 384 * 1024  # bytes that wait in the kernel for a slow client, besides those in flight
_SYSTEM_DEFAULT = 0
_CHUNK = 256 * 1024  # bytes per read where sendfile cannot be used
# Errors of sendfile that mean a lost connection; all others concern the file.
_GONE = frozenset({errno.EPIPE, errno.ECONNRESET, errno.ECONNABORTED, errno.ETIMEDOUT, errno.EHOSTUNREACH})

T = TypeVar("T")
_Account = Callable[["asyncio.Future[int]"], None]


class BodySender:
    """Sends the pieces of one response body and counts their bytes in `outcome`. The owner closes the BodySender."""

    def __init__(self, request: Request, response: BaseHTTPResponse, outcome: BodyOutcome) -> None:
        self._response = response
        self._outcome = outcome
        self._stream = cast("Http", request.stream)
        self._transport = cast("asyncio.Transport", request.transport)
        self._threads: CopyThreads = request.app.ctx.copy_threads
        self._socket: _Duplicate | None = None

    async def send(self, piece: Piece) -> None:
        """Raises ContentShort, RequestCancelled when the client has left, OSError when the file cannot be read."""
        if not isinstance(piece, ContentPart):
            if piece:
                await self._response.send(piece)  # type: ignore[type-var]  # it accepts any bytes-like object
                self._outcome.size += len(piece)
        elif piece.start < piece.stop:
            if self._stream.stage is Stage.HANDLER:
                await self._response.send(b"")  # the head alone
            # With TLS or chunked encoding, the bytes on the connection differ from those of the file.
            is_plain = self._transport.get_extra_info("ssl_object") is None
            if is_plain and isinstance(piece.file, FileBacked) and "content-length" in self._response.headers:
                await self._copy(piece.file.descriptor, piece.start, piece.stop)
            else:
                await self._read_and_send(piece)

    def close(self) -> None:
        if self._socket:
            self._socket.close()

    async def _copy(self, file: int, start: int, stop: int) -> None:
        if stop - start > self._stream.response_bytes_left:
            raise ServerError("Response was bigger than content-length")  # the error that Sanic raises; nothing is sent
        await self._flush()
        if self._socket is None:
            # Sanic closes the connection if nothing is sent for RESPONSE_TIMEOUT, so pauses must be shorter.
            longest = min(_LONGEST, self._stream.protocol.response_timeout / 3)
            self._socket = _Duplicate(self._transport, self._threads, self._account, longest)
        # Sanic would close the connection of a client that has shut down its sending side but still reads. If a client
        # leaves, sendfile fails. If Sanic has paused reading already, that stays so.
        was_reading = self._transport.is_reading()
        self._transport.pause_reading()
        try:
            await self._socket.send(file, start, stop)
        except OSError as error:
            if error.errno in _GONE:
                raise RequestCancelled from error  # as Sanic's own send does
            raise
        finally:
            if was_reading:
                self._transport.resume_reading()

    async def _flush(self) -> None:
        """Wait until the kernel has all bytes that Sanic has sent; otherwise sendfile would overtake them."""
        transport = self._transport
        if transport.get_write_buffer_size() and not transport.is_closing():
            low, high = transport.get_write_buffer_limits()
            transport.set_write_buffer_limits(high=0)  # the protocol is now paused until the buffer is empty
            await self._stream.protocol._can_write.wait()  # noqa: SLF001 - Sanic's own send waits for it
            if not transport.is_closing():
                transport.set_write_buffer_limits(high=high, low=low)
        if transport.is_closing():
            raise RequestCancelled

    def _account(self, step: "asyncio.Future[int]") -> None:
        if step.cancelled() or step.exception() or not step.result():
            return
        # RESPONSE_TIMEOUT closes connections of clients that stopped reading; it does not see bytes sent by sendfile.
        self._stream.protocol._time = time.monotonic()  # noqa: SLF001 - Sanic has no public way to set it
        # When Sanic's count reaches 0, the response has ended and the connection can receive the next request.
        self._stream.response_bytes_left -= step.result()
        self._outcome.size += step.result()

    async def _read_and_send(self, part: ContentPart) -> None:
        position = part.start
        while position < part.stop:
            stop = min(position + _CHUNK, part.stop)
            if isinstance(part.file, FileBacked):
                # In the threads of the copies: requests that open content must not wait for reads from a slow disk.
                content = await _returned(self._threads.read(part.file.descriptor, position, stop))
            else:
                content = await part.file.read(position, stop)
            if not content:
                raise ContentShort
            await self._response.send(content)
            self._outcome.size += len(content)
            position += len(content)


class _Duplicate:
    """Owns a duplicate of the connection's descriptor, because event loops do not allow waiting on the descriptor of a
    transport. The duplicate is never closed while a thread may use it: the kernel reuses a closed number within
    microseconds, and the bytes would go into another connection or file.
    """

    def __init__(self, transport: asyncio.Transport, threads: CopyThreads, account: _Account, longest: float) -> None:
        """`longest`: the longest pause between two steps for a slow client, in seconds."""
        self._socket = socket.socket(fileno=os.dup(transport.get_extra_info("socket").fileno()))
        self._descriptor = self._socket.fileno()
        self._loop = asyncio.get_running_loop()
        self._threads = threads
        self._account = account
        self._longest = longest

    async def send(self, file: int, start: int, stop: int) -> None:
        """Send these bytes of the descriptor `file`."""
        rest = Send(self._descriptor, file, start, stop)
        while rest.start < rest.stop:
            sent = await _returned(self._threads.send(rest), self._account)
            rest = rest._replace(start=rest.start + sent)
            if rest.start < rest.stop:
                waited = await self._writable()
                if waited > _SLOW:
                    rest = await self._send_slowly(rest, waited)

    async def _send_slowly(self, rest: Send, waited: float) -> Send:
        """Send at the pace of a slow client. Returns what is left at the end, or when the client turns out to be
        faster.
        """
        self._limit_unsent(_UNSENT)
        # During the wait, half of the unsent bytes were sent; the other half is left. Pause for most of the time that
        # it lasts, and later for longer, instead of polling the kernel for each of thousands of clients.
        pause = 0.7 * waited
        while rest.start < rest.stop:
            sent = await _returned(self._threads.send_later(rest, min(pause, self._longest)), self._account)
            rest = rest._replace(start=rest.start + sent)
            pause = 1.7 * waited
            if not sent:
                waited = await self._writable()
                pause = 0.7 * waited
            if sent >= _UNSENT or waited <= _SLOW:
                break  # the client had received everything
        self._limit_unsent(_SYSTEM_DEFAULT)
        return rest

    def _limit_unsent(self, limit: int) -> None:
        """Limit the bytes that wait in the kernel. Megabytes for each of a thousand slow clients would exceed the
        socket memory of the kernel, which would then slow down fast clients.
        """
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, limit)

    def close(self) -> None:
        """Close the duplicate, also after an abort: while it is open, the kernel keeps the connection open."""
        # Before the close, because the registration outlives the descriptor.
        self._loop.remove_writer(self._descriptor)
        self._socket.close()

    async def _writable(self) -> float:
        """Wait in the loop until the socket is writable, so that slow clients occupy no thread. Returns the seconds."""
        writable, began = asyncio.Event(), self._loop.time()
        self._loop.add_writer(self._descriptor, writable.set)
        try:
            await writable.wait()
        finally:
            self._loop.remove_writer(self._descriptor)  # otherwise the loop would call it continuously
        return self._loop.time() - began


async def _returned(step: "Future[T]", account: Callable[["asyncio.Future[T]"], None] | None = None) -> T:
    """The result of the step in a thread. `account` is called when the step is done. A cancellation cancels a step that
    has not begun, and waits for one that has, because it uses the descriptors.
    """
    done = asyncio.wrap_future(step)
    if account:
        done.add_done_callback(account)
    try:
        await asyncio.wait([done])
    except asyncio.CancelledError:
        step.cancel()
        await until_done(done)
        raise
    return done.result()
