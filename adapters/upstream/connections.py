"""The protocol of connections to upstreams: exactly one response for each request.

A server may send more bytes than it declared: a response without a request, a body where none is allowed (RFC 9112
section 6.3), or bytes after the last chunk. aiohttp keeps such a connection and parses the bytes as the response to
the next request, which may belong to another caller (RFC 9112 section 11.2).
"""

import asyncio
import select
from functools import partial
from typing import Any

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.http import RawResponseMessage
from aiohttp.streams import StreamReader
from aiohttp_socks import ProxyConnector

_SWITCHING_PROTOCOLS = 101  # the last answer on a connection, unlike the other interim ones
_INTERIM = range(100, 200)  # aiohttp takes what is below for a final answer, too
_END_OF_HEAD = b"\r\n\r\n"


class SingleResponseHandler(ResponseHandler):
    """Closes the connection when bytes arrive that belong to no response. The previous response stays readable."""

    def __init__(self, loop: asyncio.AbstractEventLoop, keeps: object = None) -> None:
        """`keeps`: an object that must live as long as the connection."""
        super().__init__(loop)
        self._keeps = keeps
        self._is_answered = True
        """No request is in progress, or the header of its final response has arrived."""
        self._last = b""
        """The last received bytes of an incomplete header of a response without a body."""

    def set_response_params(self, **params: Any) -> None:
        """Called by aiohttp before it sends a request."""
        self._is_answered, self._last = False, b""
        super().set_response_params(**params)

    def feed_data(self, data: tuple[RawResponseMessage, StreamReader], size: int = 0) -> None:
        """The parser calls this when it has parsed the header of a response."""
        if self._is_answered:
            self._refuse_excess()
            return
        status = data[0].code
        self._is_answered = status not in _INTERIM or status == _SWITCHING_PROTOCOLS
        super().feed_data(data, size)

    def data_received(self, data: bytes) -> None:
        if data and self._is_complete:
            self._refuse_excess()
            return
        data, excess = self._without_body(data)
        super().data_received(data)
        if excess:
            self.data_received(excess)
        elif self._is_complete and self._has_begun_another():
            self._refuse_excess()

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


class SingleResponseSocksConnector(ProxyConnector):
    """Uses SingleResponseHandler through a SOCKS proxy. The base class creates a protocol to keep a writer alive."""

    async def _connect_via_proxy(self, *args: Any, **options: Any) -> tuple[asyncio.Transport, ResponseHandler]:
        transport, given = await super()._connect_via_proxy(*args, **options)
        handler = SingleResponseHandler(self._loop, keeps=given)
        transport.set_protocol(handler)
        handler.connection_made(transport)
        return transport, handler


def use_single_response_handler(connector: aiohttp.TCPConnector) -> None:
    """Make the connector use SingleResponseHandler. aiohttp has no public way to choose the protocol.

    Raises RuntimeError if this version of aiohttp creates protocols in another way. Otherwise the connector would
    silently use aiohttp's own handler.
    """
    loop = asyncio.get_running_loop()
    made = getattr(connector, "_factory", None)
    if not isinstance(made, partial) or made.func is not ResponseHandler or made.keywords != {"loop": loop}:
        raise RuntimeError(f"aiohttp {aiohttp.__version__} creates the protocol of a connection in an unknown way")
    factory = partial(SingleResponseHandler, loop)
    connector._factory = factory  # type: ignore[assignment]  # noqa: SLF001 - see above
