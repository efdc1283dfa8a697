"""BackOffs: whom an upstream has asked to ask less, and until when it is left alone."""

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

_USUAL_SECONDS = 5.0
"""Where a 429 says nothing of how long."""
# An upstream may say more than is true: a window is when the allowance ends at the latest. So it is asked again.
_LONGEST_SECONDS = 600.0
_SPARED_SECONDS = 1.0
_REMEMBERED = 4096


@dataclass(frozen=True)
class Asker:
    """Whom the upstream counts, and for what. Others have an allowance of their own, and so have `manifests`, which
    are what registries count, beside blobs and tokens.
    """

    upstream: Upstream
    caller: CallerId
    manifests: bool = False


@dataclass(frozen=True)
class BackOff:
    """`until`: the upstream is left alone, in seconds since 1970. `is_told`: so it said itself, by Retry-After."""

    until: float
    message: str
    is_told: bool = False


class BackOffs:
    """Begun by a 429, or by the last of an allowance; ended by time, or by an answer that says otherwise."""

    def __init__(self, allowances: Allowances, clock: Clock, events: EventSink) -> None:
        self._allowances = allowances
        self._clock = clock
        self._events = events
        self._throttled: LruCache[Asker, BackOff] = LruCache(_REMEMBERED)
        self._asked: LruCache[Asker, float] = LruCache(_REMEMBERED)

    def current(self, asker: Asker) -> BackOff | None:
        """Until when to leave the upstream alone, where an older answer can stand in."""
        now = self._clock.now()
        known = [one for one in (self._throttled.get(asker), self._spent(asker)) if one and now < one.until]
        return max(known, key=lambda one: (one.is_told, one.until), default=None)

    def take_turn(self, asker: Asker) -> None:
        """Nothing stands in. One may try all the same, but not each: clients come again at once, several times.

        Raises UpstreamBackOff for all others, with what is left of the time that the upstream named.
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
        """What the last 429 began, over or not."""
        return self._throttled.get(asker)

    def check(self, asker: Asker, known: BackOff | None) -> None:
        """For who has waited for another who asked, and knew of the `known` one then. Raises UpstreamBackOff where
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
        told = seconds_to_wait(error.retry_after, now)
        seconds = _USUAL_SECONDS if told is None else min(told, _LONGEST_SECONDS)
        self._throttled.put(asker, BackOff(now + seconds, error.message, is_told=told is not None))
        self._asked.put(asker, now)
        self._tell(asker, before)

    def answered(self, asker: Asker) -> None:
        """The upstream answered otherwise, so its 429 is over. A spent allowance is so until it says more."""
        self._throttled.pop(asker)

    def saw(self, upstream: Upstream, caller: CallerId, told: RateLimit | None) -> None:
        """An answer about a manifest said this of the allowance, or nothing."""
        if told is None:
            return
        asker = Asker(upstream, caller, manifests=True)
        before = self.current(asker)
        self._allowances.saw(upstream, caller, told)
        self._tell(asker, before)

    def _spared(self, back_off: BackOff, now: float) -> UpstreamBackOff:
        # Without a word of the upstream's none of ours: clients that heed it would wait for longer than they need.
        left = str(math.ceil(back_off.until - now)) if back_off.is_told else None
        return UpstreamBackOff(back_off.message, retry_after=left)

    def _spent(self, asker: Asker) -> BackOff | None:
        known = self._allowances.last(asker.upstream, asker.caller) if asker.manifests else None
        if known is None:
            return None
        until = min(known.spent_until, known.seen_at + _LONGEST_SECONDS)
        return BackOff(until, "the allowance at the upstream is used up")

    def _tell(self, asker: Asker, before: BackOff | None) -> None:
        """Once for each time that it begins, however many meet it."""
        begun = self.current(asker)
        if begun and not before:
            seconds = math.ceil(begun.until - self._clock.now())
            self._events.emit(BackOffStarted(asker.upstream.url, seconds, begun.message))
