"""Outages: requests to an upstream that may be unavailable, for which an older answer may exist."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from application.concurrency import LruCache
from application.ports.telemetry import EventSink, current_record
from application.ports.upstream import SharedWork, current_watch, watched_by
from application.upstreams.back_offs import Asker, BackOffs
from domain.documents import one_line
from domain.errors import (
    RegistryError,
    UpstreamBackOff,
    UpstreamThrottled,
    UpstreamTimedOut,
    UpstreamUnreachable,
)
from domain.events import StaleServed
from domain.http_fields import warning
from domain.ports import Clock
from domain.records import CallerId
from domain.upstreams import Upstream

T = TypeVar("T")

_PATIENCE_SECONDS = 4.0
"""How long a request waits if an older answer exists. Clients do not wait long (docker: 15 s in all)."""
_PAUSE_SECONDS = 5.0
"""How long an upstream is not asked after a failure if an older answer exists."""
_REMEMBERED = 4096


class _Patience(SharedWork):
    """Limits how long an upstream may be silent. Time in the queue for the upstream does not count."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self._left = seconds
        self.limit = asyncio.timeout(seconds)

    def paused(self) -> None:
        if self.limit.expired():
            return
        now = asyncio.get_running_loop().time()
        self._left = max(0.0, (self.limit.when() or now) - now)
        self.limit.reschedule(None)

    def resumed(self) -> None:
        if not self.limit.expired():
            self.limit.reschedule(asyncio.get_running_loop().time() + self._left)


async def _within(seconds: float, start: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """The result of `start`. Raises UpstreamTimedOut if it takes longer; time in the queue does not count."""
    patience = _Patience(seconds)
    with patience.followed_by(current_watch()), watched_by(patience):
        try:
            async with patience.limit:
                return await start()
        except TimeoutError as error:
            raise UpstreamTimedOut("the upstream did not answer in time") from error


class Outages:
    """Remembers which upstreams have just failed, so that not every request waits for the next failure."""

    def __init__(self, back_offs: BackOffs, clock: Clock, events: EventSink) -> None:
        self._back_offs = back_offs
        self._clock = clock
        self._events = events
        self._failures: LruCache[Upstream, tuple[float, str]] = LruCache(_REMEMBERED)
        """The time and the message of the last failure."""

    async def attempt(
        self,
        upstream: Upstream,
        caller: CallerId,
        start: Callable[[], Coroutine[Any, Any, T]],
        *,
        has_stand_in: bool,
        manifests: bool = False,
    ) -> T:
        """The result of `start`. `has_stand_in`: an older answer exists. Then the wait is short, and `start` is not
        called if the upstream has just failed or wants fewer requests from this caller. `manifests`: `start` requests
        a manifest, which registries count.

        Raises what `start` raises; UpstreamUnreachable if `start` is not called; UpstreamTimedOut after the short wait;
        UpstreamBackOff if the upstream has just answered 429.
        """
        asker = Asker(upstream, caller, manifests)
        if has_stand_in and (message := self._recent(asker)):
            raise UpstreamUnreachable(message)
        if manifests and not has_stand_in:
            self._back_offs.take_turn(asker)
        try:
            result = await (_within(_PATIENCE_SECONDS, start) if has_stand_in else start())
        except (UpstreamUnreachable, UpstreamTimedOut) as error:
            self._failures.put(upstream, (self._clock.now(), error.message))
            raise
        except UpstreamBackOff:
            raise
        except UpstreamThrottled as error:
            self._back_offs.throttled(asker, error)
            raise
        self._failures.pop(upstream)
        self._back_offs.answered(asker)
        return result

    def failure(self, upstream: Upstream) -> tuple[float, str] | None:
        """Until when the upstream is not asked if there is an older answer (seconds since 1970), and why; None if it
        has not just failed.
        """
        failure = self._failures.get(upstream)
        if failure is None or self._clock.now() >= failure[0] + _PAUSE_SECONDS:
            return None
        return failure[0] + _PAUSE_SECONDS, failure[1]

    def stale(self, upstream: Upstream, fault: RegistryError) -> str:
        """Report that an older answer is served; returns the value of its Warning header."""
        reason = one_line(fault.message)
        self._events.emit(StaleServed(upstream.url, reason))
        current_record().result = "stale"
        return warning(f"not checked with the upstream just now: {reason[:512]}")

    def _recent(self, asker: Asker) -> str | None:
        if failure := self.failure(asker.upstream):
            return failure[1]
        back_off = self._back_offs.current(asker)
        return back_off.message if back_off else None
