"""The protocol of a connection to an upstream."""

import asyncio
import select
from collections.abc import Mapping
from functools import partial
from typing import Any

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.http import RawResponseMessage
from aiohttp.streams import StreamReader

from adapters.upstream.receive_buffers import ReceiveBuffers

_SWITCHING_PROTOCOLS = 101  # the last response on a connection, unlike the other interim responses
_INTERIM = range(100, 200)  # aiohttp treats statuses below 100 as final, too
_END_OF_HEAD = b"\r\n\r\n"
_LARGE_BODY = 1024 * 1024  # bytes


class SingleResponseHandler(ResponseHandler):
    """The protocol of a connection: exactly one response for each request. Closes the connection when bytes arrive that
    belong to no response. The previous response stays readable.

    A server may send more bytes than it declared: a response without a request, a body where none is allowed (RFC 9112
    section 6.3), or bytes after the last chunk. aiohttp keeps such a connection and parses the bytes as the response to
    the next request, which may belong to another caller (RFC 9112 section 11.2).
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, buffers: ReceiveBuffers, keeps: ResponseHandler | None = None
    ) -> None:
        """`buffers`: for large bodies. `keeps`: an object that must live as long as the connection."""
        super().__init__(loop)
        self.buffers = buffers
        self._keeps = keeps
        self._is_answered = True
        """No request is in progress, or the header of its final response has arrived."""
        self._last = b""
        """The last received bytes of an incomplete header of a response without a body."""
        self._large_body: StreamReader | None = None
        """The large body whose first bytes the server has not sent yet; None if there is no such body."""

    def set_response_params(self, **params: Any) -> None:
        """Called by aiohttp before it sends a request."""
        self._is_answered, self._last, self._large_body = False, b"", None
        super().set_response_params(**params)

    def feed_data(self, data: tuple[RawResponseMessage, StreamReader], size: int = 0) -> None:
        """The parser calls this when it has parsed the header of a response."""
        if self._is_answered:
            self._refuse_excess()
            return
        status = data[0].code
        self._is_answered = status not in _INTERIM or status == _SWITCHING_PROTOCOLS
        if self._is_answered and not self._skip_payload and has_large_body(data[0].headers):
            self._large_body = data[1]
        super().feed_data(data, size)

    def data_received(self, data: bytes) -> None:
        if data and self._is_complete:
            self._refuse_excess()
            return
        data, excess = self._without_body(data)
        super().data_received(data)
        self._pause_large_body()
        if excess:
            self.data_received(excess)
        elif self._is_complete and self._has_begun_another():
            self._refuse_excess()

    def _pause_large_body(self) -> None:
        """Stop reading at the first bytes of a large body. Otherwise aiohttp would first buffer megabytes (twice the
        `read_bufsize` of the session): this takes milliseconds, and the client waits for the first byte. Reading these
        bytes resumes the connection.
        """
        if self._large_body is not None and self._large_body.total_bytes:
            self._large_body = None
            self.pause_reading()

    def _without_body(self, data: bytes) -> tuple[bytes, bytes]:
        """The bytes up to the end of the header, and the bytes after it, if the response must not have a body.

        If the parser got a body after the response to a HEAD, it would fail and would not return the header either.
        """
        if not self._skip_payload or self._is_answered:
            return data, b""
        known = len(self._last)
        end = (self._last + data).find(_END_OF_HEAD)
        if end < 0:
            self._last = (self._last + data)[1 - len(_END_OF_HEAD) :]
            return data, b""
        stop = end + len(_END_OF_HEAD) - known
        self._last = b""
        return data[:stop], data[stop:]

    def close(self) -> None:
        """Called by aiohttp when the connection is not used any more. Abort it if the response has not ended: closing
        TLS in order would receive and discard the rest of the body for up to 30 seconds.
        """
        if self._is_complete:
            super().close()
        else:
            self.abort()

    def is_connected(self) -> bool:
        """Called by aiohttp before it takes a connection from its pool. If an idle connection is readable, the server
        has sent excess bytes or has closed it.
        """
        return super().is_connected() and not (self._is_complete and self._is_readable())

    @property
    def _is_complete(self) -> bool:
        """The server must not send anything until the next request."""
        return self._is_answered and (self._payload is None or self._payload.is_eof())

    def _has_begun_another(self) -> bool:
        """Whether the parser contains the start of another response: feed_eof then returns a message or fails. The
        parser is not used again, because each request gets a new one.
        """
        try:
            return self._parser is not None and self._parser.feed_eof() is not None
        except Exception:  # noqa: BLE001 - it contains an invalid response
            return True

    def _is_readable(self) -> bool:
        connection = self.transport.get_extra_info("socket") if self.transport else None
        if connection is None or connection.fileno() < 0:
            return False
        poll = select.poll()
        poll.register(connection.fileno(), select.POLLIN)
        return bool(poll.poll(0))

    def _refuse_excess(self) -> None:
        self.force_close()
        # An error of the parser at the end of the connection would concern these bytes, not the response.
        self._parser = None
        self._payload = None
        if self.transport is not None:
            self.transport.abort()


def has_large_body(headers: Mapping[str, str]) -> bool:
    """Whether a response to GET has a body without any coding whose length is known and at least 1 MiB."""
    length = headers.get("Content-Length", "")
    is_bare = "Transfer-Encoding" not in headers and "Content-Encoding" not in headers
    return is_bare and length.isdecimal() and int(length) >= _LARGE_BODY


def use_single_response_handler(connector: aiohttp.TCPConnector) -> None:
    """Make the connector use SingleResponseHandler. aiohttp has no public way to choose the protocol.

    Raises RuntimeError if this version of aiohttp creates protocols in another way. Otherwise the connector would
    silently use aiohttp's own handler.
    """
    loop = asyncio.get_running_loop()
    made = getattr(connector, "_factory", None)
    if not isinstance(made, partial) or made.func is not ResponseHandler or made.keywords != {"loop": loop}:
        raise RuntimeError(f"aiohttp {aiohttp.__version__} creates the protocol of a connection in an unknown way")
    factory = partial(SingleResponseHandler, loop, ReceiveBuffers(loop))
    connector._factory = factory  # type: ignore[assignment]  # noqa: SLF001 - see above
