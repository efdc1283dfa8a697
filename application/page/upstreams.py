"""DescribeUpstreams: whether each upstream serves the mirror now."""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass

from application.ports.activity import ActivityTable, UpstreamTrouble
from application.status import ReportStatus, UpstreamStatus
from application.upstreams.back_offs import Allowances
from domain.allowance import Allowance
from domain.ports import Clock
from domain.upstreams import Upstream

_CHECK_SECONDS = 2.0
"""How long the page waits for the check of an upstream. Then it shows the last known state."""


@dataclass(frozen=True)
class DescribedUpstream:
    """`status`: None if the first check still runs; `allowance`: None if the upstream has stated none. `back_off`: the
    upstream wants fewer requests; `failure`: a request of the last seconds has failed.
    """

    upstream: Upstream
    status: UpstreamStatus | None
    back_off: UpstreamTrouble | None
    failure: UpstreamTrouble | None
    allowance: Allowance | None


class DescribeUpstreams:
    """Says whether each upstream serves the mirror, and if not, why. It asks an upstream as /readyz does: a worker asks
    at most once in five seconds, however many people look.
    """

    def __init__(self, table: ActivityTable, status: ReportStatus, allowances: Allowances, clock: Clock) -> None:
        self._table = table
        self._status = status
        self._allowances = allowances
        self._clock = clock

    async def __call__(self, upstreams: Iterable[Upstream]) -> list[DescribedUpstream]:
        """The upstreams in the same order."""
        now, wanted = self._clock.now(), list(upstreams)
        statuses = await asyncio.gather(*map(self._checked, wanted))
        troubles = [one for activity in self._table.all() for one in activity.troubles if now < one.until]
        return [
            DescribedUpstream(
                upstream,
                status,
                _last(one for one in troubles if one.upstream == upstream and one.is_back_off),
                _last(one for one in troubles if one.upstream == upstream and not one.is_back_off),
                self._allowances.newest(upstream),
            )
            for upstream, status in zip(wanted, statuses, strict=True)
        ]

    async def _checked(self, upstream: Upstream) -> UpstreamStatus | None:
        try:
            async with asyncio.timeout(_CHECK_SECONDS):
                return await self._status(upstream)
        except TimeoutError:
            return self._status.last(upstream)


def _last(troubles: Iterable[UpstreamTrouble]) -> UpstreamTrouble | None:
    return max(troubles, key=lambda one: one.until, default=None)
