"""Failover between the endpoints of an upstream, and what this process knows of their health."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, AsyncExitStack, aclosing, asynccontextmanager, suppress
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

from purgatory import AsyncCircuitBreakerFactory
from purgatory.domain.model import CLOSED, HALF_OPENED, HalfOpenedState, OpenedState

from adapters.upstream.client import Check, was_unanswered
from application.ports.telemetry import EventSink
from application.ports.upstream import UpstreamResponse
from domain.digest import Bytes
from domain.errors import (
    MirrorFault,
    RegistryError,
    UpstreamBodyTooLarge,
    UpstreamThrottled,
    UpstreamUnavailable,
)
from domain.events import EndpointFailed, EndpointRecovered
from domain.upstreams import Upstream

_TRIAL_SECONDS = 10.0


class _FailedError(Exception):
    """Makes a circuit breaker count a failure."""


class EndpointHealth:
    """A circuit breaker for each endpoint. One failure opens it, because each failed attempt delays a client. After
    `trial_after` seconds, a single request at a time tests whether the endpoint works again.
    """

    def __init__(self, events: EventSink, trial_after: float = _TRIAL_SECONDS) -> None:
        self._events = events
        self._breakers = AsyncCircuitBreakerFactory(default_threshold=1, default_ttl=trial_after)
        self._trials: dict[str, asyncio.Task[Any] | None] = {}
        """The task that makes the trial. Requests of other tasks started before the trial, so they do not end it."""

    async def is_healthy(self, upstream: Upstream, endpoint: Upstream) -> bool:
        """Whether the endpoint may be asked. When a trial is due, the first task that asks gets True and makes it;
        it may ask again, and must call `finish_trial` at the end.
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

    def finish_trial(self, upstream: Upstream, endpoint: Upstream) -> None:
        """End the trial of the current task, if it makes one, with or without a result."""
        name = _name(upstream, endpoint)
        if self._trials.get(name) is asyncio.current_task():
            self._trials.pop(name, None)

    async def record_success(self, upstream: Upstream, endpoint: Upstream) -> None:
        breaker = await self._breakers.get_breaker(_name(upstream, endpoint))
        if breaker.context.state == CLOSED:
            return
        if breaker.context.state != HALF_OPENED:
            breaker.context.set_state(HalfOpenedState())  # asked early, because all others failed
        async with breaker:
            pass
        self._events.emit(EndpointRecovered(upstream.url, endpoint.url))

    async def record_failure(self, upstream: Upstream, endpoint: Upstream, reason: str) -> None:
        breaker = await self._breakers.get_breaker(_name(upstream, endpoint))
        was_healthy = breaker.context.state == CLOSED
        with suppress(_FailedError, OpenedState):
            async with breaker:
                raise _FailedError
        if was_healthy:
            self._events.emit(EndpointFailed(upstream.url, endpoint.url, reason))


def _name(upstream: Upstream, endpoint: Upstream) -> str:
    """The breaker's name. It contains the upstream, because another upstream may use other connection settings."""
    return f"{upstream.url} {endpoint.url}"


T = TypeVar("T")


class _EndpointSkipped(Exception):
    """The endpoint failed while the request waited for the limiter."""


