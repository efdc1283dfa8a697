"""MeasureByUpstream: how much of the cache each upstream has sent. One worker measures it for all."""

from application.ports.index import UsageIndex
from application.ports.telemetry import CacheByUpstream


class MeasureByUpstream:
    """Reads the whole index, so no request waits for it."""

    def __init__(self, usage: UsageIndex, metrics: CacheByUpstream) -> None:
        self._usage = usage
        self._metrics = metrics

    async def __call__(self) -> None:
        """Measure, and report the result to the metrics."""
        self._metrics.report_by_upstream(await self._usage.by_upstream())
