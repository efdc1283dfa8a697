"""The history of the mirror: what it did in each minute of the last hour, and in longer periods of the last week."""

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from itertools import accumulate

from domain.value import Value

DURATION_BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
"""The upper bounds, in seconds, of the buckets of histograms of durations, in the metrics and in the history."""
SAMPLE_SECONDS = 10.0
"""The time between two samples. It divides the seconds of every resolution."""
_HOUR, _DAY, _WEEK = 3600, 24 * 3600, 7 * 24 * 3600


class Totals(Value, frozen=True):
    """What the mirror did in some time. `hits` and `misses`: manifests and blobs that were served entirely from the
    cache, and others. Bytes of content: `bytes_in` from upstreams, `bytes_out` to clients, and `bytes_saved` to clients
    without being fetched for them. Then the requests that failed, by cause. `latencies`: the times to the first byte of
    manifests and blobs, as the number in each bucket of DURATION_BOUNDS and in a last one without an upper bound.
    """

    hits: int = 0
    misses: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    bytes_saved: int = 0
    upstream_faults: int = 0
    mirror_faults: int = 0
    refused: int = 0
    client_left: int = 0
    latencies: tuple[int, ...] = (0,) * (len(DURATION_BOUNDS) + 1)

    @classmethod
    def of(cls, numbers: Sequence[int]) -> "Totals":
        """The inverse of `numbers`."""
        hits, misses, bytes_in, bytes_out, saved, upstream, mirror, refused, left, *latencies = numbers
        return cls(hits, misses, bytes_in, bytes_out, saved, upstream, mirror, refused, left, tuple(latencies))

    @classmethod
    def sum(cls, parts: Iterable["Totals"]) -> "Totals":
        """All of them together."""
        return cls.of([sum(column) for column in zip(*(part.numbers for part in (cls(), *parts)), strict=True)])

    @property
    def numbers(self) -> tuple[int, ...]:
        """All numbers, in the order of the fields."""
        return (
            *(self.hits, self.misses, self.bytes_in, self.bytes_out, self.bytes_saved),
            *(self.upstream_faults, self.mirror_faults, self.refused, self.client_left),
            *self.latencies,
        )

    @property
    def hit_ratio(self) -> float | None:
        """The hits among all manifests and blobs, from 0 to 1; None if there were none."""
        return self.hits / (self.hits + self.misses) if self.hits + self.misses else None

    def latency(self, share: float) -> float | None:
        """The time to the first byte, in seconds, that this share of the requests, above 0, did not exceed; None if
        there were no requests. Within a bucket it is interpolated, as histogram_quantile of Prometheus does. A time
        above the last bound counts as that bound.
        """
        cumulated = list(accumulate(self.latencies))
        if not cumulated[-1]:
            return None
        rank = share * cumulated[-1]
        bucket = bisect_left(cumulated, rank)
        if bucket >= len(DURATION_BOUNDS):
            return DURATION_BOUNDS[-1]
        below, lower = (cumulated[bucket - 1], DURATION_BOUNDS[bucket - 1]) if bucket else (0, 0.0)
        return lower + (DURATION_BOUNDS[bucket] - lower) * (rank - below) / self.latencies[bucket]


NUMBERS = len(Totals().numbers)


class Resolution(Value, frozen=True):
    """`seconds`: the length of each bucket; a bucket begins at a multiple of it. `kept`: the number of buckets."""

    seconds: int
    kept: int

    def start_of(self, at: float) -> int:
        """When the bucket begins that contains this time. Both in seconds since 1970."""
        return int(at) // self.seconds * self.seconds


# A little more is kept than a range shows, because a range begins with a whole row of its table.
MINUTES = Resolution(60, (_HOUR + 600) // 60)
# Midnight is the beginning of such a bucket in every time zone. A day with a change of the clock has 25 hours.
FIVE_MINUTES = Resolution(300, (_DAY + 2 * _HOUR) // 300)
HOURS = Resolution(_HOUR, (_WEEK + 7 * _HOUR) // _HOUR)
RESOLUTIONS = (MINUTES, FIVE_MINUTES, HOURS)


class Bucket(Value, frozen=True):
    """What the mirror did in one period. `seconds`: its length; `start`: when it began, in seconds since 1970."""

    seconds: int
    start: int
    totals: Totals


class Span(Value, frozen=True):
    """A time up to now that is shown. `seconds`: how long it is at least; `resolution`: of the chart; `row`: seconds in
    one row of the table, a multiple of the seconds of a bucket.
    """

    seconds: int
    resolution: Resolution
    row: int


SPANS = {
    "hour": Span(_HOUR, MINUTES, 300),
    "day": Span(_DAY, FIVE_MINUTES, _HOUR),
    "week": Span(_WEEK, HOURS, 6 * _HOUR),
}


def grouped(buckets: Iterable[Bucket], seconds: int, start: int, end: float) -> list[Bucket]:
    """The buckets as longer ones of this many seconds, all of them from `start`, a multiple of `seconds`, to `end`."""
    groups: dict[int, list[Totals]] = {place: [] for place in range(start, int(end) + 1, seconds)}
    for bucket in buckets:
        place = bucket.start // seconds * seconds
        if place in groups:
            groups[place].append(bucket.totals)
    return [Bucket(seconds, place, Totals.sum(parts)) for place, parts in groups.items()]
