"""Limits of the number and rate of requests to one upstream."""

import asyncio
import math
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Self

from application.ports.telemetry import current_record
from application.ports.upstream import QueueWatch, current_watch
from domain.client_network import client_network
from domain.errors import MirrorBusy, RequestNotSent
from domain.value import Value

_WAITING = 2000
"""Maximum of requests that wait for one upstream in one worker."""
_WAITING_EACH = 500
"""Maximum of waiting requests per client address; see `_is_full`."""
_RETRY_SECONDS = 5


class RequestLimits(Value, frozen=True):
    """`max_connections`: concurrent requests with their bodies. `max_rate`: requests per second. None: no limit."""

    max_connections: int | None = None
    max_rate: float | None = None

    def share(self, worker: int, workers: int) -> Self:
        """The share of one worker process, so that all workers together keep the limits without communication.

        `worker`: the number of the worker, from 0. There must be at least as many connections as workers, because a
        worker without connections could not send any request.
        """
        every, more = divmod(self.max_connections or 0, workers)
        return type(self)(
            every + (worker < more) if self.max_connections else None,
            self.max_rate / workers if self.max_rate else None,
        )


class _Queue:
    """Waiting requests, served round-robin by client address, so a client with many requests delays only itself."""

    def __init__(self) -> None:
        self._clients: OrderedDict[str, dict[asyncio.Future[None], QueueWatch]] = OrderedDict()
        """The requests of each client, in order. The future is done when it is the request's turn."""

    def __bool__(self) -> bool:
        return bool(self._clients)

    async def wait(self, give_back: Callable[[], None]) -> None:
        """Wait until `let_one_in` admits this request. If the request was admitted and cancelled at the same moment,
        calls `give_back`. Raises MirrorBusy if too many requests wait, RequestNotSent if all its clients have left.
        """
        client, watch = client_network(current_record().client), current_watch()
        if self._is_full(client):
            self._drop_unwanted()
        if self._is_full(client):
            raise MirrorBusy("too many requests are waiting for the upstream", retry_after=_RETRY_SECONDS)
        turn = asyncio.get_running_loop().create_future()
        self._clients.setdefault(client, {})[turn] = watch
        try:
            with watch.queued():
                await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                give_back()
            else:
                self._remove(client, turn)
            raise

    def let_one_in(self) -> bool:
        """Admit the first request of the next client. False if no request waits."""
        while self._clients:
            client, waiting = next(iter(self._clients.items()))
            turn, watch = next(iter(waiting.items()))
            self._clients.move_to_end(client)
            self._remove(client, turn)
            if watch.is_wanted and not turn.done():
                turn.set_result(None)
                return True
            _drop(turn)
        return False

    def _is_full(self, client: str) -> bool:
        """Whether the client may not queue another request. A client may use at most as many places as are free for
        all others (dynamic thresholds; Choudhury and Hahne, 1998), so that other clients always find a free place.
        """
        free = _WAITING - sum(map(len, self._clients.values()))
        return len(self._clients.get(client, ())) >= min(_WAITING_EACH, free)

    def _drop_unwanted(self) -> None:
        for client, waiting in list(self._clients.items()):
            for turn in [turn for turn, watch in waiting.items() if not watch.is_wanted]:
                self._remove(client, turn)
                _drop(turn)

    def _remove(self, client: str, turn: asyncio.Future[None]) -> None:
        waiting = self._clients.get(client, {})
        waiting.pop(turn, None)
        if not waiting:
            self._clients.pop(client, None)


def _drop(turn: asyncio.Future[None]) -> None:
    if not turn.done():
        turn.set_exception(RequestNotSent("all clients that wanted the answer have left"))


class RequestLimiter:
    """Admits requests within the limits. Waiting requests take turns by client address.

    Work that holds a connection must not wait for a request that waits for one: that could be a deadlock. So an extra
    request (`is_extra`) never waits: it is admitted only if it delays no other request. The queue watch of the request
    receives how long the request waits (application/ports/upstream.py).
    """

    def __init__(self, limits: RequestLimits) -> None:
        self._free: float = limits.max_connections or math.inf
        self._interval = 1 / limits.max_rate if limits.max_rate else 0.0
        self._next = 0.0
        """The loop time at which the next request may start. Bursts are not allowed: a burst and the requests after it
        could reach twice the rate in one second.
        """
        self._timer: asyncio.TimerHandle | None = None
        self._for_slot = _Queue()
        self._for_turn = _Queue()
        self.running = 0
        """The requests that hold a connection."""
        self.waited: Callable[[float], None] = lambda _: None
        """Called with the seconds for which a request has waited."""

    @asynccontextmanager
    async def slot(self, *, is_extra: bool = False) -> AsyncIterator[None]:
        """Hold one of the connections until the context ends. Raises MirrorBusy, RequestNotSent."""
        if self._free and not self._for_slot:
            self._free -= 1
        elif is_extra:
            raise MirrorBusy("all connections to the upstream are in use", retry_after=_RETRY_SECONDS)
        else:
            with self._timed():
                await self._for_slot.wait(self._leave)
        self.running += 1
        try:
            yield
        finally:
            self.running -= 1
            self._leave()

    async def turn(self, *, is_extra: bool = False) -> None:
        """Wait until the rate allows one more request. Raises MirrorBusy, RequestNotSent."""
        now = asyncio.get_running_loop().time()
        if now >= self._next and not self._for_turn:
            self._next = now + self._interval
            return
        if is_extra:
            raise MirrorBusy("the limit of the request rate is reached", retry_after=_RETRY_SECONDS)
        self._schedule()
        with self._timed():
            await self._for_turn.wait(self._give_turn_back)

    @contextmanager
    def _timed(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            yield
        finally:
            self.waited(loop.time() - began)

    def _leave(self) -> None:
        if not self._for_slot.let_one_in():
            self._free += 1

    def _give_turn_back(self) -> None:
        self._next = 0.0
        self._schedule()

    def _schedule(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_at(self._next, self._let_in)

    def _let_in(self) -> None:
        if self._for_turn.let_one_in():
            self._next = asyncio.get_running_loop().time() + self._interval
        if self._for_turn:
            self._schedule()
