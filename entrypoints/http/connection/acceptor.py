"""Acceptor: accepts connections in a worker, up to the limit of the worker."""

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

_CHECK_SECONDS = 0.5
_PAUSE_SECONDS = 1.0
_EXHAUSTED = {
    errno.EMFILE: "this process has reached its limit of open files (ulimit -n)",
    errno.ENFILE: "the system has reached its limit of open files",
    errno.ENOBUFS: "the system has no memory for another socket",
    errno.ENOMEM: "the system has no memory for another socket",
}


class Acceptor:
    """Replaces the server of the event loop, which accepts every connection. When uvloop's server runs out of
    descriptors, it silently closes new connections, or closes the listening socket for good. The Acceptor leaves
    connections that it cannot accept in the queue of the kernel, for another worker or until there is room.
    """

    def __init__(
        self,
        listening: Sequence[socket.socket],
        table: ConnectionTable,
        make_protocol: Callable[..., MirrorProtocol],
        *,
        is_exempt: Callable[[str], bool],
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """`is_exempt` tells whether connections from an address are exempt from the limit per address. Called in a
        running loop.
        """
        # Duplicates, because the server of the loop watches and closes the socket that it was given.
        self._sockets = [one.dup() for one in listening]
        for one in self._sockets:
            one.setblocking(False)
        self._loop = asyncio.get_running_loop()
        self._table = table
        self._make_protocol = make_protocol
        self._is_exempt = is_exempt
        self._tls = tls
        self._opening: dict[Connection, Callable[[], None]] = {}
        """Connections that have no protocol yet, and the function that ends each."""
        self._pause_until = 0.0
        table.closed = self._resume
        self._check()

    def close(self) -> None:
        """Stop accepting connections, and end those whose TLS handshake is not complete. The other connections go on,
        and their limits still apply.
        """
        self._pause()
        while self._sockets:
            self._sockets.pop().close()
        for connection, hang_up in self._opening.items():
            if connection.abort is hang_up:  # otherwise it has a protocol, and goes on
                hang_up()

    def _check(self) -> None:
        self._table.check()
        self._resume()
        self._loop.call_later(_CHECK_SECONDS, self._check)

    def _resume(self) -> None:
        if self._loop.time() >= self._pause_until:
            for one in self._sockets:
                self._loop.add_reader(one.fileno(), self._accept, one)

    def _pause(self, seconds: float = 0) -> None:
        """Stop accepting until a connection has ended or the next check, but for at least this long."""
        self._pause_until = self._loop.time() + seconds
        for one in self._sockets:
            self._loop.remove_reader(one.fileno())

    def _accept(self, listening: socket.socket) -> None:
        """Accept one connection. The loop calls this again at once if there are more: of connections that arrive at the
        same time, the other workers get some meanwhile. Otherwise one worker would often take all of them.
        """
        if self._table.is_full:
            self._table.log_rarely(
                "full", "this worker has MAX_CONNECTIONS connections and accepts no more until one ends"
            )
            self._table.make_room()
            self._pause()
            return
        try:
            accepted, peer = listening.accept()
        except OSError as error:
            # Others: another worker was quicker, the connection ended early (ECONNABORTED), or its network failed
            # (accept(2)).
            if reason := _EXHAUSTED.get(error.errno or 0):
                self._table.log_rarely("exhausted", f"cannot accept connections: {reason}; closing idle connections")
                self._pause(0 if self._table.make_room() else _PAUSE_SECONDS)
        else:
            self._start(accepted, str(peer[0]))

    def _start(self, accepted: socket.socket, peer: str) -> None:
        accepted.setblocking(False)
        hang_up = partial(_hang_up, accepted)
        connection = self._table.open(None if self._is_exempt(peer) else client_network(peer), hang_up)
        self._opening[connection] = hang_up
        task = self._loop.create_task(self._open(accepted, connection))
        task.add_done_callback(lambda _: self._opening.pop(connection))

    async def _open(self, accepted: socket.socket, connection: Connection) -> None:
        """Connect the socket to a new protocol, which then controls the connection."""
        protocol = self._make_protocol(connection=connection)
        try:
            await self._loop.connect_accepted_socket(lambda: protocol, accepted, ssl=self._tls)
        except (OSError, asyncio.CancelledError):
            # OSError: the handshake failed (ssl.SSLError), or the connection ended during the handshake. The task is
            # cancelled when the service stops.
            if protocol.transport is None:
                accepted.close()
                connection.closed()
            elif self._tls is None:
                # The protocol got the connection between the cancellation and this point. uvloop has closed the socket,
                # and does not tell the protocol.
                protocol.connection_lost(None)


def _hang_up(accepted: socket.socket) -> None:
    """End a connection that is being opened: the loop opens it, finds that it has ended, and tells the protocol. If the
    opening task were cancelled instead, uvloop would not tell the protocol, or would leave the socket open.
    """
    with suppress(OSError):  # it has ended already
        accepted.shutdown(socket.SHUT_RDWR)
