"""Allowances: what is left of what an upstream lets somebody pull, as it last said."""

from application.concurrency import LruCache
from application.ports.telemetry import AllowanceTable
from domain.allowance import Allowance, RateLimit
from domain.ports import Clock
from domain.records import ANONYMOUS_CALLER, CallerId, is_mirror_caller
from domain.upstreams import Upstream

_REMEMBERED = 4096


class Allowances:
    """One for each upstream and whoever it was said to. Operators are shown the mirror's own and nobody's: what a
    caller has left is the caller's business, and is known by a fingerprint only, to leave the upstream alone in time.
    """

    def __init__(self, allowance_table: AllowanceTable, clock: Clock) -> None:
        self._table = allowance_table
        self._clock = clock
        self._known: LruCache[tuple[Upstream, CallerId], Allowance] = LruCache(_REMEMBERED)

    def saw(self, upstream: Upstream, caller: CallerId, told: RateLimit) -> None:
        """The upstream said so to this caller just now."""
        allowance = told.seen(self._clock.now())
        self._known.put((upstream, caller), allowance)
        if caller == ANONYMOUS_CALLER or is_mirror_caller(caller):
            self._table.publish(upstream, allowance)

    def last(self, upstream: Upstream, caller: CallerId) -> Allowance | None:
        """What this worker heard last."""
        return self._known.get((upstream, caller))

    def newest(self, upstream: Upstream) -> Allowance | None:
        """What any worker heard last, as far as it is an operator's business."""
        return self._table.newest(upstream)
