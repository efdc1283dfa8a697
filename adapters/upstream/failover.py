"""Which of an upstream's addresses is asked: the first that is well, in their order."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

from adapters.upstream.endpoint_health import EndpointHealth
from adapters.upstream.http_client import Check, was_unanswered
from application.ports.upstream_registry import Answer
from domain.digest import Bytes
from domain.errors import (
    MirrorFault,
    RegistryError,
    UpstreamBroken,
    UpstreamThrottled,
    UpstreamTimedOut,
    UpstreamTooLong,
    UpstreamUnreachable,
)
from domain.upstreams import Upstream

T = TypeVar("T")

FAILURES = (UpstreamUnreachable, UpstreamTimedOut, UpstreamBroken, UpstreamThrottled)
"""After which another address may do better. Anything else is the registry's word, and would be the same there."""


class _PassedOver(Exception):
    """Its address has failed while the request waited for its turn (see Gate)."""


class Failover:
    """Asks an upstream with several addresses. They are one registry, and nobody above knows which of them answered."""

    def __init__(self, health: EndpointHealth) -> None:
        self._health = health

    @asynccontextmanager
    async def opened(
        self, upstream: Upstream, open_at: Callable[[Upstream, Check | None], AbstractAsyncContextManager[Answer]]
    ) -> AsyncIterator[Answer]:
        """The first answer there is. A body that breaks off counts against its address, so that who goes on with the
        rest does so at the next one.
        """
        async with AsyncExitStack() as stack:

            async def ask(endpoint: Upstream, check: Check | None) -> Answer:
                answer = await stack.enter_async_context(open_at(endpoint, check))
                return _WatchedAnswer(answer, self._health, upstream, endpoint)

            yield await self.first(upstream, ask)

    async def first(self, upstream: Upstream, ask: Callable[[Upstream, Check | None], Coroutine[Any, Any, T]]) -> T:
        """What the first address gives that gives anything.

        Those that have failed not long ago come last: where all have, nothing is gained by asking none. That is looked
        at again when the request's turn has come, or all who wait for theirs would bear the silence of an address one
        after the other. Raises what `ask` does: of several failures the one that says how long to wait, else the first.
        """
        failures: list[RegistryError] = []
        turns = [(endpoint, False) for endpoint in _each(upstream)]
        for endpoint, is_last_resort in turns:
            if not is_last_resort and not await self._health.is_well(upstream, endpoint):
                turns.append((endpoint, True))
                continue
            check = None if is_last_resort else partial(self._check, upstream, endpoint)
            try:
                return await self._ask(upstream, endpoint, ask(endpoint, check))
            except _PassedOver:
                turns.append((endpoint, True))
            except FAILURES as failure:
                failures.append(failure)
        raise next((one for one in failures if isinstance(one, UpstreamThrottled)), failures[0])

    async def _check(self, upstream: Upstream, endpoint: Upstream) -> None:
        if not await self._health.is_well(upstream, endpoint):
            raise _PassedOver

    async def _ask(self, upstream: Upstream, endpoint: Upstream, asking: Coroutine[Any, Any, T]) -> T:
        try:
            answer = await asking
        except FAILURES as failure:
            if not (isinstance(failure, UpstreamThrottled) and upstream.takes_callers_logins):
                await self._health.failed(upstream, endpoint, failure.message)
            # Else it is one caller who has used up what is his; the address is well for all others.
            raise
        except asyncio.CancelledError as left:
            if was_unanswered(left):
                await self._health.failed(upstream, endpoint, "it did not answer before whoever asked had left")
            raise
        except MirrorFault:
            raise  # the address was not asked
        except RegistryError:
            await self._health.answered(upstream, endpoint)
            raise
        else:
            await self._health.answered(upstream, endpoint)
            return answer
        finally:
            self._health.tried(upstream, endpoint)


class _WatchedAnswer:
    """Plays the Answer."""

    def __init__(self, answer: Answer, health: EndpointHealth, upstream: Upstream, endpoint: Upstream) -> None:
        self.facts = answer.facts
        self._answer = answer
        self._health = health
        self._upstream = upstream
        self._endpoint = endpoint

    async def pieces(self) -> AsyncIterator[Bytes]:
        try:
            async with aclosing(self._answer.pieces()) as pieces:  # type: ignore[type-var]  # generators, all of them
                async for piece in pieces:
                    yield piece
        except FAILURES as failure:
            await self._health.failed(self._upstream, self._endpoint, failure.message)
            raise

    async def read(self, limit: int) -> bytes:
        try:
            return await self._answer.read(limit)
        except UpstreamTooLong:
            raise  # it would be as long at any address; whoever asks for it is not to have them all left alone
        except FAILURES as failure:
            await self._health.failed(self._upstream, self._endpoint, failure.message)
            raise


def _each(upstream: Upstream) -> list[Upstream]:
    """Its endpoints, each of which still knows all addresses: they are behind one realm (see RealmPolicy), wherever
    the challenge came from.
    """
    endpoints = upstream.endpoints
    addresses = tuple((endpoint.url, endpoint.origin) for endpoint in endpoints)
    return [replace(endpoint, fallbacks=addresses) for endpoint in endpoints]
