"""ConnectionCount: how many connections one download uses at the same time."""

from collections import deque

_WINDOW_SECONDS = 0.25
"""How long the throughput is measured before a decision."""
_WORTHWHILE_SECONDS = 2.0
"""Another connection is opened only if the rest of the blob would take longer than this."""
_GAIN = 0.4
"""An additional connection must bring at least this share of what one of the others brings."""
_UNREAD_BYTES, _UNREAD_SECONDS = 256 * 1024, 0.005
"""If this process has left so many bytes unread, or what arrives in this time, it receives more slowly than the
upstream sends.
"""
_REMEMBERED = 8
"""The number of measurements that are compared with."""
_PAUSE_SECONDS = 10.0
"""After this time, another connection is tried again."""


class ConnectionCount:
    """Adds a connection while that makes the download faster. On a line that one connection fills, it stays at one; at
    a server that limits each connection, it grows to `most`. All times are in seconds of any steady clock.
    """

    def __init__(self, most: int) -> None:
        self.allowed = 1
        self._most = most
        self._resumes_at = 0.0
        self._window: tuple[float, int] | None = None
        """When the running measurement began, and the bytes until then."""
        self._rates: deque[float] = deque(maxlen=_REMEMBERED)
        """The last measurements with this number of connections, in bytes per second."""
        self._before: float | None = None
        """The best of those before the last connection was added; None if there is nothing to compare. The best one,
        because many lines and machines are slower for moments.
        """

    def observe(self, now: float, received: int, receiving: int, missing: int, unread: int, valid: float) -> None:
        """Measure, and decide. `received`: bytes since the start of the download; `receiving`: the connections that
        have received bytes; `missing`: bytes of the blob that have not been received; `unread`: bytes that have arrived
        at this machine and that the process has not read; `valid`: the seconds for which the upstream will accept
        further requests.
        """
        if now < self._resumes_at or self._most == 1:
            return
        if self._window is None or receiving < self.allowed:
            self._window = now, received  # a new connection needs some time until its first byte
            return
        began, received_before = self._window
        if now - began < _WINDOW_SECONDS:
            return
        rate = (received - received_before) / (now - began)
        self._window = now, received
        if self._before is not None and rate < self._before * (1 + _GAIN / (self.allowed - 1)):
            self.one_less(now)
            return
        self._before = None
        self._rates.append(rate)
        if unread > max(_UNREAD_BYTES, rate * _UNREAD_SECONDS):
            return  # more connections would not help, and what they leave unread would be sent for nothing
        if missing > rate * valid:
            return  # a single body may still be complete when the upstream refuses further requests
        if self.allowed < self._most and missing > rate * _WORTHWHILE_SECONDS:
            self._before = max(self._rates)
            self._rates.clear()
            self.allowed += 1

    def one_less(self, now: float) -> None:
        """The last connection brought nothing, or could not be opened. Another one is tried after a pause."""
        self._reduce(self.allowed - 1, now)

    def halve(self, now: float) -> None:
        """The upstream refused or broke off a request. More connections are tried after a pause."""
        self._reduce(self.allowed // 2, now)

    def stay_at_one(self) -> None:
        """The upstream does not support several connections."""
        self._most = self.allowed = 1

    def _reduce(self, allowed: int, now: float) -> None:
        self.allowed = max(1, allowed)
        self._resumes_at = now + _PAUSE_SECONDS
        self._window = self._before = None
        self._rates.clear()
