"""MirrorProtocol: the asyncio protocol of one client connection."""

import asyncio
import json
from typing import Any, cast

from sanic.exceptions import RequestTimeout
from sanic.http.constants import Stage
from sanic.server.protocols.base_protocol import SanicProtocol
from sanic.server.protocols.http_protocol import HttpProtocol

from entrypoints.http.connection.connection_table import Connection, ConnectionState
from entrypoints.http.connection.graceful_close import GracefulClose
from entrypoints.http.connection.request_parser import MetricsHttp, StrictHttp
from entrypoints.http.responses.error_responses import error_body

_TLS_HANDSHAKE = b"\x16\x03"  # RFC 8446 section 5.1: a handshake record, of any version
_BODY = json.dumps(
    error_body("UNSUPPORTED", "this port of the mirror accepts plain HTTP only, not HTTPS", None)
).encode()
_ANSWER = (
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\nConnection: close\r\n"
    b"Content-Length: " + str(len(_BODY)).encode() + b"\r\n\r\n" + _BODY
)


class MirrorProtocol(HttpProtocol):
    """Sanic's protocol with our parser and an entry in the ConnectionTable, which enforces the timeouts. Sanic's own
    timers measure silence only, so that a client can delay them with one byte now and then; and each timer fires once.
    """

    __slots__ = ("connection",)

    HTTP_CLASS = StrictHttp
    # HttpProtocol.send also looks for handlers of a signal of Sanic, which takes several times as long as the write.
    # The mirror has no such handler.
    send = SanicProtocol.send

    def __init__(self, *, connection: Connection, **others: Any) -> None:
        super().__init__(**others)
        self.connection = connection

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.connection.expire = self._expire
        self.connection.abort = self.abort
        super().connection_made(transport)  # type: ignore[no-untyped-call]

    def connection_lost(self, exc: Exception | None) -> None:
        self.connection.closed()
        super().connection_lost(exc)  # type: ignore[no-untyped-call]

    def data_received(self, data: bytes) -> None:
        """Reject a TLS handshake at once. Docker, podman and skopeo try HTTPS first, even if HTTP is allowed. Sanic
        would wait for the end of the request, and these clients for ten seconds.
        """
        is_handshake = not self.recv_buffer and data.startswith(_TLS_HANDSHAKE)
        if is_handshake and self.transport and self.transport.get_extra_info("ssl_object") is None:
            self.connection.enter(ConnectionState.CLOSING)
            self.transport.write(_ANSWER)
            self.transport.close()
            return
        super().data_received(data)

    def close(self, timeout: float | None = None) -> None:  # noqa: ARG002 - Sanic's interface
        """Close when the client has received everything. It may be slow, but not silent for RESPONSE_TIMEOUT."""
        if timer := cast("asyncio.TimerHandle | None", self._callback_check_timeouts):
            timer.cancel()
        if self.transport and not self.transport.is_closing():
            self.connection.enter(ConnectionState.BUSY)
            GracefulClose(self.loop, self.transport, self._is_lost, self.response_timeout)

    def abort(self) -> None:
        """Close at once. Sanic's method also clears the transport, and then fails when it ends a request whose head is
        not complete.
        """
        if self.transport:
            self.transport.abort()

    def close_slowly(self) -> None:
        """Send nothing more, and read until the client closes the connection or its time is over."""
        self.connection.enter(ConnectionState.CLOSING)
        if self.transport and self.transport.can_write_eof():
            self.transport.write_eof()
        elif self.transport:
            self.transport.close()

    def check_timeouts(self) -> None:
        super().check_timeouts()  # type: ignore[no-untyped-call]
        if self._task and self._task.cancelling():
            # Sanic does not check again, and the error response may wait for a client that does not read.
            self.connection.enter(ConnectionState.CLOSING)

    def _is_lost(self) -> bool:
        """Whether Sanic has recorded the end of the connection."""
        return self.conn_info is None or self.conn_info.lost

    def _expire(self) -> None:
        """The head or the body did not arrive in time. If a part of the request has arrived, answer 408 (RFC 9110
        section 15.5.9).
        """
        if self._task is None or self._http is None or self._http.stage is Stage.IDLE:
            self.abort()
            return
        self._http.exception = RequestTimeout("the request did not arrive in time")
        self._task.cancel()


class MetricsProtocol(MirrorProtocol):
    """The protocol of a connection at METRICS_PORT."""

    __slots__ = ()

    HTTP_CLASS = MetricsHttp
