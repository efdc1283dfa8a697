"""Failover between the endpoints of an upstream, and what this process knows of their health."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from adapters.upstream.client import Check, was_unanswered
from application.ports.telemetry import EventSink
from application.ports.upstream import RedirectTarget, ResponseMetadata, UpstreamResponse
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
from domain.value import Value


class _EndpointSkipped(Exception):
    """The endpoint has failed recently, perhaps while the request waited for the limiter."""


@dataclass(eq=False)
class _CircuitBreaker:
    """What is known of the health of one endpoint. One failure opens the breaker, because each failed attempt delays a
    client. After `trial_after` seconds, a single request at a time tests whether the endpoint works again.
    """

    upstream: Upstream
    endpoint: Upstream
    events: EventSink
    trial_after: float
    trial_at: float | None = None
    """The loop time from which the endpoint may be tried again; None if it works."""
    trial: asyncio.Task[Any] | None = None
    """The task that makes the trial. Requests of other tasks started before the trial, so they do not end it."""

    def check(self) -> None:
        """Raises _EndpointSkipped if the endpoint must not be asked now. When a trial is due, the first task that calls
        this makes the trial; the task may call it again.
        """
        if self.trial_at is None:
            return
        if asyncio.get_running_loop().time() < self.trial_at or self.trial not in {None, asyncio.current_task()}:
            raise _EndpointSkipped
        self.trial = asyncio.current_task()

    @contextmanager
    def recorded(self) -> Iterator[None]:
        """Wrap a request to the endpoint until the head of the response: records whether the endpoint works, and ends
        the trial of the current task, if it makes one.
        """
        try:
            yield
            self._record_success()
        except UpstreamUnavailable as failure:
            if not (isinstance(failure, UpstreamThrottled) and self.upstream.forwards_client_credentials):
                self.record_failure(failure.message)
            # Otherwise one caller has used up its allowance; the endpoint works for the other callers.
            raise
        except asyncio.CancelledError as cancelled:
            if was_unanswered(cancelled):
                self.record_failure("it did not answer before the client left")
            raise
        except MirrorFault:
            raise  # no request was sent to the endpoint
        except RegistryError:
            self._record_success()
            raise
        finally:
            if self.trial is asyncio.current_task():
                self.trial = None

    def _record_success(self) -> None:
        if self.trial_at is not None:
            self.trial_at = None
            self.events.emit(EndpointRecovered(self.upstream.url, self.endpoint.url))

    def record_failure(self, reason: str) -> None:
        now = asyncio.get_running_loop().time()
        if self.trial_at is None:
            self.events.emit(EndpointFailed(self.upstream.url, self.endpoint.url, reason))
        if self.trial_at is None or now >= self.trial_at:
            self.trial_at = now + self.trial_after


T = TypeVar("T")


class Failover:
    """Sends requests to an upstream with several endpoints, which are one registry for the rest of the service."""

    def __init__(self, events: EventSink, trial_after: float = 10.0) -> None:
        self._events = events
        self._trial_after = trial_after
        self._breakers: dict[tuple[Upstream, Upstream], _CircuitBreaker] = {}
        """By upstream and endpoint: upstreams may use different connection settings for the same endpoint."""

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
                return self.monitored(upstream, endpoint, answer)

            yield await self.first(upstream, ask)

    def monitored(self, upstream: Upstream, endpoint: Upstream, answer: UpstreamResponse) -> UpstreamResponse:
        """The response of the endpoint. A body that ends too early counts as a failure of the endpoint."""
        return _MonitoredResponse(answer, self._breaker(upstream, endpoint))

    def has_failed(self, upstream: Upstream, endpoint: Upstream) -> bool:
        """Whether the last request to this endpoint failed."""
        return self._breaker(upstream, endpoint).trial_at is not None

    async def first(self, upstream: Upstream, ask: Callable[[Upstream, Check | None], Coroutine[Any, Any, T]]) -> T:
        """The result of `ask` for the first endpoint that does not fail.

        Asks endpoints that failed recently last, but asks them if all others fail. It checks the health again when the
        limiter admits the request: otherwise every waiting request would wait for the timeout of a silent endpoint.
        Raises UpstreamThrottled if an endpoint raised it, because it says how long to wait; else the first failure.
        """
        failures: list[RegistryError] = []
        # Pass each endpoint together with the URLs of all endpoints: if RealmPolicy trusts a token server for one of
        # them, it must trust it for all.
        addresses = tuple((endpoint.url, endpoint.origin) for endpoint in upstream.endpoints)
        turns = [(replace(endpoint, fallbacks=addresses), False) for endpoint in upstream.endpoints]
        for endpoint, is_last_resort in turns:
            breaker = self._breaker(upstream, endpoint)
            check = None if is_last_resort else breaker.check
            try:
                with breaker.recorded():
                    if check:
                        check()
                    return await ask(endpoint, check)
            except _EndpointSkipped:
                turns.append((endpoint, True))
            except UpstreamUnavailable as failure:
                failures.append(failure)
        raise next((one for one in failures if isinstance(one, UpstreamThrottled)), failures[0])

    def _breaker(self, upstream: Upstream, endpoint: Upstream) -> _CircuitBreaker:
        new = _CircuitBreaker(upstream, endpoint, self._events, self._trial_after)
        return self._breakers.setdefault((upstream, endpoint), new)


class _MonitoredResponse(Value, frozen=True):
    """Implements UpstreamResponse. Records failures of the body as failures of the endpoint."""

    answer: UpstreamResponse
    breaker: _CircuitBreaker

    @property
    def metadata(self) -> ResponseMetadata:
        return self.answer.metadata

    @property
    def target(self) -> RedirectTarget | None:
        return self.answer.target

    def unread(self) -> int:
        return self.answer.unread()

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
            self.breaker.record_failure(failure.message)
            raise
