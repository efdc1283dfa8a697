"""ConnectionTable: the connections of one worker, their timeouts, and which one is closed to make room."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto

_LOG = logging.getLogger("docker_image_proxy")

PROTECTED_SECONDS = 2.0
"""A waiting connection is not closed to make room before it is this old: connections that arrive at the same time are
all accepted before the first request is read.
"""
CLOSING_SECONDS = 5.0
"""Time for a response to reach the client, and for the client to close the connection."""
_LOG_SECONDS = 60.0


@dataclass(frozen=True)
class ConnectionLimits:
    """`timeout`: seconds for a request head, and again for its body. `connections`: all connections of the worker.
    `waiting`: connections of one client address that wait for a head or a body.
    """

    timeout: float
    connections: int
    waiting: int


class ConnectionState(Enum):
    """WAITING for a TLS handshake, a request head or a body; IDLE between two requests; BUSY with a request or its
    response; CLOSING: aborted if it does not end soon.
    """

    WAITING = auto()
    IDLE = auto()
    BUSY = auto()
    CLOSING = auto()


@dataclass(slots=True, eq=False)
class Connection:
    """One connection in the table. `address` is the client address for the limit; None exempts the connection. `expire`
    tells the client that it was too slow; `abort` closes at once. The component that holds the socket sets both.
    """

    table: "ConnectionTable"
    address: str | None
    expire: Callable[[], None]
    abort: Callable[[], None]
    state: ConnectionState = ConnectionState.WAITING
    since: float = 0.0

    def enter(self, state: ConnectionState) -> None:
        """Called with WAITING whenever the server waits for bytes of a head or a body: the timeout runs from the first
        of these calls, however many bytes arrive in between. A connection that is CLOSING stays so, and one that has
        not sent a complete request since it was opened does not become IDLE.
        """
        is_new = self.state is ConnectionState.WAITING and state is ConnectionState.IDLE
        if self.state is not state and self.state is not ConnectionState.CLOSING and not is_new:
            self.table.move(self, state)

    def closed(self) -> None:
        self.table.remove(self)


class ConnectionTable:
    """`limits` is called for each check, because a reload may change the limits. `closed` is called after each
    connection that ends.

    Only waiting connections count against the limit of their address. The number of busy and idle connections per
    address is not limited; idle ones are closed first when the worker needs room.
    """

    def __init__(self, limits: Callable[[], ConnectionLimits], clock: Callable[[], float] = time.monotonic) -> None:
        self.closed: Callable[[], None] = lambda: None
        self._limits = limits
        self._clock = clock
        # Each in the order in which the connections entered the state: the oldest is the first.
        self._states: dict[ConnectionState, dict[Connection, None]] = {state: {} for state in ConnectionState}
        self._waiting_by_address: dict[str, dict[Connection, None]] = {}
        self._logged: dict[str, float] = {}

    def __len__(self) -> int:
        return sum(map(len, self._states.values()))

    @property
    def is_full(self) -> bool:
        return len(self) >= self._limits().connections

    def open(self, address: str | None, abort: Callable[[], None]) -> Connection:
        """Add an accepted connection."""
        connection = Connection(self, address, expire=abort, abort=abort)
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
        """Close one connection and return whether one could be closed: the oldest of an address that has too many, else
        the one that has been idle longest, else the one that has waited longest. Busy connections are never closed.
        """
        connection = self._expendable()
        if connection:
            self._close(connection)
        return connection is not None

    def check(self) -> None:
        """Close connections whose time is over. Called twice a second."""
        now, limits = self._clock(), self._limits()
        for connection in self._since(now - limits.timeout, ConnectionState.WAITING):
            connection.enter(ConnectionState.CLOSING)
            connection.expire()
        for connection in self._since(now - CLOSING_SECONDS, ConnectionState.CLOSING):
            connection.abort()
        for address, waiting in list(self._waiting_by_address.items()):
            surplus = len(waiting) - limits.waiting
            for connection in list(waiting)[: max(surplus, 0)]:
                if now - connection.since < PROTECTED_SECONDS:
                    break
                self.log_rarely(
                    "address",
                    f"{address} has more than MAX_WAITING_PER_ADDRESS={limits.waiting} connections without a complete "
                    "request; closing the oldest",
                )
                self._close(connection)

    def log_rarely(self, kind: str, message: str) -> None:
        """Log a warning, at most once a minute for its kind: clients could cause it thousands of times a second."""
        now = self._clock()
        if now - self._logged.get(kind, -_LOG_SECONDS) >= _LOG_SECONDS:
            self._logged[kind] = now
            _LOG.warning(message)

    def _expendable(self) -> Connection | None:
        limit = self._limits().waiting
        for waiting in self._waiting_by_address.values():
            if len(waiting) > limit:
                return next(iter(waiting))
        if idle := self._states[ConnectionState.IDLE]:
            return next(iter(idle))
        oldest = next(iter(self._states[ConnectionState.WAITING]), None)
        return oldest if oldest and self._clock() - oldest.since >= PROTECTED_SECONDS else None

    def _close(self, connection: Connection) -> None:
        connection.enter(ConnectionState.CLOSING)
        connection.abort()

    def _since(self, moment: float, state: ConnectionState) -> list[Connection]:
        """The connections that have been in the state since that moment."""
        return [connection for connection in self._states[state] if connection.since <= moment]

    def _enter(self, connection: Connection, state: ConnectionState) -> None:
        connection.state, connection.since = state, self._clock()
        self._states[state][connection] = None
        if state is ConnectionState.WAITING and connection.address:
            self._waiting_by_address.setdefault(connection.address, {})[connection] = None

    def _leave(self, connection: Connection) -> None:
        del self._states[connection.state][connection]
        if connection.state is ConnectionState.WAITING and connection.address:
            waiting = self._waiting_by_address[connection.address]
            del waiting[connection]
            if not waiting:
                del self._waiting_by_address[connection.address]
