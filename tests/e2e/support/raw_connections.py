"""Connections with blocking sockets on which a test sends arbitrary bytes."""

import contextlib
import json
import socket
import ssl
import time
from collections.abc import Iterator
from typing import Any

PATIENCE = 30.0
"""Seconds to wait, long enough for a machine under load."""


class Raw:
    """One connection to 127.0.0.1."""

    def __init__(self, port: int, tls: ssl.SSLContext | None = None) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
        if tls:
            self.socket = tls.wrap_socket(self.socket, server_hostname="127.0.0.1")
        self._unread = bytearray()

    def send(self, data: bytes) -> None:
        with contextlib.suppress(ConnectionError):  # the service may have closed the connection at the first wrong byte
            self.socket.sendall(data)

    def send_slowly(self, data: bytes, pause: float, seconds: float) -> bool:
        """Send the data byte by byte, repeatedly. Returns whether the service closed the connection in `seconds`."""
        end = time.monotonic() + seconds
        self.socket.settimeout(pause)
        while time.monotonic() < end:
            for byte in data:
                try:
                    self.socket.sendall(bytes([byte]))
                    received = self.socket.recv(65536)
                except TimeoutError:
                    continue
                except OSError:
                    return True
                if not received:
                    return True
                self._unread += received
        return False

    def answer(self) -> tuple[int, dict[str, str], bytes]:
        """The next response with a length. Raises EOFError if the connection ends before it."""
        while b"\r\n\r\n" not in self._unread:
            self._receive()
        head = bytes(self._unread[: self._unread.index(b"\r\n\r\n")])
        del self._unread[: len(head) + 4]
        status_line, *lines = head.decode().split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        size = int(headers.get("content-length", 0))
        while len(self._unread) < size:
            self._receive()
        body = bytes(self._unread[:size])
        del self._unread[:size]
        return int(status_line.split()[1]), headers, body

    def error(self) -> tuple[int, str]:
        """The status and the error code of the next response, which must be an error in the registry's format."""
        status, headers, body = self.answer()
        assert headers["content-type"] == "application/json", headers
        document: Any = json.loads(body)
        return status, str(document["errors"][0]["code"])

    def is_ended(self, seconds: float = PATIENCE) -> bool:
        """Whether the service closes the connection within `seconds`. The bytes before that are kept for `answer`."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self.socket.settimeout(left)
            try:
                received = self.socket.recv(65536)
            except TimeoutError:
                return False
            except OSError:
                return True
            if not received:
                return True
            self._unread += received
        return False

    def close(self) -> None:
        self.socket.close()

    def _receive(self) -> None:
        self.socket.settimeout(PATIENCE)
        received = self.socket.recv(65536)
        if not received:
            raise EOFError(bytes(self._unread))
        self._unread += received


@contextlib.contextmanager
def raw(port: int, tls: ssl.SSLContext | None = None) -> Iterator[Raw]:
    connection = Raw(port, tls)
    try:
        yield connection
    finally:
        connection.close()


@contextlib.contextmanager
def several(port: int, number: int, data: bytes = b"") -> Iterator[list[Raw]]:
    """Open `number` connections and send the data on each."""
    with contextlib.ExitStack() as stack:
        connections = [stack.enter_context(raw(port)) for _ in range(number)]
        for connection in connections:
            connection.send(data)
        yield connections


def still_open(connections: list[Raw]) -> int:
    """The number of connections that the service has not closed."""
    return sum(not connection.is_ended(0.001) for connection in connections)
