"""Receives large bodies directly into buffers of the mirror, and decodes small ones.

aiohttp copies each byte three times: from the event loop's buffer, from its parser's buffer, and when it joins pieces.
For a layer this costs more than hashing. So BodyReceiver replaces aiohttp's protocol for the rest of a large body.
"""

import asyncio
import zlib
from collections.abc import AsyncGenerator
from typing import Self

import aiohttp

from adapters.upstream.receive_buffers import BUFFER_BYTES
from adapters.upstream.response_protocol import SingleResponseHandler, has_large_body
from domain.digest import Bytes
from domain.errors import UpstreamBodyTooLarge, UpstreamBroken

_FIRST_BUFFER_BYTES = 64 * 1024
"""The size of the first buffer in bytes. All further buffers have BUFFER_BYTES; no piece is longer."""
_AHEAD = 2 * BUFFER_BYTES
"""Bytes that may be buffered after the first piece was read."""


class BodyReceiver(asyncio.BufferedProtocol):
    """The protocol of the connection, from `take` until the end of `pieces`.

    `take` must replace the protocol at once, before anything reads the body. aiohttp gives a connection to the next
    request as soon as it has received a response. A reader of that earlier response then makes aiohttp resume the
    connection, and aiohttp's own protocol would consume bytes of the new body.
    """

    def __init__(
        self, raw: aiohttp.ClientResponse, handler: SingleResponseHandler, transport: asyncio.Transport
    ) -> None:
        self._raw = raw
        self._handler = handler
        self._transport = transport
        self._begun = raw.content.read_nowait()
        handler.pause_reading()  # read_nowait may have resumed it; this also stops aiohttp's timeout
        transport.set_protocol(self)
        self._missing = (raw.content_length or 0) - raw.content.total_bytes
        self._buffer = memoryview(bytearray(_FIRST_BUFFER_BYTES))
        self._begin = self._end = 0
        """The part of the buffer that contains received bytes that `pieces` has not returned yet."""
        self._full: list[memoryview] = []
        self._ahead = 1
        """Reading pauses at this number of buffered bytes. It is 1 until the first piece was returned: receiving
        megabytes takes milliseconds, and the client waits for the first byte.
        """
        self._waiter: asyncio.Future[None] | None = None
        self._is_lost = False
        self._has_excess = False
        """The server sent more bytes than the body. They must not be read as the response to the next request."""

    @classmethod
    def take(cls, raw: aiohttp.ClientResponse) -> Self | None:
        """A receiver for the rest of the body, or None if aiohttp should continue: the body is too small to be worth
        the replacement, its length is unknown, it has a coding, or the connection is closing.
        """
        handler = raw.connection.protocol if raw.connection else None
        transport = handler.transport if handler is not None else None  # a handler with an empty queue is falsy
        if not isinstance(handler, SingleResponseHandler) or transport is None or transport.is_closing():
            return None
        is_large = raw.method == "GET" and has_large_body(raw.headers) and not raw.content.is_eof()
        return cls(raw, handler, transport) if is_large else None

    async def pieces(self) -> AsyncGenerator[Bytes, None]:
        """The part of the body that aiohttp had received, then the rest, each piece as soon as bytes have arrived.

        Raises the errors that aiohttp raises: SocketTimeoutError, ClientPayloadError, or the connection's error.
        """
        try:
            if self._begun:
                yield self._begun
            while piece := await self._next():
                yield piece
        finally:
            self._give_back()

    async def _next(self) -> memoryview | None:
        """The next piece, or None at the end of the body."""
        if self._missing and not self._is_lost:
            self._transport.resume_reading()
        while not self._full and self._begin == self._end:
            if not self._missing:
                return None
            if self._is_lost:
                raise aiohttp.ClientPayloadError(f"{self._missing} bytes of the body are missing")
            await self._arrival()
        if self._full:
            piece = self._full.pop(0)
        else:
            piece, self._begin = self._buffer[self._begin : self._end], self._end
        self._ahead = _AHEAD
        return piece

    async def _arrival(self) -> None:
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(self._handler.read_timeout):
                await self._waiter
        except TimeoutError:
            raise aiohttp.SocketTimeoutError("no byte came") from None
        finally:
            self._waiter = None

    def _give_back(self) -> None:
        if self._is_lost:
            return
        self._transport.pause_reading()
        self._transport.set_protocol(self._handler)
        if not self._missing and not self._has_excess:
            # Tell aiohttp that the body is complete, so that it uses the connection for the next request.
            self._raw.content.feed_eof()

    # --- what the transport calls ---

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - part of the interface
        return self._buffer[self._end : self._end + self._missing + 1]

    def buffer_updated(self, nbytes: int) -> None:
        self._has_excess = nbytes > self._missing
        nbytes = min(nbytes, self._missing)
        self._end += nbytes
        self._missing -= nbytes
        if self._end >= len(self._buffer) - 1:  # a single free byte is not worth another read
            self._full.append(self._buffer[self._begin : self._end])
            # Another buffer, because the consumer may keep the pieces.
            self._buffer, self._begin, self._end = self._handler.buffers.take(), 0, 0
        if not self._missing or sum(map(len, self._full)) >= self._ahead:
            self._transport.pause_reading()
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        self._is_lost = True
        self._handler.connection_lost(exc)
        self._wake()

    def _wake(self) -> None:
        if self._waiter and not self._waiter.done():
            self._waiter.set_result(None)


def has_content_coding(coding: str | None) -> bool:
    """Whether a Content-Encoding field names a coding other than `identity`."""
    return bool(coding) and (coding or "").strip().lower() != "identity"


def decode_body(content: bytes, coding: str | None, limit: int) -> bytes:
    """The body without its content coding (RFC 9110 section 8.4).

    Raises UpstreamBroken for codings other than gzip and for invalid gzip, and UpstreamBodyTooLarge if the decoded body
    would be longer than `limit` bytes: a few kilobytes may decode to gigabytes. The mirror hashes or parses a decoded
    body afterwards, so decoding does not weaken any check.
    """
    if not has_content_coding(coding):
        return content
    if (coding or "").strip().lower() not in {"gzip", "x-gzip"}:  # RFC 9110 section 8.4.1.3
        raise unexpected_coding(coding)
    machine = zlib.decompressobj(zlib.MAX_WBITS | 16)  # 16: with the header and the trailer of gzip
    try:
        plain = machine.decompress(content, limit + 1)
    except zlib.error as error:
        raise UpstreamBroken("the upstream sent content that is labelled gzip but is not gzip") from error
    if len(plain) > limit:
        raise UpstreamBodyTooLarge(
            f"the upstream sent more than {limit} bytes, which is the limit for this kind of answer"
        )
    if not machine.eof:
        raise UpstreamBroken("the upstream stopped sending the content before its end")
    return plain


def unexpected_coding(coding: str | None) -> UpstreamBroken:
    """The error for a content coding that the mirror does not decode."""
    return UpstreamBroken(
        f"the upstream sent content with the coding {(coding or '')[:32]!r}, which the mirror did not request"
    )
