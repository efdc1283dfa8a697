"""What the section History reads."""

from collections.abc import Iterable

import pytest

from adapters.telemetry.shared_history import SharedHistory
from application.page.history import ReadHistory
from domain.history import SPANS, Totals
from tests.fakes.clock import StoppedClock

MIDNIGHT = 1_800_057_600.0  # of a day in UTC


class Past:
    """A service that served one hit at each of these times."""

    def __init__(self, times: Iterable[float], now: float) -> None:
        hits = 0
        history = SharedHistory(lambda: Totals(hits=hits))
        history.begin(0)
        for hits, at in enumerate(times, 1):  # noqa: B007 - the history reads it
            history.record(at)
        self.read = ReadHistory(history, StoppedClock(now))


@pytest.mark.parametrize("name", SPANS)
def test_a_report_has_no_gaps_and_covers_the_span(name: str) -> None:
    span, now = SPANS[name], MIDNIGHT + 12_345
    report = Past([now - 20, now - span.seconds + 40], now).read.over(span)
    for parts, seconds in ((report.buckets, span.resolution.seconds), (report.rows, span.row)):
        starts = [one.start for one in parts]
        assert starts == list(range(starts[0], int(now) + 1, seconds))
        assert starts[-1] + seconds > now
        assert now - span.seconds - span.row < starts[0] <= now - span.seconds
        assert Totals.sum(one.totals for one in parts) == report.totals == Totals(hits=2)


@pytest.mark.parametrize("name", SPANS)
def test_what_is_older_is_not_part_of_the_report(name: str) -> None:
    span = SPANS[name]
    now = MIDNIGHT + span.row - 10  # rows begin at MIDNIGHT, so the report begins a span and a row ago
    read = Past([now - span.seconds - span.row - span.resolution.seconds, now - 20], now).read
    assert read.over(span).totals == Totals(hits=1)


def test_an_empty_history_has_all_its_buckets() -> None:
    report = Past([], MIDNIGHT).read.over(SPANS["hour"])
    assert len(report.buckets) == 61
    assert len(report.rows) == 13
    assert report.totals == Totals()


@pytest.mark.parametrize(("since", "now", "expected"), [(-1, 30, 0), (6, 30, 1), (86_000, 86_399, 1), (6, 86_500, 0)])
def test_today_begins_at_midnight(since: float, now: float, expected: int) -> None:
    assert Past([MIDNIGHT + since], MIDNIGHT + now).read.today() == Totals(hits=expected)
