"""ConnectionTable: the connections of one worker, how long each may be waited for, and which one gives way."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from typing import cast

from sanic import Request
from sanic.http.http1 import Http

_LOG = logging.getLogger("docker_image_proxy")

PATIENCE = 2.0
"""Seconds for which a connection that waits is never closed to make room: connections that arrive at once are all
accepted before the first request is read."""
CLOSING_SECONDS = 5.0
"""For a response to reach the client, and for the client to close."""
_LOG_SECONDS = 60.0


def close_if_stopping(request: Request) -> None:
    """While the service stops, no connection is kept for a further request."""
    # Compared with None: a stream whose answer has been sent counts as false.
    if request.app.ctx.is_stopping and request.stream is not None:
        cast("Http", request.stream).keep_alive = False


@dataclass(frozen=True)
class ConnectionLimits:
    """`timeout` is in seconds, for a request head and again for its body; `connections` counts all connections of the
    worker, `waiting` those of one client address that wait for a head or a body.
    """

    timeout: float
    connections: int
    waiting: int


class ConnectionState(Enum):
    """WAITING for a TLS handshake, a request head or a body; IDLE between two requests; BUSY with a request or its
    response; CLOSING: aborted if it is not gone soon.
    """

    WAITING = auto()
    IDLE = auto()
    BUSY = auto()
    CLOSING = auto()


class Connection:
    """One connection in the table. `expire` tells the client that it was too slow; `abort` closes at once. Both are set
    by the part that holds the socket at the time.
    """

    __slots__ = ("_table", "abort", "address", "expire", "since", "state")

    def __init__(self, table: "ConnectionTable", address: str | None) -> None:
        self._table = table
        self.address = address
        self.state = ConnectionState.WAITING
        self.since = 0.0
        self.expire: Callable[[], None] = _do_nothing
        self.abort: Callable[[], None] = _do_nothing

    def wait(self) -> None:
        """Bytes of a head or a body are wanted. The time runs from the first call to `busy`, however many bytes come
        in between.
        """
        if self.state is ConnectionState.IDLE or self.state is ConnectionState.BUSY:
            self._table.move(self, ConnectionState.WAITING)

    def busy(self) -> None:
        """The head, or the body, is there."""
        if self.state is ConnectionState.IDLE or self.state is ConnectionState.WAITING:
            self._table.move(self, ConnectionState.BUSY)

    def idle(self) -> None:
        """The response has been sent, and nothing of another request has come."""
        if self.state is ConnectionState.BUSY:
            self._table.move(self, ConnectionState.IDLE)

    def closing(self) -> None:
        if self.state is not ConnectionState.CLOSING:
            self._table.move(self, ConnectionState.CLOSING)

    def closed(self) -> None:
        self._table.remove(self)


class ConnectionTable:
    """`limits` is asked each time: a reload may have changed them. `closed` is called after each connection that ends.

    Only connections that wait count for their address. A client that receives content may have as many as it likes,
    and so may one that is between two requests: those are the first to be closed where the worker needs room.
    """

    def __init__(self, limits: Callable[[], ConnectionLimits], clock: Callable[[], float] = time.monotonic) -> None:
        self.closed: Callable[[], None] = _do_nothing
        self._limits = limits
        self._clock = clock
        # Each in the order in which they came into their state: the oldest is the first.
        self._states: dict[ConnectionState, dict[Connection, None]] = {state: {} for state in ConnectionState}
        self._waiting_of: dict[str, dict[Connection, None]] = {}
        self._logged: dict[str, float] = {}

    def __len__(self) -> int:
        return sum(map(len, self._states.values()))

    @property
    def is_full(self) -> bool:
        return len(self) >= self._limits().connections

    def open(self, address: str | None) -> Connection:
        """A connection was accepted. `address` is what it counts for, None where it counts for none."""
        connection = Connection(self, address)
        self._enter(connection, ConnectionState.WAITING)
        return connection

    def move(self, connection: Connection, state: ConnectionState) -> None:
        self._leave(connection)
        self._enter(connection, state)

    def remove(self, connection: Connection) -> None:
        if connection in self._states[connection.state]:
            self._leave(connection)
            self.closed()

    def make_room(self) -> bool:
        """Close one connection, and say whether there was one to close: the oldest of an address that has too many, the
        one that has been idle for longest, or the one that has waited for longest. Those in use stay.
        """
        connection = self._least_missed()
        if connection:
            self._close(connection)
        return connection is not None

    def look(self) -> None:
        """Called a few times a second: closes what has been waited for too long."""
        now, limits = self._clock(), self._limits()
        for connection in self._older(ConnectionState.WAITING, now - limits.timeout):
            connection.closing()
            connection.expire()
        for connection in self._older(ConnectionState.CLOSING, now - CLOSING_SECONDS):
            connection.abort()
        for address, waiting in list(self._waiting_of.items()):
            surplus = len(waiting) - limits.waiting
            for connection in list(waiting)[: max(surplus, 0)]:
                if now - connection.since < PATIENCE:
                    break
                self.log_seldom(
                    "address",
                    f"{address} has more than MAX_WAITING_PER_ADDRESS={limits.waiting} connections that wait for a "
                    "request; the oldest are closed",
                )
                self._close(connection)

    def log_seldom(self, kind: str, message: str) -> None:
        """A warning, once a minute at most for its kind: those who cause it may do so thousands of times a second."""
        now = self._clock()
        if now - self._logged.get(kind, -_LOG_SECONDS) >= _LOG_SECONDS:
            self._logged[kind] = now
            _LOG.warning(message)

    def _least_missed(self) -> Connection | None:
        limit = self._limits().waiting
        for waiting in self._waiting_of.values():
            if len(waiting) > limit:
                return next(iter(waiting))
        if idle := self._states[ConnectionState.IDLE]:
            return next(iter(idle))
        oldest = next(iter(self._states[ConnectionState.WAITING]), None)
        return oldest if oldest and self._clock() - oldest.since >= PATIENCE else None

    def _close(self, connection: Connection) -> None:
        connection.closing()
        connection.abort()

    def _older(self, state: ConnectionState, since: float) -> list[Connection]:
        found = []
        for connection in self._states[state]:
            if connection.since > since:
                break
            found.append(connection)
        return found

    def _enter(self, connection: Connection, state: ConnectionState) -> None:
        connection.state, connection.since = state, self._clock()
        self._states[state][connection] = None
        if state is ConnectionState.WAITING and connection.address:
            self._waiting_of.setdefault(connection.address, {})[connection] = None

    def _leave(self, connection: Connection) -> None:
        del self._states[connection.state][connection]
        if connection.state is ConnectionState.WAITING and connection.address:
            waiting = self._waiting_of[connection.address]
            del waiting[connection]
            if not waiting:
                del self._waiting_of[connection.address]


def _do_nothing() -> None:
    return
