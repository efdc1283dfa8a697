"""The numbers of the history: sums, latencies from histograms, and longer buckets from shorter ones."""

from bisect import bisect_left
from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.history import (
    DURATION_BOUNDS,
    FIVE_MINUTES,
    NUMBERS,
    RESOLUTIONS,
    SPANS,
    Bucket,
    Totals,
    grouped,
)

START = 1_800_000_000
SECONDS = st.floats(0, 400, allow_nan=False)
TOTALS = st.lists(st.integers(0, 2**40), min_size=NUMBERS, max_size=NUMBERS).map(Totals.of)


def latencies(*seconds: float) -> Totals:
    """The histogram of these times."""
    buckets = [0] * (len(DURATION_BOUNDS) + 1)
    for one in seconds:
        buckets[bisect_left(DURATION_BOUNDS, one)] += 1
    return Totals(latencies=tuple(buckets))


def test_numbers_are_in_the_order_of_the_fields() -> None:
    totals = Totals(1, 2, 3, 4, 5, 6, 7, 8, 9, tuple(range(10, 27)))
    assert totals.numbers == tuple(range(1, 27))
    assert (totals.hits, totals.bytes_in, totals.bytes_saved) == (1, 3, 5)
    assert (totals.upstream_faults, totals.mirror_faults, totals.refused, totals.client_left) == (6, 7, 8, 9)


@given(TOTALS)
def test_totals_can_be_made_from_their_numbers(totals: Totals) -> None:
    assert Totals.of(totals.numbers) == totals


@given(st.lists(TOTALS, max_size=4))
def test_a_sum_is_the_sum_of_each_number(parts: list[Totals]) -> None:
    total = Totals.sum(parts)
    assert total.numbers == tuple(sum(part.numbers[place] for part in parts) for place in range(NUMBERS))


def test_a_hit_ratio_is_the_share_of_hits() -> None:
    assert Totals(hits=3, misses=1).hit_ratio == 0.75
    assert Totals(misses=1).hit_ratio == 0
    assert Totals().hit_ratio is None


@given(st.lists(SECONDS, min_size=1, max_size=60), st.sampled_from([0.01, 0.5, 0.9, 0.99, 1.0]))
def test_a_latency_is_in_the_bucket_of_the_true_quantile(times: list[float], share: float) -> None:
    true = sorted(times)[ceil(share * len(times)) - 1]
    bucket = bisect_left(DURATION_BOUNDS, true)
    found = latencies(*times).latency(share)
    assert found is not None
    if bucket == len(DURATION_BOUNDS):
        assert found == DURATION_BOUNDS[-1]
    else:
        assert (DURATION_BOUNDS[bucket - 1] if bucket else 0) <= found <= DURATION_BOUNDS[bucket]


@given(st.lists(SECONDS, min_size=1, max_size=60), st.floats(0.001, 1), st.floats(0.001, 1))
def test_a_larger_share_has_no_smaller_latency(times: list[float], one: float, other: float) -> None:
    totals = latencies(*times)
    low, high = totals.latency(min(one, other)), totals.latency(max(one, other))
    assert low is not None
    assert high is not None
    assert low <= high


def test_a_latency_is_interpolated_as_prometheus_does() -> None:
    # histogram_quantile(0.5, ...) of 4 observations in (0.01, 0.025] is in the middle of the bucket.
    assert latencies(0.02, 0.02, 0.02, 0.02).latency(0.5) == pytest.approx(0.0175)
    assert latencies(0.0005).latency(1) == 0.001
    assert latencies(1000).latency(0.5) == 300
    assert Totals().latency(0.5) is None


@given(st.lists(st.tuples(st.integers(0, 400), TOTALS), max_size=8))
def test_grouping_loses_nothing_and_has_no_gaps(found: list[tuple[int, Totals]]) -> None:
    end = START + 400 * 60
    buckets = [Bucket(60, START + minute * 60, totals) for minute, totals in found]
    groups = grouped(buckets, 300, START, end)
    assert [one.start for one in groups] == list(range(START, end + 1, 300))
    assert {one.seconds for one in groups} == {300}
    assert Totals.sum(one.totals for one in groups) == Totals.sum(totals for _, totals in found)
    for group in groups:
        inside = [one.totals for one in buckets if group.start <= one.start < group.start + 300]
        assert group.totals == Totals.sum(inside)


def test_grouping_ignores_what_is_outside() -> None:
    buckets = [Bucket(60, START - 60, Totals(hits=1)), Bucket(60, START + 600, Totals(hits=1))]
    assert grouped(buckets, 300, START, START + 299) == [Bucket(300, START, Totals())]


def test_every_span_is_kept() -> None:
    """Also when it has just begun a row, and when the current bucket is the newest."""
    for span in SPANS.values():
        kept = span.resolution.seconds * (span.resolution.kept - 1)
        assert kept >= span.seconds + span.row
        assert span.row % span.resolution.seconds == 0


def test_a_whole_day_of_25_hours_is_kept_in_buckets_that_begin_at_midnight_everywhere() -> None:
    assert (FIVE_MINUTES.kept - 1) * FIVE_MINUTES.seconds >= 25 * 3600
    for offset in (5.75, 12.75, -3.5):  # Nepal, the Chatham Islands, Newfoundland
        assert offset * 3600 % FIVE_MINUTES.seconds == 0


def test_the_history_is_bounded() -> None:
    assert sum(one.kept * NUMBERS * 8 for one in RESOLUTIONS) < 200_000
