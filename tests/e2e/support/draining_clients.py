"""Clients that discard the body: the kernel drops the bytes, so counting them is cheap."""

import hashlib
import re
import socket
import threading
from collections.abc import Sequence

PIECE = 1 << 20


class Drain(threading.Thread):
    """One GET over its own socket. `received` is the number of body bytes; `digest` needs the argument `digest`."""

    def __init__(self, port: int, path: str, headers: Sequence[str] = (), *, digest: bool = False) -> None:
        super().__init__()
        self._port = port
        self._lines = [f"GET {path} HTTP/1.1", f"Host: 127.0.0.1:{port}", "Connection: close", *headers]
        self._hash = hashlib.sha256() if digest else None
        self.status = 0
        self.expected = -1
        self.received = 0

    @property
    def digest(self) -> str:
        assert self._hash
        return "sha256:" + self._hash.hexdigest()

    def run(self) -> None:
        with socket.create_connection(("127.0.0.1", self._port), timeout=120) as connection:
            connection.sendall("\r\n".join([*self._lines, "", ""]).encode())
            head = b""
            while b"\r\n\r\n" not in head:
                head += connection.recv(65536)
            head, _, body = head.partition(b"\r\n\r\n")
            self.status = int(head.split(b" ", 2)[1])
            length = re.search(rb"(?im)^content-length: *(\d+)", head)
            self.expected = int(length[1]) if length else -1
            self._take(memoryview(body))
            self._read_on(connection)

    def _read_on(self, connection: socket.socket) -> None:
        room = memoryview(bytearray(PIECE))
        # With MSG_TRUNC the kernel reports the bytes and copies none of them.
        flags = 0 if self._hash else socket.MSG_TRUNC
        while count := connection.recv_into(room, PIECE, flags):
            self._take(room[:count])

    def _take(self, piece: memoryview) -> None:
        self.received += len(piece)
        if self._hash:
            self._hash.update(piece)
