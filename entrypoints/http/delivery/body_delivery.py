"""Sends a response body that is stored in a file or is still being downloaded."""

import asyncio
import errno
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import closing
from typing import cast

from sanic import Request
from sanic.compat import Header
from sanic.exceptions import RequestCancelled, ServerError
from sanic.http.constants import Stage
from sanic.http.http1 import Http
from sanic.response import BaseHTTPResponse

from application.blobs.blob_query import Piece
from application.ports.content import ContentPart
from application.ports.file_backed import FileBacked
from domain.errors import RegistryError, RequestInvalid
from entrypoints.http.access_log import BodyOutcome, count_bytes, streamed
from entrypoints.http.delivery.kernel_copy import ContentShort, CopyThreads, KernelCopy
from entrypoints.http.responses.error_responses import fault_result_of

_LOG = logging.getLogger("docker_image_proxy")

# Bytes per read where sendfile cannot be used. The time for a read and for passing on its bytes is nearly the same for
# any size, but each slow client occupies as much memory, so slow clients get small chunks. The largest is a little less
# than what glibc treats as large (entrypoints/server/memory.py), so that its memory is reused.
_SMALLEST_CHUNK, _LARGEST_CHUNK = 64 * 1024, 480 * 1024
_QUICK, _SLOW = 0.02, 0.1  # seconds that a client takes for a chunk: the next one is larger, or smaller
_LONGEST_PAUSE = 3.0  # seconds
_COUNT_SECONDS = 0.5  # between two updates of the metrics, which would show a large blob only at its end
# Errors of sendfile that mean a lost connection; all others concern the file.
_GONE = frozenset({errno.EPIPE, errno.ECONNRESET, errno.ECONNABORTED, errno.ETIMEDOUT, errno.EHOSTUNREACH})


async def deliver(
    request: Request,
    status: int,
    headers: Header,
    media_type: str,
    pieces: AsyncIterator[Piece],
    *,
    damaged: Callable[[], Awaitable[None]] | None = None,
) -> None:
    """Stream the pieces; sending waits while the client does not read.

    An error before the first byte is raised and becomes an error response. After the first byte no error can be sent:
    the connection is aborted, without the last chunk if the length is unknown, so that the client sees a short body and
    never a false success. If a stored file turns out to be too short, `damaged` is called first.
    """
    if request.version == "1.0" and "Content-Length" not in headers:
        raise RequestInvalid(
            "the length of this content is unknown, and HTTP/1.0 cannot send content of unknown length"
        )
    first = await anext(pieces, b"")
    with streamed(request, status) as outcome:
        response = await request.respond(status=status, headers=headers, content_type=media_type)
        try:
            with closing(BodySender(request, response, outcome)) as sender:
                await sender.send(first)
                async for piece in pieces:
                    await sender.send(piece)
        except Exception as error:  # noqa: BLE001 - after any error, the body must not look complete
            outcome.fault, request.ctx.fault_result = _fault(error), fault_result_of(error)
            if isinstance(error, ContentShort) and damaged:
                await _report(damaged)
            # Sanic cancels this task when the connection is lost, as for a client that leaves, and then does not try to
            # complete the response.
            cast("asyncio.WriteTransport", request.transport).abort()
            await asyncio.Event().wait()
        await response.eof()
        close_if_stopping(request)


def _fault(error: Exception) -> str:
    """Why the body ends early, for the access log. An internal error is logged here."""
    match error:
        case RegistryError():
            return error.message
        case ContentShort():
            return "the stored content is too short"
    _LOG.error("an error while a response body was sent", exc_info=error)
    return "internal error"


async def _report(damaged: Callable[[], Awaitable[None]]) -> None:
    try:
        await damaged()
    except Exception as error:  # noqa: BLE001 - the connection is aborted in any case
        _LOG.error("an error while damaged content was removed", exc_info=error)


def close_if_stopping(request: Request) -> None:
    """While the service stops, close the connection after this response."""
    # Compared with None, because a stream is false once its response has been sent.
    if request.app.ctx.is_stopping and request.stream is not None:
        cast("Http", request.stream).keep_alive = False


class BodySender:
    """Sends the pieces of one response body and counts their bytes in `outcome`. The owner closes the BodySender.

    Sanic sends the head and keeps the connection; the kernel copies parts of files, where that is possible. Each rule
    below prevents a failure that occurred without it.
    """

    def __init__(self, request: Request, response: BaseHTTPResponse, outcome: BodyOutcome) -> None:
        self._request = request
        self._response = response
        self._outcome = outcome
        self._stream = cast("Http", request.stream)
        self._transport = cast("asyncio.Transport", request.transport)
        self._threads: CopyThreads = request.app.ctx.copy_threads
        self._kernel_copy: KernelCopy | None = None
        self._chunk = _SMALLEST_CHUNK
        self._count_at = time.monotonic() + _COUNT_SECONDS

    async def send(self, piece: Piece) -> None:
        """Raises ContentShort, RequestCancelled when the client has left, OSError when the file cannot be read."""
        if not isinstance(piece, ContentPart):
            if piece:
                await self._response.send(piece)  # type: ignore[type-var]  # it accepts any bytes-like object
                self._sent(len(piece))
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
        if self._kernel_copy:
            self._kernel_copy.close()

    async def _copy(self, file: int, start: int, stop: int) -> None:
        if stop - start > self._stream.response_bytes_left:
            raise ServerError("Response was bigger than content-length")  # the error that Sanic raises; nothing is sent
        await self._flush()
        if self._kernel_copy is None:
            # Sanic closes the connection if nothing is sent for RESPONSE_TIMEOUT, so pauses must be shorter.
            longest = min(_LONGEST_PAUSE, self._stream.protocol.response_timeout / 3)
            self._kernel_copy = KernelCopy(self._transport, self._threads, self._account, longest)
        # Sanic would close the connection of a client that has shut down its sending side but still reads. If a client
        # leaves, sendfile fails. If Sanic has paused reading already, that stays so.
        was_reading = self._transport.is_reading()
        self._transport.pause_reading()
        try:
            await self._kernel_copy.send(file, start, stop)
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
        self._sent(step.result())

    def _sent(self, size: int) -> None:
        self._outcome.size += size
        if (now := time.monotonic()) >= self._count_at:
            self._count_at = now + _COUNT_SECONDS
            count_bytes(self._request, self._outcome)

    async def _read_and_send(self, part: ContentPart) -> None:
        position = part.start
        while position < part.stop:
            stop, began = min(position + self._chunk, part.stop), time.monotonic()
            if isinstance(part.file, FileBacked):
                # In the threads of the copies: requests that open content must not wait for reads from a slow disk.
                content = await self._threads.read(part.file.descriptor, position, stop)
            else:
                content = await part.file.read(position, stop)
            if not content:
                raise ContentShort
            await self._response.send(content)
            self._sent(len(content))
            position += len(content)
            took = time.monotonic() - began
            if took < _QUICK:
                self._chunk = min(2 * self._chunk, _LARGEST_CHUNK)
            elif took > _SLOW:
                self._chunk = max(self._chunk // 2, _SMALLEST_CHUNK)
