"""Allowances: how much an upstream still lets a caller pull, as its last answer said."""

from application.concurrency import LruCache
from application.ports.telemetry import AllowanceTable
from domain.allowance import Allowance, RateLimit
from domain.ports import Clock
from domain.records import ANONYMOUS_CALLER, CallerId, is_mirror_caller
from domain.upstreams import Upstream

_REMEMBERED = 4096


class Allowances:
    """One allowance for each upstream and caller. Operators see the mirror's and the anonymous allowance only. A
    caller's allowance is private: it is kept by the caller's fingerprint, so that requests can stop in time.
    """

    def __init__(self, allowance_table: AllowanceTable, clock: Clock) -> None:
        self._table = allowance_table
        self._clock = clock
        self._known: LruCache[tuple[Upstream, CallerId], Allowance] = LruCache(_REMEMBERED)

    def saw(self, upstream: Upstream, caller: CallerId, rate_limit: RateLimit) -> None:
        """The upstream has just stated the allowance of this caller."""
        allowance = rate_limit.seen(self._clock.now())
        self._known.put((upstream, caller), allowance)
        if caller == ANONYMOUS_CALLER or is_mirror_caller(caller):
            self._table.publish(upstream, allowance)

    def last(self, upstream: Upstream, caller: CallerId) -> Allowance | None:
        """The last allowance that this worker received."""
        return self._known.get((upstream, caller))

    def newest(self, upstream: Upstream) -> Allowance | None:
        """The last allowance that any worker received and that operators may see."""
        return self._table.newest(upstream)
