"""Which addresses of an upstream are well, as far as this process knows."""

import asyncio
from contextlib import suppress
from typing import Any

from purgatory import AsyncCircuitBreakerFactory
from purgatory.domain.model import CLOSED, HALF_OPENED, HalfOpenedState, OpenedState

from application.ports.event_sink import EventSink
from domain.events import EndpointFailed, EndpointRecovered
from domain.upstreams import Upstream

_TRIAL_SECONDS = 10.0


class _FailedError(Exception):
    """What a circuit breaker wants to see."""


class EndpointHealth:
    """A circuit breaker for each address, which one failure opens: a request tried in vain has cost enough. After
    `trial_after` seconds one request, and no second one meanwhile, finds out whether it is well again.
    """

    def __init__(self, events: EventSink, trial_after: float = _TRIAL_SECONDS) -> None:
        self._events = events
        self._breakers = AsyncCircuitBreakerFactory(default_threshold=1, default_ttl=trial_after)
        self._trials: dict[str, asyncio.Task[Any] | None] = {}
        """Who makes it. Of others, who asked before it, the end says nothing of the trial's."""

    async def is_well(self, upstream: Upstream, endpoint: Upstream) -> bool:
        """Whether to ask it; if it is time for a trial, whoever gets True makes it, and tells by `tried` of its end.
        Who makes it may ask again.
        """
        name = _name(upstream, endpoint)
        context = (await self._breakers.get_breaker(name)).context
        if context.state == CLOSED:
            return True
        try:
            context.handle_new_request()
        except OpenedState:
            return False
        return self._trials.setdefault(name, asyncio.current_task()) is asyncio.current_task()

    def tried(self, upstream: Upstream, endpoint: Upstream) -> None:
        """Whatever has come of it; of a request that was given up, nothing."""
        name = _name(upstream, endpoint)
        if self._trials.get(name) is asyncio.current_task():
            self._trials.pop(name, None)

    async def answered(self, upstream: Upstream, endpoint: Upstream) -> None:
        breaker = await self._breakers.get_breaker(_name(upstream, endpoint))
        if breaker.context.state == CLOSED:
            return
        if breaker.context.state != HALF_OPENED:
            breaker.context.set_state(HalfOpenedState())  # asked before its time, because all others failed too
        async with breaker:
            pass
        self._events.emit(EndpointRecovered(upstream.url, endpoint.url))

    async def failed(self, upstream: Upstream, endpoint: Upstream, reason: str) -> None:
        breaker = await self._breakers.get_breaker(_name(upstream, endpoint))
        was_well = breaker.context.state == CLOSED
        with suppress(_FailedError, OpenedState):
            async with breaker:
                raise _FailedError
        if was_well:
            self._events.emit(EndpointFailed(upstream.url, endpoint.url, reason))


def _name(upstream: Upstream, endpoint: Upstream) -> str:
    """Each upstream's own: another one may go to the same address by another way."""
    return f"{upstream.url} {endpoint.url}"
