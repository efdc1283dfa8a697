"""Receives a large body into buffers of ours, straight from the kernel or from TLS.

aiohttp copies each byte three times on its way: out of the loop's buffer, out of its parser's, and where pieces are
joined. For a layer that cost more than hashing it. So for the rest of one body the connection's protocol is ours.
"""

import asyncio
import zlib
from collections.abc import AsyncGenerator
from typing import Self

import aiohttp
from aiohttp.client_proto import ResponseHandler

from domain.digest import Bytes
from domain.errors import UpstreamBodyTooLarge, UpstreamBroken

_LARGE = 1024 * 1024
"""Bytes still to come; for fewer, the change is not worth it."""
_FIRST, _ROOM = 64 * 1024, 512 * 1024
"""Bytes of the first buffer, and of all others; no piece is longer."""
_AHEAD = 4 * _ROOM
"""Bytes that may wait to be taken later on."""


class BodyReceiver(asyncio.BufferedProtocol):
    """The connection's protocol, from `take` until the end of `pieces`.

    From `take` on, and not only once somebody reads: aiohttp gives a connection to the next request as soon as it has
    received an answer, and who still reads that earlier answer makes aiohttp resume the connection, whosever it is by
    then. Where aiohttp was its protocol still, it took bytes of this body for itself.
    """

    def __init__(self, raw: aiohttp.ClientResponse, handler: ResponseHandler, transport: asyncio.Transport) -> None:
        self._raw = raw
        self._handler = handler
        self._transport = transport
        self._begun = raw.content.read_nowait()
        handler.pause_reading()  # which that may have resumed; it also ends aiohttp's time limit
        transport.set_protocol(self)
        self._missing = (raw.content_length or 0) - raw.content.total_bytes
        self._room = _room(_FIRST)
        self._begin = self._end = 0
        """Of what lies in the room and was not taken yet."""
        self._full: list[memoryview] = []
        self._ahead = 1
        """So many bytes may wait to be taken; then reading pauses. Until the first ones have been dealt with, no more
        come: to receive megabytes takes milliseconds, and somebody waits for the first byte.
        """
        self._waiter: asyncio.Future[None] | None = None
        self._is_lost = False
        self._has_excess = False
        """More came than the body: whatever it is, it is no answer to the next request."""

    @classmethod
    def take(cls, raw: aiohttp.ClientResponse) -> Self | None:
        """Who receives the body from now on. None where aiohttp is to go on: little is left, the length is unknown, the
        body is coded, or the connection has come to an end.
        """
        handler = raw.connection.protocol if raw.connection else None
        transport = handler.transport if handler is not None else None  # an empty queue is one of its bases, and false
        is_bare = raw.method == "GET" and not raw.headers.keys() & {"Transfer-Encoding", "Content-Encoding"}
        is_large = (raw.content_length or 0) - raw.content.total_bytes >= _LARGE
        if handler is None or transport is None or transport.is_closing() or not is_bare or not is_large:
            return None
        return cls(raw, handler, transport)

    async def pieces(self) -> AsyncGenerator[Bytes, None]:
        """What aiohttp had of the body, and the rest; each piece as soon as something is there.

        Raises what aiohttp would: SocketTimeoutError, ClientPayloadError, or its connection's error.
        """
        try:
            if self._begun:
                yield self._begun
            while piece := await self._next():
                yield piece
        finally:
            self._give_back()

    async def _next(self) -> memoryview | None:
        """None at the end of the body."""
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
            piece, self._begin = self._room[self._begin : self._end], self._end
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
            # As far as aiohttp is concerned, too: its connection can have the next request. It reads on by itself.
            self._raw.content.feed_eof()

    # --- what the transport calls ---

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - part of the interface
        return self._room[self._end : self._end + self._missing + 1]

    def buffer_updated(self, nbytes: int) -> None:
        self._has_excess = nbytes > self._missing
        nbytes = min(nbytes, self._missing)
        self._end += nbytes
        self._missing -= nbytes
        if self._end >= len(self._room) - 1:
            self._full.append(self._room[self._begin : self._end])
            # A new one: whoever took a piece may keep it.
            self._room, self._begin, self._end = _room(_ROOM), 0, 0
        if not self._missing or sum(map(len, self._full)) >= self._ahead:
            self._transport.pause_reading()
        self._wake()

    def eof_received(self) -> None:
        """The transport closes itself then."""

    def connection_lost(self, exc: Exception | None) -> None:
        self._is_lost = True
        self._handler.connection_lost(exc)
        self._wake()

    def _wake(self) -> None:
        if self._waiter and not self._waiter.done():
            self._waiter.set_result(None)


def _room(size: int) -> memoryview:
    """For so many bytes, and one that must not come."""
    return memoryview(bytearray(size + 1))


_GZIP = frozenset({"gzip", "x-gzip"})  # RFC 9110 section 8.4.1.3
_WITH_GZIP_HEADER = zlib.MAX_WBITS | 16


def has_content_coding(coding: str | None) -> bool:
    """What a Content-Encoding field says."""
    return bool(coding) and (coding or "").strip().lower() != "identity"


def decode_body(content: bytes, coding: str | None, limit: int) -> bytes:
    """The body without its coding. Raises UpstreamBroken where it is another coding than gzip or none at all, or where
    more than `limit` bytes would come out: some kilobytes may hold gigabytes.

    What is read whole is hashed or parsed afterwards, so a decoded body is as good as one that came plain.
    """
    if not has_content_coding(coding):
        return content
    if (coding or "").strip().lower() not in _GZIP:
        raise unexpected_coding(coding)
    machine = zlib.decompressobj(_WITH_GZIP_HEADER)
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
    """The refusal of a coding that cannot be undone."""
    return UpstreamBroken(
        f"the upstream sent content with the coding {(coding or '')[:32]!r}, which the mirror did not request"
    )
