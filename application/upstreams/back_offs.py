"""BackOffs: for which callers an upstream wants fewer requests, and until when."""

import math
from dataclasses import dataclass

from application.concurrency import LruCache
from application.ports.telemetry import EventSink
from application.upstreams.allowance import Allowances
from domain.allowance import RateLimit, seconds_to_wait
from domain.errors import UpstreamBackOff, UpstreamThrottled
from domain.events import BackOffStarted
from domain.ports import Clock
from domain.records import CallerId
from domain.upstreams import Upstream

_DEFAULT_SECONDS = 5.0
"""For a 429 without a time."""
# An upstream may name a longer time than needed, since a window ends at the latest then. So it is asked again.
_LONGEST_SECONDS = 600.0
_SPARED_SECONDS = 1.0
_REMEMBERED = 4096


@dataclass(frozen=True)
class Asker:
    """What an upstream counts requests for. Each caller has an allowance of its own. `manifests`: the requests are for
    manifests, which registries count, and not for blobs and tokens.
    """

    upstream: Upstream
    caller: CallerId
    manifests: bool = False


@dataclass(frozen=True)
class BackOff:
    """No requests are sent until `until`, in seconds since 1970. `is_from_upstream`: the time is from Retry-After."""

    until: float
    message: str
    is_from_upstream: bool = False


class BackOffs:
    """A 429 or an exhausted allowance starts a back-off; time or a later answer of the upstream ends it."""

    def __init__(self, allowances: Allowances, clock: Clock, events: EventSink) -> None:
        self._allowances = allowances
        self._clock = clock
        self._events = events
        self._throttled: LruCache[Asker, BackOff] = LruCache(_REMEMBERED)
        self._asked: LruCache[Asker, float] = LruCache(_REMEMBERED)

    def current(self, asker: Asker) -> BackOff | None:
        """The back-off in force, for requests that an older answer can satisfy."""
        now = self._clock.now()
        known = [one for one in (self._throttled.get(asker), self._spent(asker)) if one and now < one.until]
        return max(known, key=lambda one: (one.is_from_upstream, one.until), default=None)

    def take_turn(self, asker: Asker) -> None:
        """For a request without a stand-in: one request in a while is sent all the same, since clients retry at once.

        Raises UpstreamBackOff for all others, with the rest of the time that the upstream named.
        """
        back_off = self.current(asker)
        if back_off is None:
            return
        now = self._clock.now()
        asked = self._asked.get(asker)
        if asked is not None and now < asked + _SPARED_SECONDS:
            raise self._spared(back_off, now)
        self._asked.put(asker, now)

    def last(self, asker: Asker) -> BackOff | None:
        """The back-off that the last 429 started, over or not."""
        return self._throttled.get(asker)

    def check(self, asker: Asker, known: BackOff | None) -> None:
        """For a request that waited for another one, when `known` was the last back-off. Raises UpstreamBackOff if
        there was a 429 since.
        """
        back_off, now = self.last(asker), self._clock.now()
        if back_off and back_off is not known and now < back_off.until:
            raise self._spared(back_off, now)

    def throttled(self, asker: Asker, error: UpstreamThrottled) -> None:
        """The upstream answered 429."""
        before, now = self.current(asker), self._clock.now()
        if error.allowance and asker.manifests:
            self._allowances.saw(asker.upstream, asker.caller, error.allowance)
        stated = seconds_to_wait(error.retry_after, now)
        seconds = _DEFAULT_SECONDS if stated is None else min(stated, _LONGEST_SECONDS)
        self._throttled.put(asker, BackOff(now + seconds, error.message, is_from_upstream=stated is not None))
        self._asked.put(asker, now)
        self._emit_start(asker, before)

    def answered(self, asker: Asker) -> None:
        """The upstream answered without 429, which ends the back-off, but not that of an exhausted allowance."""
        self._throttled.pop(asker)

    def saw(self, upstream: Upstream, caller: CallerId, rate_limit: RateLimit | None) -> None:
        """What an answer for a manifest said about the allowance; None if it said nothing."""
        if rate_limit is None:
            return
        asker = Asker(upstream, caller, manifests=True)
        before = self.current(asker)
        self._allowances.saw(upstream, caller, rate_limit)
        self._emit_start(asker, before)

    def _spared(self, back_off: BackOff, now: float) -> UpstreamBackOff:
        # Without a Retry-After from the upstream the mirror sends none: clients would wait longer than needed.
        left = str(math.ceil(back_off.until - now)) if back_off.is_from_upstream else None
        return UpstreamBackOff(back_off.message, retry_after=left)

    def _spent(self, asker: Asker) -> BackOff | None:
        known = self._allowances.last(asker.upstream, asker.caller) if asker.manifests else None
        if known is None:
            return None
        until = min(known.spent_until, known.seen_at + _LONGEST_SECONDS)
        return BackOff(until, "the allowance at the upstream is used up")

    def _emit_start(self, asker: Asker, before: BackOff | None) -> None:
        """Emit one event for each back-off, however many requests it affects."""
        begun = self.current(asker)
        if begun and not before:
            seconds = math.ceil(begun.until - self._clock.now())
            self._events.emit(BackOffStarted(asker.upstream.url, seconds, begun.message))
