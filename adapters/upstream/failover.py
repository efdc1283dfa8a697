"""Failover between the endpoints of an upstream, and what this process knows of their health."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

from adapters.upstream.client import Check, was_unanswered
from application.ports.telemetry import EventSink
from application.ports.upstream import ResponseMetadata, UpstreamResponse
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


class _EndpointSkipped(Exception):
    """The endpoint has failed recently, perhaps while the request waited for the limiter."""


class EndpointHealth:
    """A circuit breaker for each endpoint. One failure opens it, because each failed attempt delays a client. After
    `trial_after` seconds, a single request at a time tests whether the endpoint works again.

    The same endpoint has one breaker for each upstream, because upstreams may use different connection settings.
    """

    def __init__(self, events: EventSink, trial_after: float = _TRIAL_SECONDS) -> None:
        self._events = events
        self._trial_after = trial_after
        self._trial_at: dict[tuple[Upstream, Upstream], float] = {}
        """The loop time from which a failed endpoint may be tried again."""
        self._trials: dict[tuple[Upstream, Upstream], asyncio.Task[Any] | None] = {}
        """The task that makes the trial. Requests of other tasks started before the trial, so they do not end it."""

    def check(self, upstream: Upstream, endpoint: Upstream) -> None:
        """Raises _EndpointSkipped if the endpoint must not be asked now. When a trial is due, the first task that calls
        this makes the trial; the task may call it again.
        """
        trial_at = self._trial_at.get((upstream, endpoint))
        if trial_at is None:
            return
        is_due, task = asyncio.get_running_loop().time() >= trial_at, asyncio.current_task()
        if not (is_due and self._trials.setdefault((upstream, endpoint), task) is task):
            raise _EndpointSkipped

    @contextmanager
    def recorded(self, upstream: Upstream, endpoint: Upstream) -> Iterator[None]:
        """Wrap a request to the endpoint until the head of the response: records whether the endpoint works, and ends
        the trial of the current task, if it makes one.
        """
        try:
            yield
            self._record_success(upstream, endpoint)
        except UpstreamUnavailable as failure:
            if not (isinstance(failure, UpstreamThrottled) and upstream.forwards_client_credentials):
                self.record_failure(upstream, endpoint, failure.message)
            # Otherwise one caller has used up its allowance; the endpoint works for the other callers.
            raise
        except asyncio.CancelledError as left:
            if was_unanswered(left):
                self.record_failure(upstream, endpoint, "it did not answer before the client left")
            raise
        except MirrorFault:
            raise  # no request was sent to the endpoint
        except RegistryError:
            self._record_success(upstream, endpoint)
            raise
        finally:
            if self._trials.get((upstream, endpoint)) is asyncio.current_task():
                del self._trials[upstream, endpoint]

    def _record_success(self, upstream: Upstream, endpoint: Upstream) -> None:
        if self._trial_at.pop((upstream, endpoint), None) is not None:
            self._events.emit(EndpointRecovered(upstream.url, endpoint.url))

    def record_failure(self, upstream: Upstream, endpoint: Upstream, reason: str) -> None:
        trial_at, now = self._trial_at.get((upstream, endpoint)), asyncio.get_running_loop().time()
        if trial_at is None:
            self._events.emit(EndpointFailed(upstream.url, endpoint.url, reason))
        if trial_at is None or now >= trial_at:
            self._trial_at[upstream, endpoint] = now + self._trial_after


T = TypeVar("T")


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
        # Each endpoint has all URLs: the endpoints share a realm (see RealmPolicy), whichever sent the challenge.
        addresses = tuple((endpoint.url, endpoint.origin) for endpoint in upstream.endpoints)
        turns = [(replace(endpoint, fallbacks=addresses), False) for endpoint in upstream.endpoints]
        for endpoint, is_last_resort in turns:
            check = None if is_last_resort else partial(self._health.check, upstream, endpoint)
            try:
                with self._health.recorded(upstream, endpoint):
                    if check:
                        check()
                    return await ask(endpoint, check)
            except _EndpointSkipped:
                turns.append((endpoint, True))
            except UpstreamUnavailable as failure:
                failures.append(failure)
        raise next((one for one in failures if isinstance(one, UpstreamThrottled)), failures[0])


@dataclass(frozen=True)
class _MonitoredResponse:
    """Implements UpstreamResponse. Records failures of the body as failures of the endpoint."""

    answer: UpstreamResponse
    health: EndpointHealth
    upstream: Upstream
    endpoint: Upstream

    @property
    def metadata(self) -> ResponseMetadata:
        return self.answer.metadata

    async def pieces(self) -> AsyncIterator[Bytes]:
        with self._recorded():
            async with aclosing(self.answer.pieces()) as pieces:  # type: ignore[type-var]  # all implementations are generators
                async for piece in pieces:
                    yield piece

    async def read(self, limit: int) -> bytes:
        with self._recorded():
            return await self.answer.read(limit)

    @contextmanager
    def _recorded(self) -> Iterator[None]:
        try:
            yield
        except UpstreamBodyTooLarge:
            raise  # every endpoint would send the same body, so this must not mark them all as failed
        except UpstreamUnavailable as failure:
            self.health.record_failure(self.upstream, self.endpoint, failure.message)
            raise
