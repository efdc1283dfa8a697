"""A TCP gate in front of a server: it passes on all bytes or none, limits their rate, or refuses connections."""

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from tests.e2e.support.processes import free_port

_PIECE_BYTES = 16 * 1024
_WAYS = 2


class TcpGate:
    """Relays connections to a port on loopback. `connections`: how many it has accepted."""

    def __init__(self, backend_port: int) -> None:
        self.port = free_port()
        self.connections = 0
        self._backend_port = backend_port
        self._listener: socket.socket | None = None
        self._sockets: set[socket.socket] = set()
        self._passes = threading.Event()
        self._rate: float | None = None
        self._lock = threading.Lock()
        self._free_at = [0.0] * _WAYS
        self.open()

    def open(self) -> None:
        """Pass everything on, also what was held back."""
        self._rate = None
        self._passes.set()
        if self._listener is None:
            self._listener = socket.create_server(("127.0.0.1", self.port), backlog=128)
            threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def silence(self) -> None:
        """Accept connections and bytes, and pass nothing on."""
        self._passes.clear()

    def limit(self, bytes_per_second: float) -> None:
        """Limit the rate of all connections together, in each direction."""
        self._rate = bytes_per_second

    def refuse(self) -> None:
        """Close all connections, and refuse further ones."""
        if self._listener is not None:
            # Wakes the thread that accepts connections; closing the descriptor does not.
            with contextlib.suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            self._listener = None
        self.cut()

    def cut(self) -> None:
        """Close all connections."""
        for each in list(self._sockets):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self.refuse()
        self._passes.set()  # ends the threads

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                self.connections += 1
                threading.Thread(target=self._connect, args=(client,), daemon=True).start()

    def _connect(self, client: socket.socket) -> None:
        self._sockets.add(client)
        self._passes.wait()
        try:
            server = socket.create_connection(("127.0.0.1", self._backend_port))
        except OSError:
            client.close()
            self._sockets.discard(client)
            return
        self._sockets.add(server)
        up = threading.Thread(target=self._relay, args=(client, server, 0), daemon=True)
        up.start()
        self._relay(server, client, 1)
        up.join()
        for each in (client, server):
            self._sockets.discard(each)
            each.close()

    def _relay(self, source: socket.socket, target: socket.socket, way: int) -> None:
        with contextlib.suppress(OSError):
            while piece := source.recv(_PIECE_BYTES):
                self._passes.wait()
                self._pause(len(piece), way)
                target.sendall(piece)
        for each in (source, target):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def _pause(self, size: int, way: int) -> None:
        if self._rate is None:
            return
        with self._lock:
            self._free_at[way] = max(time.monotonic(), self._free_at[way]) + size / self._rate
            pause = self._free_at[way] - time.monotonic()
        time.sleep(max(0.0, pause))


@contextmanager
def tcp_gate(backend_port: int) -> Iterator[TcpGate]:
    """A gate that is open. Clients connect to its `port`."""
    gate = TcpGate(backend_port)
    try:
        yield gate
    finally:
        gate.close()
