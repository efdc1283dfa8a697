"""GracefulClose: ends a connection when the client has received everything."""

import asyncio
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

_FIRST_PAUSE, _LONGEST_PAUSE = 0.001, 0.25
"""Seconds between two looks. Each pause is twice as long as the one before."""
_TCP_INFO = struct.Struct("=24xI92xQ16xI")
"""The beginning of struct tcp_info of Linux (linux/tcp.h): tcpi_unacked, tcpi_bytes_acked, tcpi_notsent_bytes."""


class _Sent(NamedTuple):
    """What the kernel knows of the bytes that it has got for the client."""

    unacknowledged: int  # packets
    acknowledged: int  # bytes
    unsent: int  # bytes

    @property
    def is_all(self) -> bool:
        return not (self.unacknowledged or self.unsent)


class GracefulClose:
    """Closes a transport, and aborts it if it does not end by itself: when the client has received all bytes, or has
    received none for `patience` seconds.

    Sanic aborts a connection as soon as its transport has nothing to write. With TLS, up to 64 KiB and more were lost:
    the transport does not count the bytes that it has given to the TCP transport below it. That one gives them to the
    kernel whenever there is room. So they are all sent if the kernel has sent everything and the loop, which has run
    since, has not given it more.

    With TLS, a transport that is closed also waits for the client's close_notify. RFC 8446 section 6.1 does not require
    that.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        transport: asyncio.Transport,
        has_ended: Callable[[], bool],
        patience: float,
    ) -> None:
        """`loop`: may pause, as it does when Sanic stops and closes the remaining connections. `has_ended`: whether the
        protocol was told that the connection is lost.
        """
        self._transport = transport
        self._has_ended = has_ended
        self._patience = patience
        self._loop = loop
        self._socket: socket.socket = transport.get_extra_info("socket")
        self._sent: _Sent | None = None
        """At the last look."""
        self._silent_since = self._loop.time()
        transport.close()
        self._loop.call_later(_FIRST_PAUSE, self._look, _FIRST_PAUSE)

    def _look(self, pause: float) -> None:
        if self._has_ended():
            return
        before, self._sent = self._sent, self._look_at_kernel()
        if before and self._sent and before.acknowledged != self._sent.acknowledged:
            self._silent_since = self._loop.time()
        is_all_sent = self._sent is not None and self._sent.is_all and self._sent == before
        if is_all_sent or self._loop.time() - self._silent_since >= self._patience:
            self._transport.abort()
            return
        pause = min(2 * pause, _LONGEST_PAUSE)
        self._loop.call_later(pause, self._look, pause)

    def _look_at_kernel(self) -> _Sent | None:
        """None if the kernel does not tell it."""
        if hasattr(socket, "TCP_INFO"):
            with suppress(OSError, struct.error):
                found = self._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO.size)
                return _Sent(*_TCP_INFO.unpack(found))
        return None
