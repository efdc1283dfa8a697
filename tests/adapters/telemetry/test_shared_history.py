"""The history in shared memory: buckets, their roll-up, and what is left after a death of the worker that writes."""

import os
from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.telemetry.shared_history import SharedHistory
from domain.history import FIVE_MINUTES, HOURS, MINUTES, NUMBERS, RESOLUTIONS, Bucket, Resolution, Totals

START = 1_800_000_000.0  # the beginning of an hour
EVER = (0.0, 4e9)


class Counted:
    """The numbers of a service."""

    def __init__(self) -> None:
        self.totals = Totals()

    def __call__(self) -> Totals:
        return self.totals

    def add(self, **numbers: int) -> None:
        self.totals = Totals.sum([self.totals, Totals(**numbers)])


@pytest.fixture
def counted() -> Counted:
    return Counted()


@pytest.fixture
def history(counted: Counted) -> SharedHistory:
    made = SharedHistory(counted)
    made.begin(START)
    return made


def hits(history: SharedHistory, resolution: Resolution = MINUTES) -> dict[int, int]:
    """The hits of each bucket, by the seconds since START."""
    return {int(one.start - START): one.totals.hits for one in history.buckets(resolution, *EVER)}


def test_what_happened_is_in_one_bucket_of_each_resolution(history: SharedHistory, counted: Counted) -> None:
    counted.add(hits=2, misses=1, bytes_out=1000)
    changed = history.record(START + 10)
    counted.add(hits=3)
    history.record(START + 20)
    assert [(one.seconds, one.start, one.totals.hits) for one in changed] == [
        (60, START, 2),
        (300, START, 2),
        (3600, START, 2),
    ]
    for resolution in RESOLUTIONS:
        (bucket,) = history.buckets(resolution, *EVER)
        assert bucket.totals == Totals(hits=5, misses=1, bytes_out=1000)


def test_a_sample_at_the_end_of_a_bucket_belongs_to_it(history: SharedHistory, counted: Counted) -> None:
    for second in (60.002, 120.3, 129.9):
        counted.add(hits=1)
        history.record(START + second)
    assert hits(history) == {0: 1, 60: 1, 120: 1}


def test_buckets_are_read_in_order_and_by_time(history: SharedHistory, counted: Counted) -> None:
    for minute in range(130):
        counted.add(hits=1)
        history.record(START + minute * 60 + 10)
    found = history.buckets(MINUTES, START + 120 * 60, START + 125 * 60)
    assert [one.start for one in found] == [START + minute * 60 for minute in range(120, 125)]
    assert len(history.buckets(MINUTES, *EVER)) == MINUTES.kept
    assert all(one.start < other.start for one, other in pairwise(history.buckets(MINUTES, *EVER)))
    assert hits(history, HOURS) == {0: 60, 3600: 60, 7200: 10}


def test_nothing_is_recorded_while_nothing_happens(history: SharedHistory, counted: Counted) -> None:
    counted.add(hits=1)
    assert history.record(START + 10)
    assert [history.record(START + second) for second in range(20, 90_000, 10)] == [[]] * 8998
    counted.add(hits=1)
    assert history.record(START + 90_000)
    assert hits(history) == {0: 1, 89_940: 1}


@given(st.lists(st.tuples(st.integers(1, 200), st.lists(st.integers(0, 50), min_size=NUMBERS, max_size=NUMBERS))))
def test_each_resolution_has_all_that_happened_in_the_time_that_it_keeps(
    steps: list[tuple[int, list[int]]],
) -> None:
    counted, now = Counted(), START
    history = SharedHistory(counted)
    history.begin(now)
    samples = []
    for seconds, added in steps:
        counted.totals = Totals.sum([counted.totals, Totals.of(added)])
        now += seconds
        history.record(now)
        samples.append((now - min(seconds, 10) / 2, Totals.of(added)))
    for resolution in RESOLUTIONS:
        found = history.buckets(resolution, *EVER)
        assert len(found) <= resolution.kept
        newest = max((one.start for one in found), default=0)
        first = newest - resolution.seconds * (resolution.kept - 1)
        expected: dict[int, list[Totals]] = {}
        for at, totals in samples:
            if any(totals.numbers) and resolution.start_of(at) >= first:
                expected.setdefault(resolution.start_of(at), []).append(totals)
        recent = {one.start: one.totals for one in found if one.start >= first}
        assert recent == {start: Totals.sum(parts) for start, parts in expected.items()}


def test_numbers_before_the_beginning_and_of_a_long_pause_are_not_recorded(counted: Counted) -> None:
    """A page that was turned on by a reload would otherwise show the traffic of days in one minute."""
    counted.add(hits=100)
    history = SharedHistory(counted)
    history.begin(START)
    counted.add(hits=1)
    history.record(START + 10)
    counted.add(hits=100)
    history.begin(START + 100_000)
    counted.add(hits=2)
    history.record(START + 100_010)
    assert hits(history) == {0: 1, 99_960: 2}


def test_a_worker_that_replaces_a_dead_one_continues(history: SharedHistory, counted: Counted) -> None:
    counted.add(hits=1)
    history.record(START + 10)
    counted.add(hits=2)
    history.begin(START + 25)
    history.restore([Bucket(60, int(START), Totals(hits=1))])
    history.record(START + 30)
    assert hits(history) == {0: 3}


def test_a_restored_bucket_is_continued(history: SharedHistory, counted: Counted) -> None:
    earlier = int(START) - 600
    history.restore(
        [Bucket(60, int(START), Totals(hits=7)), Bucket(60, earlier, Totals(hits=5)), Bucket(7, 1, Totals())]
    )
    counted.add(hits=1)
    history.record(START + 10)
    assert hits(history) == {-600: 5, 0: 8}
    assert hits(history, FIVE_MINUTES) == {0: 1}


def test_old_restored_buckets_do_not_replace_newer_ones(history: SharedHistory, counted: Counted) -> None:
    counted.add(hits=1)
    history.record(START + 10)
    history.restore([Bucket(60, int(START) - 60 * MINUTES.kept, Totals(hits=9))])
    assert hits(history) == {0: 1}


def test_a_number_that_is_read_too_small_is_not_counted_twice(history: SharedHistory, counted: Counted) -> None:
    for seen in (10, 9, 10, 11):
        counted.totals = Totals(hits=seen)
        history.record(START + 10)
    assert hits(history) == {0: 11}


def test_a_clock_that_is_set_back_loses_nothing(history: SharedHistory, counted: Counted) -> None:
    for second in (1000, 400, 410, 1010):
        counted.add(hits=1)
        history.record(START + second)
    assert hits(history) == {360: 2, 960: 2}


def test_other_processes_read_what_one_records(history: SharedHistory, counted: Counted) -> None:
    def in_child(act: Callable[[], object]) -> int:
        child = os.fork()
        if child == 0:
            try:
                act()
            finally:
                os._exit(0 if hits(history) == {0: 4} else 1)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    def records() -> None:
        counted.add(hits=4)
        history.record(START + 10)

    assert in_child(records) == 0
    assert hits(history) == {0: 4}
    assert in_child(lambda: None) == 0
