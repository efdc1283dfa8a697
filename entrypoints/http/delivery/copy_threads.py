"""CopyThreads: the threads that call sendfile. A fast client gets a step of its own; slow clients share steps."""

import asyncio
import math
import os
import select
import time
from collections import defaultdict
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import NamedTuple

_THREADS = 16
_CALL = 2 * 1024 * 1024  # bytes per sendfile call; more gain nothing, and occupy the thread longer on a slow disk
_TURN_SECONDS = 0.05  # then another transfer gets the thread, however fast this client reads
# A client that took this many bytes in one turn is about to take more. To wait for it briefly in the thread costs less
# than to return to the loop. Other clients are awaited in the loop.
_FAST = 512 * 1024
_BRIEFLY = 2  # milliseconds
_TOGETHER = 32  # slow clients per step of a thread: each may have to wait for the disk
_TICK = 0.1  # seconds; slow clients that are due in the same tick are served together


class ContentShort(Exception):
    """The file is shorter than the part that should be sent."""


class Send(NamedTuple):
    """Bytes `start` up to but not including `stop` of `file` are to go to `connection`; both are descriptors."""

    connection: int
    file: int
    start: int
    stop: int


Due = list[tuple[Send, "Future[int]"]]


class CopyThreads:
    """The threads of one worker. Each step that they run returns a future of concurrent.futures, which can be cancelled
    until the step begins; from then on, its descriptors are in use until it is done.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(_THREADS, "copy")
        self._loop = asyncio.get_running_loop()
        self._due: defaultdict[int, Due] = defaultdict(list)

    def read(self, file: int, start: int, stop: int) -> "Future[bytes]":
        """These bytes of a file, or as many of them as it has."""
        return self._pool.submit(os.pread, file, stop - start, start)

    def send(self, send: Send) -> "Future[int]":
        """Send as many bytes as the connection accepts, 0 if it is full. Fails with ContentShort or OSError."""
        return self._pool.submit(_send_some, send)

    def send_later(self, send: Send, seconds: float) -> "Future[int]":
        """As `send`, after at most this many seconds, together with other slow clients. A step in a thread costs more
        than the few bytes that a slow client accepts at once; thousands of such steps would slow down fast clients.
        """
        tick = math.floor((self._loop.time() + seconds) / _TICK)
        if tick not in self._due:
            self._loop.call_at(tick * _TICK, self._begin, tick)
        step = Future[int]()
        self._due[tick].append((send, step))
        return step

    def close(self) -> None:
        """Cancel what has not begun. Steps that have begun complete."""
        self._pool.shutdown(cancel_futures=True)
        for due in self._due.values():
            _cancel(due)

    def _begin(self, tick: int) -> None:
        due = self._due.pop(tick)
        for first in range(0, len(due), _TOGETHER):
            together = due[first : first + _TOGETHER]
            try:
                self._pool.submit(_send_each, together).add_done_callback(partial(_cancel, together))
            except RuntimeError:  # the threads are closed
                _cancel(together)


def _cancel(due: Due, _done: object = None) -> None:
    """Cancel the steps that have not begun. Also called when a thread has run them or was closed before it could."""
    for _, step in due:
        step.cancel()


def _send_each(due: Due) -> None:
    for send, step in due:
        if step.set_running_or_notify_cancel():
            try:
                step.set_result(_send_some(send))
            except (OSError, ContentShort) as error:
                step.set_exception(error)


def _send_some(send: Send) -> int:
    """Runs in a thread, because reading the file may wait for the disk.

    After some bytes, an error or the end of the file ends this step normally; the next step then fails at its start.
    """
    connection, file, start, stop = send
    position, turn_ends = start, time.monotonic() + _TURN_SECONDS
    while position < stop and time.monotonic() < turn_ends:
        try:
            sent = os.sendfile(connection, file, position, min(_CALL, stop - position))
        except BlockingIOError:
            if position - start < _FAST or not _becomes_writable(connection):
                break
            continue
        except OSError:
            if position == start:
                raise
            break
        if not sent:
            if position == start:
                raise ContentShort
            break
        position += sent
    return position - start


def _becomes_writable(connection: int) -> bool:
    poll = select.poll()
    poll.register(connection, select.POLLOUT)
    return bool(poll.poll(_BRIEFLY))