class Failover:
    """Sends requests to an upstream with several endpoints, which are one registry for the rest of the service."""

    def __init__(self, health: EndpointHealth) -> None:
        self._health = health

    @asynccontextmanager
    async def opened(
        self,
        upstream: Upstream,
        open_at: Callable[[Upstream, Check | None], AbstractAsyncContextManager[UpstreamResponse]],
    ) -> AsyncIterator[UpstreamResponse]:
        """The response of the first endpoint that answers. A body that ends too early counts as a failure of its
        endpoint, so the request for the rest goes to the next endpoint.
        """
        async with AsyncExitStack() as stack:

            async def ask(endpoint: Upstream, check: Check | None) -> UpstreamResponse:
                answer = await stack.enter_async_context(open_at(endpoint, check))
                return _MonitoredResponse(answer, self._health, upstream, endpoint)

            yield await self.first(upstream, ask)

    async def first(self, upstream: Upstream, ask: Callable[[Upstream, Check | None], Coroutine[Any, Any, T]]) -> T:
        """The result of `ask` for the first endpoint that does not fail.

        Asks endpoints that failed recently last, but asks them if all others fail. It checks the health again when the
        limiter admits the request: otherwise every waiting request would wait for the timeout of a silent endpoint.
        Raises UpstreamThrottled if an endpoint raised it, because it says how long to wait; else the first failure.
        """
        failures: list[RegistryError] = []
        turns = [(endpoint, False) for endpoint in _each(upstream)]
        for endpoint, is_last_resort in turns:
            if not is_last_resort and not await self._health.is_healthy(upstream, endpoint):
                turns.append((endpoint, True))
                continue
            check = None if is_last_resort else partial(self._check, upstream, endpoint)
            try:
                return await self._ask(upstream, endpoint, ask(endpoint, check))
            except _EndpointSkipped:
                turns.append((endpoint, True))
            except UpstreamUnavailable as failure:
                failures.append(failure)
        raise next((one for one in failures if isinstance(one, UpstreamThrottled)), failures[0])

    async def _check(self, upstream: Upstream, endpoint: Upstream) -> None:
        if not await self._health.is_healthy(upstream, endpoint):
            raise _EndpointSkipped

    async def _ask(self, upstream: Upstream, endpoint: Upstream, asking: Coroutine[Any, Any, T]) -> T:
        try:
            answer = await asking
        except UpstreamUnavailable as failure:
            if not (isinstance(failure, UpstreamThrottled) and upstream.forwards_client_credentials):
                await self._health.record_failure(upstream, endpoint, failure.message)
            # Otherwise one caller has used up its allowance; the endpoint works for the other callers.
            raise
        except asyncio.CancelledError as left:
            if was_unanswered(left):
                await self._health.record_failure(upstream, endpoint, "it did not answer before the client left")
            raise
        except MirrorFault:
            raise  # no request was sent to the endpoint
        except RegistryError:
            await self._health.record_success(upstream, endpoint)
            raise
        else:
            await self._health.record_success(upstream, endpoint)
            return answer
        finally:
            self._health.finish_trial(upstream, endpoint)


class _MonitoredResponse:
    """Implements UpstreamResponse. Records failures of the body as failures of the endpoint."""

    def __init__(
        self, answer: UpstreamResponse, health: EndpointHealth, upstream: Upstream, endpoint: Upstream
    ) -> None:
        self.metadata = answer.metadata
        self._answer = answer
        self._health = health
        self._upstream = upstream
        self._endpoint = endpoint

    async def pieces(self) -> AsyncIterator[Bytes]:
        try:
            async with aclosing(self._answer.pieces()) as pieces:  # type: ignore[type-var]  # all implementations are generators
                async for piece in pieces:
                    yield piece
        except UpstreamUnavailable as failure:
            await self._health.record_failure(self._upstream, self._endpoint, failure.message)
            raise

    async def read(self, limit: int) -> bytes:
        try:
            return await self._answer.read(limit)
        except UpstreamBodyTooLarge:
            raise  # every endpoint would send the same body, so this must not mark them all as failed
        except UpstreamUnavailable as failure:
            await self._health.record_failure(self._upstream, self._endpoint, failure.message)
            raise


def _each(upstream: Upstream) -> list[Upstream]:
    """The endpoints of the upstream, each with all its URLs: they share a realm (see RealmPolicy), whichever endpoint
    sent the challenge.
    """
    endpoints = upstream.endpoints
    addresses = tuple((endpoint.url, endpoint.origin) for endpoint in endpoints)
    return [replace(endpoint, fallbacks=addresses) for endpoint in endpoints]
