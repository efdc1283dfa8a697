"""How much is asked of one upstream at most."""

import asyncio
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Self

from application.ports.telemetry import current_record
from application.ports.upstream import QueueWatch, current_watch
from domain.client_network import client_network
from domain.errors import MirrorBusy, RequestNotSent

_WAITING = 2000
"""Requests that may wait for one upstream in one worker."""
_WAITING_EACH = 500
"""Of them, those of one client address at most; see `_is_full`."""
_RETRY_SECONDS = 5


@dataclass(frozen=True)
class RequestLimits:
    """`max_connections`: requests under way at once, with their bodies; `max_rate`: requests a second. None: any."""

    max_connections: int | None = None
    max_rate: float | None = None

    def share(self, worker: int, workers: int) -> Self:
        """The part of one of several processes that keep to the bounds together without speaking to each other.

        There must be as many connections as processes, for one without any could ask nothing.
        """
        every, more = divmod(self.max_connections or 0, workers)
        return type(self)(
            every + (worker < more) if self.max_connections else None,
            self.max_rate / workers if self.max_rate else None,
        )


@dataclass(eq=False)
class _Waiter:
    watch: QueueWatch
    turn: asyncio.Future[None]


class _Queue:
    """Requests that wait, in turns by client address: who sends many waits for his own only. Who leaves is removed."""

    def __init__(self) -> None:
        self._clients: OrderedDict[str, deque[_Waiter]] = OrderedDict()
        self._size = 0

    def __bool__(self) -> bool:
        return self._size > 0

    async def wait(self, give_back: Callable[[], None]) -> None:
        """Until `let_one_in` has come to this request. `give_back` is called where it had, but whoever asked left in
        the same moment. Raises MirrorBusy where too many wait, RequestNotSent where nobody waits for it any more.
        """
        client, watch = client_network(current_record().client), current_watch()
        self._demand_room(client)
        waiter = _Waiter(watch, asyncio.get_running_loop().create_future())
        self._clients.setdefault(client, deque()).append(waiter)
        self._size += 1
        try:
            with watch.queued():
                await waiter.turn
        except asyncio.CancelledError:
            if waiter.turn.done() and not waiter.turn.cancelled() and waiter.turn.exception() is None:
                give_back()
            else:
                self._remove(client, waiter)
            raise

    def let_one_in(self) -> bool:
        """The next client's first request. False where nobody waits."""
        while self._clients:
            client, waiters = next(iter(self._clients.items()))
            waiter = waiters.popleft()
            self._size -= 1
            if waiters:
                self._clients.move_to_end(client)
            else:
                del self._clients[client]
            if waiter.turn.done():
                continue
            if waiter.watch.is_wanted:
                waiter.turn.set_result(None)
                return True
            _drop(waiter)
        return False

    def _demand_room(self, client: str) -> None:
        if self._is_full(client):
            self._drop_unwanted()
        if self._is_full(client):
            raise MirrorBusy("too many requests are waiting for the upstream", retry_after=_RETRY_SECONDS)

    def _is_full(self, client: str) -> bool:
        """A client has no more room than is free for all others (dynamic thresholds; Choudhury and Hahne, 1998). So a
        few clients with many requests leave room for the first requests of others.
        """
        return len(self._clients.get(client, ())) >= min(_WAITING_EACH, _WAITING - self._size)

    def _drop_unwanted(self) -> None:
        for client, waiters in list(self._clients.items()):
            for waiter in [one for one in waiters if not one.watch.is_wanted]:
                self._remove(client, waiter)
                _drop(waiter)

    def _remove(self, client: str, waiter: _Waiter) -> None:
        waiters = self._clients.get(client, deque())
        if waiter in waiters:
            waiters.remove(waiter)
            self._size -= 1
        if not waiters:
            self._clients.pop(client, None)


def _drop(waiter: _Waiter) -> None:
    if not waiter.turn.done():
        waiter.turn.set_exception(RequestNotSent("all clients that wanted the answer have left"))


class RequestLimiter:
    """Lets requests through; those that have to wait do so in turns by client address. Whoever is within must not ask
    to be let in again. Time spent before it is told to whoever watches (application/ports/upstream.py).
    """

    def __init__(self, bounds: RequestLimits) -> None:
        self._free = bounds.max_connections
        self._interval = 1 / bounds.max_rate if bounds.max_rate else None
        self._next = 0.0
        """When the next request is in time. Bursts are not allowed: one, and what follows it, would be twice the rate
        for a second.
        """
        self._timer: asyncio.TimerHandle | None = None
        self._for_slot = _Queue()
        self._for_turn = _Queue()

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """One of the connections, until the context is left. Raises MirrorBusy, RequestNotSent."""
        if self._free is None:
            yield
            return
        if self._free and not self._for_slot:
            self._free -= 1
        else:
            await self._for_slot.wait(self._leave)
        try:
            yield
        finally:
            self._leave()

    async def turn(self) -> None:
        """Wait until one more request is in time. Raises MirrorBusy, RequestNotSent."""
        if self._interval is None:
            return
        now = asyncio.get_running_loop().time()
        if now >= self._next and not self._for_turn:
            self._next = now + self._interval
            return
        self._schedule()
        await self._for_turn.wait(self._give_turn_back)

    def _leave(self) -> None:
        if not self._for_slot.let_one_in():
            self._free = (self._free or 0) + 1

    def _give_turn_back(self) -> None:
        self._next = 0.0
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._schedule()

    def _schedule(self) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_at(self._next, self._let_in)

    def _let_in(self) -> None:
        self._timer = None
        if self._for_turn.let_one_in():
            self._next = asyncio.get_running_loop().time() + (self._interval or 0.0)
        if self._for_turn:
            self._schedule()
