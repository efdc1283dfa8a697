"""The protocol of a connection to an upstream: one answer for each request, and not a byte behind it.

Whoever is at the other end may send more than it declared: an answer that nobody asked for, a body where there is none
(RFC 9112 section 6.3), bytes behind the last chunk. aiohttp keeps such a connection, and reads them as the answer to
the next request, which may be another caller's (RFC 9112 section 11.2).
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
    """Closes its connection when bytes come that belong to no answer. The answer before them stays readable."""

    def __init__(self, loop: asyncio.AbstractEventLoop, keeps: object = None) -> None:
        """`keeps` is something that must live as long as the connection."""
        super().__init__(loop)
        self._keeps = keeps
        self._is_answered = True
        """No request is under way, or the head of its final answer has come."""
        self._last = b""
        """The last bytes of what has come of the head of an answer without a body."""

    def set_response_params(self, **params: Any) -> None:
        """A request is about to be sent."""
        self._is_answered, self._last = False, b""
        super().set_response_params(**params)

    def feed_data(self, data: tuple[RawResponseMessage, StreamReader], size: int = 0) -> None:
        """The parser has found the head of an answer."""
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
        """Up to the end of the head where no body may follow it, and the rest. The parser, which takes a body behind
        the answer to a HEAD for a broken answer, would give nothing of the head either.
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
        """Aiohttp asks this before it takes a connection out of its pool. One on which there is something to read has
        bytes too many, or its end.
        """
        return super().is_connected() and not (self._is_complete and self._is_readable())

    @property
    def _is_complete(self) -> bool:
        """Nothing is to come until the next request."""
        return self._is_answered and (self._payload is None or self._payload.is_eof())

    def _has_begun_another(self) -> bool:
        """Whether the parser holds the beginning of a further answer: then it makes one of it when told of the end. It
        is not used again: each request gets a parser of its own.
        """
        try:
            return self._parser is not None and self._parser.feed_eof() is not None
        except Exception:  # noqa: BLE001 - it holds something, and that is broken
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
        # What the parser would say at the end of the connection is about these bytes, and not about the answer.
        self._parser = None
        self._payload = None
        if self.transport is not None:
            self.transport.abort()


class SingleResponseSocksConnector(ProxyConnector):
    """Makes such connections through a SOCKS proxy. Its base makes a protocol of its own, to keep the writer alive."""

    async def _connect_via_proxy(self, *args: Any, **options: Any) -> tuple[asyncio.Transport, ResponseHandler]:
        transport, given = await super()._connect_via_proxy(*args, **options)
        handler = SingleResponseHandler(self._loop, keeps=given)
        transport.set_protocol(handler)
        handler.connection_made(transport)
        return transport, handler


def use_single_response_handler(connector: aiohttp.TCPConnector) -> None:
    """Make the connector's connections such ones. aiohttp has no other way to choose their protocol.

    Raises RuntimeError where this aiohttp does not make its connections so: then none of them would be such a one, and
    nothing would tell.
    """
    loop = asyncio.get_running_loop()
    made = getattr(connector, "_factory", None)
    if not isinstance(made, partial) or made.func is not ResponseHandler or made.keywords != {"loop": loop}:
        raise RuntimeError(f"aiohttp {aiohttp.__version__} creates the protocol of a connection in an unknown way")
    factory = partial(SingleResponseHandler, loop)
    connector._factory = factory  # type: ignore[assignment]  # noqa: SLF001 - see above
