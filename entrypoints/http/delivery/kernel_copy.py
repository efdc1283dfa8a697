"""KernelCopy: sends parts of a file by sendfile(2), so that the kernel copies the bytes and this process does not.

Threads call sendfile, because reading the file may wait for the disk. A fast client gets a step of a thread of its own;
slow clients share steps. Each rule below prevents a failure that occurred without it.
"""

import asyncio
import math
import os
import select
import socket
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import NamedTuple, TypeVar

from application.concurrency import until_done

_THREADS = 16
_CALL = 2 * 1024 * 1024  # bytes per sendfile call; more gain nothing, and occupy the thread longer on a slow disk
_TURN_SECONDS = 0.05  # then another transfer gets the thread, however fast this client reads
# A client that took this many bytes in one turn is about to take more. To wait for it briefly in the thread costs less
# than to return to the loop. Other clients are awaited in the loop.
_FAST = 512 * 1024
_BRIEFLY = 2  # milliseconds
_TOGETHER = 32  # slow clients per step of a thread: each may have to wait for the disk
_TICK = 0.1  # seconds; slow clients that are due in the same tick are served together
# The kernel sizes the send buffer of the socket. A fixed size makes loopback a fifth faster, but most systems allow at
# most 416 KiB, which would limit distant clients.
_SLOW = 0.1  # seconds until the connection accepts more bytes
_UNSENT = 384 * 1024  # bytes that wait in the kernel for a slow client, besides those in flight
_SYSTEM_DEFAULT = 0
_CORK: int | None = getattr(socket, "TCP_CORK", None)  # Linux has it

T = TypeVar("T")


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

    async def read(self, file: int, start: int, stop: int) -> bytes:
        """These bytes of a file, or as many of them as it has."""
        return await _returned(self._pool.submit(os.pread, file, stop - start, start))

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
                self._pool.submit(self._send_each, together).add_done_callback(partial(_cancel, together))
            except RuntimeError:  # the threads are closed
                _cancel(together)

    def _send_each(self, due: Due) -> None:
        """Runs in a thread. The loop learns of all steps at once: if it woke for each of them, it would compete with
        this thread for the interpreter lock, which costs several times as much as the steps.
        """
        done: list[tuple[Future[int], int | Exception]] = []
        for send, step in due:
            if step.set_running_or_notify_cancel():
                try:
                    done.append((step, _send_some(send)))
                except Exception as error:  # noqa: BLE001 - the step fails with it
                    done.append((step, error))
        try:
            self._loop.call_soon_threadsafe(_report, done)
        except RuntimeError:  # the loop is closed
            _report(done)


def _cancel(due: Due, _done: object = None) -> None:
    """Cancel the steps that have not begun. Also called when a thread has run them or was closed before it could."""
    for _, step in due:
        step.cancel()


def _report(done: Iterable[tuple["Future[int]", int | Exception]]) -> None:
    for step, outcome in done:
        if isinstance(outcome, Exception):
            step.set_exception(outcome)
        else:
            step.set_result(outcome)


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


class KernelCopy:
    """Sends parts of files to one connection. sendfile writes to a duplicate of the connection's descriptor, because
    event loops do not allow waiting on the descriptor of a transport. The duplicate is never closed while a thread may
    use it: the kernel reuses a closed number within microseconds, and the bytes would go into another connection or
    file.
    """

    def __init__(
        self,
        transport: asyncio.Transport,
        threads: CopyThreads,
        account: Callable[["asyncio.Future[int]"], None],
        longest: float,
    ) -> None:
        """`longest`: the longest pause between two steps for a slow client, in seconds."""
        self._socket = socket.socket(fileno=os.dup(transport.get_extra_info("socket").fileno()))
        self._loop = asyncio.get_running_loop()
        self._threads = threads
        self._account = account
        self._longest = longest

    async def send(self, file: int, start: int, stop: int) -> None:
        """Send these bytes of the descriptor `file`."""
        rest = Send(self._socket.fileno(), file, start, stop)
        self._send_full_segments(is_on=True)
        try:
            while rest.start < rest.stop:
                sent = await _returned(self._threads.send(rest), self._account)
                rest = rest._replace(start=rest.start + sent)
                if rest.start < rest.stop:
                    waited = await self._writable()
                    if waited > _SLOW:
                        rest = await self._send_slowly(rest, waited)
        finally:
            self._send_full_segments(is_on=False)

    async def _send_slowly(self, rest: Send, waited: float) -> Send:
        """Send at the pace of a slow client. Returns what is left at the end, or when the client turns out to be
        faster.
        """
        self._limit_unsent(_UNSENT)
        # The kernel reports the socket as writable when half of the unsent bytes were sent. The client will take about
        # as long as `waited` for the other half, and twice as long for a full buffer. Pause for most of that time
        # instead of polling the kernel for each of thousands of clients.
        pause = 0.7 * waited
        while rest.start < rest.stop:
            sent = await _returned(self._threads.send_later(rest, min(pause, self._longest)), self._account)
            rest = rest._replace(start=rest.start + sent)
            pause = 1.7 * waited
            if not sent:
                waited = await self._writable()
                pause = 0.7 * waited
            if sent >= _UNSENT or waited <= _SLOW:
                break  # the client had received everything
        self._limit_unsent(_SYSTEM_DEFAULT)
        return rest

    def _send_full_segments(self, *, is_on: bool) -> None:
        """Whether the kernel waits for more bytes before it sends a segment that is not full. sendfile passes a few
        pages on at a time; without this, a GiB is 1.3 to 1.8 times as many segments, and each can wake the client. The
        last segment, which is not full, is sent when it is switched off.
        """
        if _CORK is not None:
            with suppress(OSError):  # the connection is lost, which the next call of sendfile reports
                self._socket.setsockopt(socket.IPPROTO_TCP, _CORK, is_on)

    def _limit_unsent(self, limit: int) -> None:
        """Limit the bytes that wait in the kernel. Megabytes for each of a thousand slow clients would exceed the
        socket memory of the kernel, which would then slow down fast clients.
        """
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, limit)

    def close(self) -> None:
        """Close the duplicate, also after an abort: while it is open, the kernel keeps the connection open."""
        # Before the close, because the registration outlives the descriptor.
        self._loop.remove_writer(self._socket.fileno())
        self._socket.close()

    async def _writable(self) -> float:
        """Wait in the loop until the socket is writable, so that slow clients occupy no thread. Returns the seconds."""
        writable, began = asyncio.Event(), self._loop.time()
        self._loop.add_writer(self._socket.fileno(), writable.set)
        try:
            await writable.wait()
        finally:
            self._loop.remove_writer(self._socket.fileno())  # otherwise the loop would call it continuously
        return self._loop.time() - began


async def _returned(step: "Future[T]", account: Callable[["asyncio.Future[T]"], None] | None = None) -> T:
    """The result of the step in a thread. `account` is called when the step is done. A cancellation cancels a step that
    has not begun, and waits for one that has, because it uses the descriptors.
    """
    done = asyncio.wrap_future(step)
    if account:
        done.add_done_callback(account)
    try:
        await asyncio.wait([done])
    except asyncio.CancelledError:
        step.cancel()
        await until_done(done)
        raise
    return done.result()
