"""DescribeUpstreams: whether each upstream serves the mirror now."""

import asyncio
from collections.abc import Iterable

from application.ports.activity import ActivityTable, UpstreamTrouble
from application.status import ReportStatus, UpstreamStatus
from application.upstreams.back_offs import Allowances
from domain.allowance import Allowance
from domain.ports import Clock
from domain.upstreams import Upstream
from domain.value import Value

_CHECK_SECONDS = 2.0
"""How long the page waits for the check of an upstream. Then it shows the last known state."""


class DescribedUpstream(Value, frozen=True):
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
        wanted = list(upstreams)
        statuses = await asyncio.gather(*map(self._checked, wanted))
        troubles = self._troubles()
        return [self._described(*one, troubles) for one in zip(wanted, statuses, strict=True)]

    def last_known(self, upstream: Upstream) -> DescribedUpstream:
        """The same of one upstream, without asking it. The status is that of the last check, however old it is."""
        return self._described(upstream, self._status.last(upstream), self._troubles())

    def _troubles(self) -> list[UpstreamTrouble]:
        now = self._clock.now()
        return [one for activity in self._table.all() for one in activity.troubles if now < one.until]

    def _described(
        self, upstream: Upstream, status: UpstreamStatus | None, troubles: Iterable[UpstreamTrouble]
    ) -> DescribedUpstream:
        of_upstream = [one for one in troubles if one.upstream == upstream]
        return DescribedUpstream(
            upstream,
            status,
            _last(one for one in of_upstream if one.is_back_off),
            _last(one for one in of_upstream if not one.is_back_off),
            self._allowances.newest(upstream),
        )

    async def _checked(self, upstream: Upstream) -> UpstreamStatus | None:
        try:
            async with asyncio.timeout(_CHECK_SECONDS):
                return await self._status(upstream)
        except TimeoutError:
            return self._status.last(upstream)


def _last(troubles: Iterable[UpstreamTrouble]) -> UpstreamTrouble | None:
    return max(troubles, key=lambda one: one.until, default=None)
