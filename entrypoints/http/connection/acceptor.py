"""Acceptor: takes connections off the listening socket of a worker, as many as it may have."""

import asyncio
import errno
import logging
import socket
import ssl
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial

from domain.client_network import client_network
from entrypoints.http.connection.connection_protocol import MirrorProtocol
from entrypoints.http.connection.connection_table import Connection, ConnectionTable

_LOG = logging.getLogger("docker_image_proxy")

_BATCH = 16
"""Connections in one go; the other workers may want some too."""
_LOOK_SECONDS = 0.5
_PAUSE_SECONDS = 1.0
_EXHAUSTED = {
    errno.EMFILE: "the limit of open files of this process is reached (ulimit -n)",
    errno.ENFILE: "the limit of open files of this system is reached",
    errno.ENOBUFS: "the system has no memory for another socket",
    errno.ENOMEM: "the system has no memory for another socket",
}

MakeProtocol = Callable[..., MirrorProtocol]


class Acceptor:
    """The loops' own servers accept whatever comes. With uvloop's, a worker that runs out of descriptors closes each
    new connection without a word, or its listening socket for good. Here connections that cannot be taken stay in the
    kernel's queue, for another worker or until there is room.
    """

    def __init__(
        self,
        listening: Sequence[socket.socket],
        table: ConnectionTable,
        make_protocol: MakeProtocol,
        *,
        is_exempt: Callable[[str], bool],
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """`is_exempt` says of a peer's address whether its connections count for none. Called in a running loop."""
        # Duplicates: the loop's own server watches, and closes, the one that it was given.
        self._sockets = [one.dup() for one in listening]
        for one in self._sockets:
            one.setblocking(False)
        self._loop = asyncio.get_running_loop()
        self._table = table
        self._make_protocol = make_protocol
        self._is_exempt = is_exempt
        self._tls = tls
        self._opening: dict[Connection, Callable[[], None]] = {}
        """Connections that no protocol has yet, and what ends each."""
        self._pause_until = 0.0
        self._is_reading = False
        self._is_closed = False
        table.closed = self._resume
        self._look()

    def close(self) -> None:
        """No connection is accepted from now on, and none whose TLS handshake has not ended goes on. The others go on,
        and are still watched.
        """
        self._pause()
        self._is_closed = True
        for one in self._sockets:
            one.close()
        for connection, hang_up in self._opening.items():
            if connection.abort is hang_up:  # else a protocol has it, and it goes on
                hang_up()

    def _look(self) -> None:
        self._table.look()
        self._resume()
        self._loop.call_later(_LOOK_SECONDS, self._look)

    def _resume(self) -> None:
        if not self._is_closed and not self._is_reading and self._loop.time() >= self._pause_until:
            for one in self._sockets:
                self._loop.add_reader(one.fileno(), self._accept, one)
            self._is_reading = True

    def _pause(self, seconds: float = 0) -> None:
        """Until a connection has ended, or it is looked again; but for this long at least."""
        self._pause_until = self._loop.time() + seconds
        if self._is_reading:
            for one in self._sockets:
                self._loop.remove_reader(one.fileno())
            self._is_reading = False

    def _accept(self, listening: socket.socket) -> None:
        for _ in range(_BATCH):
            if self._table.is_full:
                self._table.log_seldom("full", "this worker has MAX_CONNECTIONS connections; it takes no more for now")
                self._table.make_room()
                self._pause()
                return
            try:
                accepted, peer = listening.accept()
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                if error.errno in _EXHAUSTED:
                    self._exhausted(error)
                    return
                continue  # that one connection was gone again (ECONNABORTED), or its network is (accept(2))
            self._take(accepted, str(peer[0]))

    def _exhausted(self, error: OSError) -> None:
        self._table.log_seldom(
            "exhausted", f"no connection can be accepted: {_EXHAUSTED[error.errno or 0]}; idle ones are closed"
        )
        self._pause(0 if self._table.make_room() else _PAUSE_SECONDS)

    def _take(self, accepted: socket.socket, peer: str) -> None:
        accepted.setblocking(False)
        connection = self._table.open(None if self._is_exempt(peer) else client_network(peer))
        task = self._loop.create_task(self._open(accepted, connection))
        connection.expire = connection.abort = self._opening[connection] = partial(_hang_up, accepted)
        task.add_done_callback(lambda _: self._opening.pop(connection))

    async def _open(self, accepted: socket.socket, connection: Connection) -> None:
        """Ends when the connection is a protocol's, which then says how it goes on."""
        protocol: list[MirrorProtocol] = []

        def make() -> MirrorProtocol:
            protocol.append(self._make_protocol(connection=connection))
            return protocol[0]

        try:
            await self._loop.connect_accepted_socket(make, accepted, ssl=self._tls)
        except (OSError, asyncio.CancelledError):
            # OSError: a handshake that failed (ssl.SSLError), or a connection that ended during it. A cancellation
            # comes with the end of the service.
            if not protocol or protocol[0].transport is None:
                accepted.close()
                connection.closed()
            elif self._tls is None:
                # The protocol got the connection after the cancellation and before it came here. uvloop has closed the
                # socket by now, and does not tell the protocol.
                protocol[0].connection_lost(None)


def _hang_up(accepted: socket.socket) -> None:
    """End a connection that is being opened: the loop opens it, finds it ended, and tells the protocol as always. Were
    the task that opens it cancelled, uvloop would leave the protocol without that word, or the socket open.
    """
    with suppress(OSError):  # it has ended by itself
        accepted.shutdown(socket.SHUT_RDWR)
