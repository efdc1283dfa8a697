"""ReadHistory: what the mirror did in the last hour, day or week. It names no repository and no account."""

from application.ports.history import History
from domain.history import FIVE_MINUTES, Bucket, Span, Totals, grouped
from domain.ports import Clock
from domain.value import Value


class HistoryReport(Value, frozen=True):
    """What happened in a span. `buckets`: for a chart, and `rows`: fewer and longer ones for a table, both in order and
    without gaps; the last ones have not ended. `totals`: all of them together.
    """

    buckets: list[Bucket]
    rows: list[Bucket]
    totals: Totals


class ReadHistory:
    """Reads the memory that all workers share, so it costs no access to the disk. The last ten seconds may be missing.

    Every viewer of the page sees the same: the numbers are sums over all repositories and callers.
    """

    def __init__(self, history: History, clock: Clock) -> None:
        self._history = history
        self._clock = clock

    def over(self, span: Span) -> HistoryReport:
        """What happened in the span up to now. It begins with a whole row."""
        now = self._clock.now()
        start = int(now - span.seconds) // span.row * span.row
        found = self._history.buckets(span.resolution, start, now)
        return HistoryReport(
            grouped(found, span.resolution.seconds, start, now),
            grouped(found, span.row, start, now),
            Totals.sum(bucket.totals for bucket in found),
        )

    def today(self) -> Totals:
        """What happened since midnight, in the time zone of the service."""
        start = FIVE_MINUTES.start_of(self._clock.midnight())
        return Totals.sum(one.totals for one in self._history.buckets(FIVE_MINUTES, start, self._clock.now()))
