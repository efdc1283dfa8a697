"""MeasureTraffic: how many requests and bytes per second the mirror serves now."""

import asyncio

from application.ports.telemetry import TrafficCounts
from domain.rate_meter import RateMeter
from domain.value import Value

_FIRST_SECONDS = 0.5


class TrafficRates(Value, frozen=True):
    """Per second, of all workers. `requests`: answered requests of registry clients; `sent`: bytes to clients;
    `fetched`: bytes from upstreams.
    """

    requests: float
    sent: float
    fetched: float


class MeasureTraffic:
    """Compares the counters with what they were when this worker last showed the page."""

    def __init__(self, counts: TrafficCounts) -> None:
        self._counts = counts
        self._meter = RateMeter()

    async def __call__(self) -> TrafficRates:
        """The rates of the last five seconds. If this worker has not shown the page in the last fifteen seconds, it
        measures them for half a second first.
        """
        rates = self._look()
        if rates is None:
            await asyncio.sleep(_FIRST_SECONDS)
            rates = self._look()
        return TrafficRates(*(rates or (0.0, 0.0, 0.0)))

    def _look(self) -> tuple[float, ...] | None:
        traffic = self._counts.traffic()
        return self._meter.look(asyncio.get_running_loop().time(), traffic.requests, traffic.sent, traffic.fetched)
