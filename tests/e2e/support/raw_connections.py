"""Connections on which a test sends whatever bytes it likes, from blocking sockets."""

import contextlib
import json
import socket
import ssl
import time
from collections.abc import Iterator
from typing import Any

PATIENCE = 30.0
"""Seconds; a machine under load is slow."""


class Raw:
    """One connection to 127.0.0.1."""

    def __init__(self, port: int, tls: ssl.SSLContext | None = None) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
        if tls:
            self.socket = tls.wrap_socket(self.socket, server_hostname="127.0.0.1")
        self._unread = bytearray()

    def send(self, data: bytes) -> None:
        with contextlib.suppress(ConnectionError):  # it may have been closed at the first wrong byte
            self.socket.sendall(data)

    def send_slowly(self, data: bytes, pause: float, seconds: float) -> bool:
        """A byte at a time, and the same again. Whether the service has ended the connection within the time."""
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
        """The next response that has a length. Raises EOFError where the connection ends before."""
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
        """The status of the next response, and the code of its error, in the registry's format."""
        status, headers, body = self.answer()
        assert headers["content-type"] == "application/json", headers
        document: Any = json.loads(body)
        return status, str(document["errors"][0]["code"])

    def is_ended(self, seconds: float = PATIENCE) -> bool:
        """Whether the service ends the connection within this time; what it sends before is kept for `answer`."""
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
    """So many connections, on each of which this was sent."""
    with contextlib.ExitStack() as stack:
        connections = [stack.enter_context(raw(port)) for _ in range(number)]
        for connection in connections:
            connection.send(data)
        yield connections


def still_open(connections: list[Raw]) -> int:
    """How many of them the service has not ended."""
    return sum(not connection.is_ended(0.001) for connection in connections)
