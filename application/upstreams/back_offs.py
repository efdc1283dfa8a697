"""Allowances: how many pulls an upstream still allows a caller. BackOffs: until when an upstream wants no requests."""

import math
from dataclasses import dataclass, replace

from application.concurrency import LruCache
from application.ports.rate_limits import AllowanceNews, BackOffNews
from application.ports.telemetry import AllowanceTable, EventSink
from application.upstreams.rate_limit_outbox import RateLimitOutbox
from domain.allowance import Allowance, RateLimit, seconds_to_wait
from domain.errors import UpstreamBackOff, UpstreamThrottled
from domain.events import BackOffStarted
from domain.ports import Clock
from domain.records import ANONYMOUS_CALLER, CallerId, is_mirror_caller
from domain.upstreams import Upstream
from domain.value import Value

_DEFAULT_SECONDS = 5.0
"""For a 429 without a time."""
_LONGEST_SECONDS = 600.0
"""The longest back-off. The time that an upstream states is the latest one at which it accepts requests again. It may
accept them earlier, so the mirror asks again."""
_SPARED_SECONDS = 1.0
"""During a back-off, one request without an older answer is sent in this time."""
_REMEMBERED = 4096


class Allowances:
    """One allowance for each upstream and caller. Operators see the mirror's and the anonymous allowance only. A
    caller's allowance is private: it is kept by the caller's fingerprint, so that requests can stop in time.
    """

    def __init__(self, allowance_table: AllowanceTable, clock: Clock, outbox: RateLimitOutbox | None = None) -> None:
        """`outbox`: None if this replica shares nothing."""
        self._table = allowance_table
        self._clock = clock
        self._outbox = outbox
        self._known: LruCache[tuple[Upstream, CallerId], Allowance] = LruCache(_REMEMBERED)

    def saw(self, upstream: Upstream, caller: CallerId, rate_limit: RateLimit) -> None:
        """The upstream has just stated the allowance of this caller."""
        allowance, before = rate_limit.seen(self._clock.now()), self.last(upstream, caller)
        self._keep(upstream, caller, allowance)
        # Of a caller with a login of its own, the others need to know only whether the allowance is used up.
        is_needed = _is_shown(caller) or not allowance.remaining or (before is not None and not before.remaining)
        if self._outbox and is_needed:
            self._outbox.put(AllowanceNews(upstream.fingerprint, caller, allowance))

    def learn(self, upstream: Upstream, caller: CallerId, allowance: Allowance) -> None:
        """Another worker or replica has received this allowance."""
        before = self.last(upstream, caller)
        if before is None or before.seen_at < allowance.seen_at:
            self._keep(upstream, caller, allowance)

    def _keep(self, upstream: Upstream, caller: CallerId, allowance: Allowance) -> None:
        self._known.put((upstream, caller), allowance)
        if _is_shown(caller):
            self._table.publish(upstream, allowance)

    def last(self, upstream: Upstream, caller: CallerId) -> Allowance | None:
        """The last allowance that this worker received or learnt from others."""
        return self._known.get((upstream, caller))

    def newest(self, upstream: Upstream) -> Allowance | None:
        """The last allowance that any worker received and that operators may see."""
        return self._table.newest(upstream)


def _is_shown(caller: CallerId) -> bool:
    """Whether operators may see the allowance of this caller."""
    return caller == ANONYMOUS_CALLER or is_mirror_caller(caller)


class Asker(Value, frozen=True):
    """A caller of an upstream, which counts the requests of each caller separately. `manifests`: the requests are for
    manifests, which registries count, and not for blobs and tokens.
    """

    upstream: Upstream
    caller: CallerId
    manifests: bool = False


@dataclass(frozen=True)
class BackOff:
    """No requests are sent until `until`. `is_from_upstream`: the time is from Retry-After; `at`: when the upstream
    answered. Times in seconds since 1970.
    """

    until: float
    message: str
    is_from_upstream: bool = False
    at: float = 0.0


