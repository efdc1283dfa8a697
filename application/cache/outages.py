"""Outages: what to do while an upstream cannot be asked, where an older answer can stand in."""

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from dataclasses import dataclass
from typing import Any, TypeVar

from application.cache.remembered import Remembered
from application.ports.event_sink import EventSink
from domain.documents import one_line
from domain.errors import (
    RegistryError,
    UpstreamBroken,
    UpstreamThrottled,
    UpstreamTimedOut,
    UpstreamUndecided,
    UpstreamUnreachable,
)
from domain.events import StaleServed
from domain.ports import Clock
from domain.records import CallerId
from domain.upstreams import Upstream

T = TypeVar("T")

OUTAGE = (UpstreamUnreachable, UpstreamTimedOut, UpstreamThrottled, UpstreamBroken, UpstreamUndecided)
"""What says nothing about rights or content, only that the upstream cannot be asked now. A 401, 403 or 404 is its
word, and passed on.
"""
# A client has little patience (docker: 15 s for all of it); with an older answer at hand it need not have it.
_PATIENCE_SECONDS = 4.0
_PAUSE_SECONDS = 5.0
_REMEMBERED = 4096


@dataclass(frozen=True)
class _Failure:
    at: float
    message: str


class Outages:
    """Remembers which upstreams have just failed, so that not every request waits for the next failure."""

    def __init__(self, clock: Clock, events: EventSink) -> None:
        self._clock = clock
        self._events = events
        self._failures: Remembered[Hashable, _Failure] = Remembered(_REMEMBERED)

    async def attempt(
        self, upstream: Upstream, caller: CallerId, start: Callable[[], Coroutine[Any, Any, T]], *, has_stand_in: bool
    ) -> T:
        """What `start` gives. With a stand-in the wait is short, and an upstream that has just failed is not asked.

        Raises what `start` raises; UpstreamTimedOut where the short wait is over.
        """
        if has_stand_in and (message := self._recent(upstream, caller)):
            raise UpstreamUnreachable(message)
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS if has_stand_in else None):
                result = await start()
        except TimeoutError as error:
            timed_out = UpstreamTimedOut("the upstream did not answer in time")
            self._note(upstream, timed_out)
            raise timed_out from error
        except (UpstreamUnreachable, UpstreamTimedOut) as error:
            self._note(upstream, error)
            raise
        except UpstreamThrottled as error:
            # Who was asked to wait is this caller; others have an allowance of their own.
            self._note((upstream, caller), error)
            raise
        self._failures.pop(upstream)
        self._failures.pop((upstream, caller))
        return result

    def stale(self, upstream: Upstream, fault: RegistryError) -> str:
        """Note that an older answer stands in; the Warning that goes with it (RFC 7234 section 5.5.7, in the form of
        the OCI distribution specification, "Warnings").
        """
        reason = one_line(fault.message).encode("ascii", "replace").decode()
        self._events.emit(StaleServed(upstream.url, reason))
        quoted = reason.replace("\\", "").replace('"', "'")[:512]
        return f'299 - "not checked with the upstream just now: {quoted}"'

    def _note(self, key: Hashable, error: RegistryError) -> None:
        self._failures.put(key, _Failure(self._clock.now(), error.message))

    def _recent(self, upstream: Upstream, caller: CallerId) -> str | None:
        now = self._clock.now()
        known = (self._failures.get(upstream), self._failures.get((upstream, caller)))
        return next((one.message for one in known if one and now < one.at + _PAUSE_SECONDS), None)
