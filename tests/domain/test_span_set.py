from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from domain.byte_ranges import Span
from domain.span_set import SpanSet

_LIMIT = 24
_ends = st.integers(0, _LIMIT)
some_spans = st.tuples(_ends, _ends).map(lambda ends: Span(min(ends), max(ends)))
some_sets = st.lists(some_spans, max_size=8)


def offsets(spans: list[Span] | SpanSet | tuple[Span, ...]) -> set[int]:
    return {offset for span in spans for offset in range(span.start, span.stop)}


@given(some_sets)
def test_a_set_contains_the_bytes_of_all_its_spans(spans: list[Span]) -> None:
    made = SpanSet.of(spans)
    assert offsets(made) == offsets(spans)
    assert made.length == len(offsets(spans))
    assert bool(made) == bool(offsets(spans))


@given(some_sets)
def test_the_spans_of_a_set_are_in_order_and_apart(spans: list[Span]) -> None:
    made = SpanSet.of(spans)
    assert all(span.length > 0 for span in made)
    assert all(one.stop < other.start for one, other in pairwise(made.spans))


@given(some_sets)
def test_two_sets_of_the_same_bytes_are_equal(spans: list[Span]) -> None:
    assert SpanSet.of(spans) == SpanSet.of(reversed(spans))


@given(some_sets, some_spans)
def test_a_span_is_added_and_the_old_set_does_not_change(spans: list[Span], added: Span) -> None:
    made = SpanSet.of(spans)
    assert offsets(made.plus(added)) == offsets([*spans, added])
    assert offsets(made) == offsets(spans)


@given(some_sets, some_spans)
def test_the_missing_bytes_of_a_span_are_those_that_are_not_in_the_set(spans: list[Span], within: Span) -> None:
    missing = SpanSet.of(spans).missing(within)
    assert offsets(missing) == offsets([within]) - offsets(spans)
    assert missing == SpanSet.of(missing).spans


@given(some_sets, some_spans)
def test_a_span_is_covered_if_all_its_bytes_are_present_and_overlaps_if_one_is(spans: list[Span], span: Span) -> None:
    made = SpanSet.of(spans)
    assert made.covers(span) == (offsets([span]) <= offsets(spans))
    assert made.overlaps(span) == bool(offsets([span]) & offsets(spans))


@given(some_sets, st.integers(0, _LIMIT))
def test_the_end_of_a_start_is_the_first_missing_byte(spans: list[Span], start: int) -> None:
    made = SpanSet.of(spans)
    assert made.end_of(start) == min(set(range(start, _LIMIT + 1)) - offsets(spans))
    assert made.beginning == made.end_of(0)


@given(_ends)
def test_a_beginning_is_one_span(stop: int) -> None:
    assert SpanSet.up_to(stop) == SpanSet.of([Span(0, stop)])