class BackOffs:
    """A 429 or an exhausted allowance starts a back-off. It ends after some time, or when the upstream answers without
    a 429.
    """

    def __init__(
        self, allowances: Allowances, clock: Clock, events: EventSink, outbox: RateLimitOutbox | None = None
    ) -> None:
        """`outbox`: None if this replica shares nothing."""
        self._allowances = allowances
        self._clock = clock
        self._events = events
        self._outbox = outbox
        self._throttled: LruCache[Asker, BackOff] = LruCache(_REMEMBERED)
        self._asked: LruCache[Asker, float] = LruCache(_REMEMBERED)

    def current(self, asker: Asker) -> BackOff | None:
        """The current back-off; None if there is none. A request with an older answer is not sent meanwhile."""
        now = self._clock.now()
        known = [one for one in (self._throttled.get(asker), self._spent(asker)) if one and now < one.until]
        return max(known, key=lambda one: (one.is_from_upstream, one.until), default=None)

    def take_turn(self, asker: Asker) -> None:
        """Called before a request without an older answer. During a back-off, only one such request is sent per second,
        because clients repeat a refused request at once.

        Raises UpstreamBackOff for the other requests, with the rest of the time that the upstream named.
        """
        back_off = self.current(asker)
        if back_off is None:
            return
        now = self._clock.now()
        asked = self._asked.get(asker)
        if asked is not None and now < asked + _SPARED_SECONDS:
            raise self._refusal(back_off, now)
        self._asked.put(asker, now)

    def last(self, asker: Asker) -> BackOff | None:
        """The back-off that the last 429 started. It may be over."""
        return self._throttled.get(asker)

    def check(self, asker: Asker, known: BackOff | None) -> None:
        """Called for a request that has waited for another request. `known`: the result of `last` before it waited.
        Raises UpstreamBackOff if the upstream has answered 429 since, because another request would be useless.
        """
        back_off, now = self.last(asker), self._clock.now()
        if back_off and back_off is not known and now < back_off.until:
            raise self._refusal(back_off, now)

    def throttled(self, asker: Asker, error: UpstreamThrottled) -> None:
        """The upstream answered 429."""
        before, now = self.current(asker), self._clock.now()
        if error.allowance and asker.manifests:
            self._allowances.saw(asker.upstream, asker.caller, error.allowance)
        stated = seconds_to_wait(error.retry_after, now)
        seconds = _DEFAULT_SECONDS if stated is None else min(stated, _LONGEST_SECONDS)
        back_off = BackOff(now + seconds, error.message, is_from_upstream=stated is not None, at=now)
        self._throttled.put(asker, back_off)
        self._asked.put(asker, now)
        self._tell(asker, back_off)
        self._emit_start(asker, before)

    def answered(self, asker: Asker) -> None:
        """The upstream answered without a 429. This ends the back-off after a 429, but not that of an exhausted
        allowance.
        """
        if back_off := self._throttled.get(asker):
            self._throttled.pop(asker)
            now = self._clock.now()
            self._tell(asker, replace(back_off, until=now, at=now))

    def learn(self, upstream: Upstream, news: BackOffNews) -> None:
        """At another worker or replica, the upstream has answered 429, or has ended a back-off."""
        asker, now = Asker(upstream, news.caller, news.manifests), self._clock.now()
        known = self._throttled.get(asker)
        if known and known.at > news.at:
            return
        if news.until <= news.at:
            self._throttled.pop(asker)
        elif known is None or known.at < news.at:
            # The clock of the other replica may be wrong.
            until = min(news.until, now + _LONGEST_SECONDS)
            self._throttled.put(asker, BackOff(until, news.message, news.is_from_upstream, news.at))
            self._asked.put(asker, now)

    def saw(self, upstream: Upstream, caller: CallerId, rate_limit: RateLimit | None) -> None:
        """The upstream answered a request for a manifest. `rate_limit`: the allowance that it stated, or None."""
        if rate_limit is None:
            return
        asker = Asker(upstream, caller, manifests=True)
        before = self.current(asker)
        self._allowances.saw(upstream, caller, rate_limit)
        self._emit_start(asker, before)

    def _refusal(self, back_off: BackOff, now: float) -> UpstreamBackOff:
        # Without a Retry-After from the upstream the mirror sends none: clients would wait longer than needed.
        left = str(math.ceil(back_off.until - now)) if back_off.is_from_upstream else None
        return UpstreamBackOff(back_off.message, retry_after=left)

    def _spent(self, asker: Asker) -> BackOff | None:
        known = self._allowances.last(asker.upstream, asker.caller) if asker.manifests else None
        if known is None:
            return None
        until = min(known.spent_until, known.seen_at + _LONGEST_SECONDS)
        return BackOff(until, "the allowance at the upstream is used up")

    def _tell(self, asker: Asker, back_off: BackOff) -> None:
        if self._outbox:
            fingerprint, caller, manifests = asker.upstream.fingerprint, asker.caller, asker.manifests
            told = (back_off.at, back_off.until, back_off.message, back_off.is_from_upstream)
            self._outbox.put(BackOffNews(fingerprint, caller, manifests, *told))

    def _emit_start(self, asker: Asker, before: BackOff | None) -> None:
        """Emit one event for each back-off, however many requests it affects."""
        begun = self.current(asker)
        if begun and not before:
            seconds = math.ceil(begun.until - self._clock.now())
            self._events.emit(BackOffStarted(asker.upstream.url, seconds, begun.message))
