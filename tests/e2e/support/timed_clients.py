"""Clients of a blob that several replicas pull at the same time, and how long each of them waits."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

from tests.e2e.support.cached_mirror import Cached, Made

_PIECE_BYTES = 256 * 1024
_PATIENCE = 60.0


class TimedClient:
    """Pulls the blob in a thread and notes when bytes arrive. `began`: when the request was sent."""

    def __init__(self, replica: Cached, made: Made, pool: ThreadPoolExecutor) -> None:
        self.began = time.monotonic()
        self.arrivals: list[tuple[float, int]] = []
        """Times, each with the number of bytes received by then."""
        self.received = 0
        self._content = bytearray()
        self._made = made
        self._has = threading.Condition()
        self.end = pool.submit(self._read, replica)

    def has(self, size: int) -> bool:
        """Wait until it has received so many bytes."""
        with self._has:
            return self._has.wait_for(lambda: self.received >= size, _PATIENCE)

    def first_byte(self) -> float:
        """Seconds from the request to the first byte."""
        return self.arrivals[0][0] - self.began

    def longest_wait(self) -> float:
        """The longest time in seconds without a byte, from the request on."""
        times = [self.began, *(time for time, _ in self.arrivals)]
        return max(later - earlier for earlier, later in pairwise(times))

    def is_right(self) -> bool:
        """Wait for the end. Returns whether it has received the complete and correct blob."""
        return self.end.result(_PATIENCE) == self._made.content

    def is_cut(self) -> bool:
        """Wait for the end. Returns whether the body broke off."""
        return self.end.exception(_PATIENCE) is not None or not self.is_right()

    def _read(self, replica: Cached) -> bytes:
        with replica.proxy.open(self._made.path) as transfer:
            while piece := transfer.read1(_PIECE_BYTES):
                with self._has:
                    self.received += len(piece)
                    self.arrivals.append((time.monotonic(), self.received))
                    self._content += piece
                    self._has.notify_all()
        return bytes(self._content)
