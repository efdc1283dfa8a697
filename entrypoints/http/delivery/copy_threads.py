"""CopyThreads: the threads that call sendfile. A fast client gets a step of its own; slow clients share steps."""

import asyncio
import math
import os
import select
import time
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
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


class Sending(asyncio.Future[int]):
    """The number of bytes sent. It can be cancelled until `has_begun`; after that, the descriptors are in use until it
    is done.
    """

    has_begun = False


Result = int | OSError | ContentShort


class CopyThreads:
    """The threads of one worker."""

    def __init__(self) -> None:
        self.pool = ThreadPoolExecutor(_THREADS, "copy")
        self._loop = asyncio.get_running_loop()
        self._due: defaultdict[int, list[tuple[Send, Sending]]] = defaultdict(list)

    def send(self, send: Send) -> "asyncio.Future[int]":
        """Send as many bytes as the connection accepts, 0 if it is full. Fails with ContentShort or OSError."""
        return self._loop.run_in_executor(self.pool, _send_some, send)

    def send_later(self, send: Send, seconds: float) -> Sending:
        """As `send`, after at most this many seconds, together with other slow clients. A step in a thread costs more
        than the few bytes that a slow client accepts at once; thousands of such steps would slow down fast clients.
        """
        tick = math.floor((self._loop.time() + seconds) / _TICK)
        if tick not in self._due:
            self._loop.call_at(tick * _TICK, self._begin, tick)
        sending = Sending(loop=self._loop)
        self._due[tick].append((send, sending))
        return sending

    def close(self) -> None:
        """Cancel what has not begun. Steps that have begun complete."""
        self.pool.shutdown(cancel_futures=True)
        for due in self._due.values():
            for _, sending in due:
                sending.cancel()

    def _begin(self, tick: int) -> None:
        due = [(send, sending) for send, sending in self._due.pop(tick) if not sending.cancelled()]
        for first in range(0, len(due), _TOGETHER):
            self._begin_together(due[first : first + _TOGETHER])

    def _begin_together(self, due: Sequence[tuple[Send, Sending]]) -> None:
        sendings = [sending for _, sending in due]
        try:
            step = self._loop.run_in_executor(self.pool, _send_each, [send for send, _ in due])
        except RuntimeError:  # the threads are closed
            for sending in sendings:
                sending.cancel()
            return
        for sending in sendings:
            sending.has_begun = True
        step.add_done_callback(partial(_settle, sendings))


def _settle(sendings: Sequence[Sending], step: "asyncio.Future[list[Result]]") -> None:
    if step.cancelled():  # because the threads are closed when the worker ends
        for sending in sendings:
            sending.cancel()
        return
    for sending, result in zip(sendings, step.result(), strict=True):
        if isinstance(result, int):
            sending.set_result(result)
        else:
            sending.set_exception(result)


def _send_each(sends: Sequence[Send]) -> list[Result]:
    return [_result_of(send) for send in sends]


def _result_of(send: Send) -> Result:
    try:
        return _send_some(send)
    except (OSError, ContentShort) as error:
        return error


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
