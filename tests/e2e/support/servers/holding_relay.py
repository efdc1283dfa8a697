"""A TCP relay in front of a server: `holding_relay.py PORT BACKEND_PORT BYTES FILE`, a separate program.

It relays TCP unchanged, but stops each answer after BYTES bytes until FILE exists. So a test can act in the middle of
a transfer.
"""

import contextlib
import socket
import sys
import threading
import time
from pathlib import Path

PORT, BACKEND_PORT, BYTES = (int(argument) for argument in sys.argv[1:4])
OPEN = Path(sys.argv[4])
PIECE = 65536


class Relay:
    """One connection, both ways."""

    def __init__(self, client: socket.socket) -> None:
        self._client = client
        self._server = socket.create_connection(("127.0.0.1", BACKEND_PORT))
        self._passed = 0
        for way in (self._up, self._down):
            threading.Thread(target=way, daemon=True).start()

    def _up(self) -> None:
        with contextlib.suppress(OSError):
            while piece := self._client.recv(PIECE):
                self._passed = 0  # the next answer
                self._server.sendall(piece)
        with contextlib.suppress(OSError):
            self._server.shutdown(socket.SHUT_WR)

    def _down(self) -> None:
        with contextlib.suppress(OSError):
            while piece := self._server.recv(PIECE):
                self._passed += len(piece)
                while self._passed > BYTES and not OPEN.exists():
                    time.sleep(0.02)
                self._client.sendall(piece)
        with contextlib.suppress(OSError):
            self._client.shutdown(socket.SHUT_RDWR)


if __name__ == "__main__":
    with socket.create_server(("127.0.0.1", PORT), backlog=128) as listener:
        sys.stdout.write("listening\n")
        sys.stdout.flush()
        while True:
            Relay(listener.accept()[0])
