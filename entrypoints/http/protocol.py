"""Sanic's protocol, but for the first bytes of clients that try TLS where there is none."""

import json

from sanic.server.protocols.http_protocol import HttpProtocol

from entrypoints.http.errors import error_body

_TLS_HANDSHAKE = b"\x16\x03"  # RFC 8446 section 5.1: a handshake record, of any version
_BODY = json.dumps(error_body("UNSUPPORTED", "this mirror speaks plain HTTP on this port", None)).encode()
_ANSWER = (
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\nConnection: close\r\n"
    b"Content-Length: " + str(len(_BODY)).encode() + b"\r\n\r\n" + _BODY
)


class PlainProtocol(HttpProtocol):
    """Docker, podman and skopeo try https first, also where they may use http. Left without an answer they wait for
    ten seconds each time, for Sanic would go on waiting for the end of a request that never comes.
    """

    __slots__ = ()

    def data_received(self, data: bytes) -> None:
        if not self.recv_buffer and data.startswith(_TLS_HANDSHAKE) and self.transport:
            self.transport.write(_ANSWER)
            self.transport.close()
            return
        super().data_received(data)
