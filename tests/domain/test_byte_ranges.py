import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from domain.byte_ranges import CLOSE_BYTES, RANGES_LIMIT, ByteRange, Span, leading_range, parse_ranges, spans_of
from domain.errors import RangeMalformed, RangeUnsatisfiable

_ends = st.integers(0, 60)
ranges = st.one_of(
    st.tuples(_ends, _ends).map(lambda ends: ByteRange(min(ends), max(ends))),
    _ends.map(lambda first: ByteRange(first, None)),
    _ends.map(lambda last: ByteRange(None, last)),
)


def wanted_positions(asked: ByteRange, size: int) -> list[int]:
    """Which bytes the range means, one by one (RFC 9110 section 14.1.2)."""
    if asked.first is None:
        return [position for position in range(size) if position >= size - (asked.last or 0)]
    return [
        position
        for position in range(size)
        if position >= asked.first and (asked.last is None or position <= asked.last)
    ]


@given(ranges)
def test_a_printed_range_is_read_back(asked: ByteRange) -> None:
    assert parse_ranges(str(asked)) == (asked,)


@pytest.mark.parametrize("header", [None, "", "bytes", "bytes 0-1", "items=0-1"])
def test_a_header_without_byte_ranges_asks_for_no_range(header: str | None) -> None:
    assert parse_ranges(header) == ()


@pytest.mark.parametrize(
    ("header", "asked"),
    [
        ("bytes=0-", ByteRange(0, None)),
        ("BYTES=5-9", ByteRange(5, 9)),
        ("bytes= 5-9 ", ByteRange(5, 9)),
        ("bytes=-0", ByteRange(None, 0)),
        ("bytes=0-9999999999999999999", ByteRange(0, 9999999999999999999)),
    ],
)
def test_a_single_byte_range_is_read(header: str, asked: ByteRange) -> None:
    assert parse_ranges(header) == (asked,)


@pytest.mark.parametrize(
    "header",
    [
        "bytes=",
        "bytes=,",
        "bytes=0-1,x",
        "bytes=-",
        "bytes=a-b",
        "bytes=1",
        "bytes=1-2-3",
        "bytes=--1",
        "bytes=+1-2",
        "bytes=1 -2",
    ],
)
def test_a_malformed_range_is_refused(header: str) -> None:
    with pytest.raises(RangeMalformed):
        parse_ranges(header)


def test_only_ascii_digits_make_a_range() -> None:
    with pytest.raises(RangeMalformed):
        parse_ranges("bytes=\N{ARABIC-INDIC DIGIT THREE}-\N{ARABIC-INDIC DIGIT FIVE}")


def test_a_number_of_twenty_digits_is_refused() -> None:
    with pytest.raises(RangeMalformed):
        parse_ranges("bytes=0-" + "9" * 20)


@given(_ends, st.integers(1, 60))
def test_a_range_that_ends_early_is_unsatisfiable(last: int, excess: int) -> None:
    with pytest.raises(RangeUnsatisfiable):
        parse_ranges(f"bytes={last + excess}-{last}")


@given(st.text())
def test_any_header_is_read_or_refused(header: str) -> None:
    for text in (header, f"bytes={header}"):
        try:
            asked = parse_ranges(text)
        except (RangeMalformed, RangeUnsatisfiable):
            continue
        assert all(parse_ranges(str(one)) == (one,) for one in asked)


@pytest.mark.parametrize("header", ["bytes=0-1,4-5", "bytes=0-1, 4-5", "bytes= ,0-1 ,, 4-5,", "bytes=0-1,9-8,4-5"])
def test_several_ranges_are_read_in_their_order(header: str) -> None:
    assert parse_ranges(header) == (ByteRange(0, 1), ByteRange(4, 5))


def test_the_number_of_ranges_is_bounded() -> None:
    assert len(parse_ranges("bytes=" + ",".join(["0-0"] * RANGES_LIMIT))) == RANGES_LIMIT
    with pytest.raises(RangeMalformed):
        parse_ranges("bytes=" + ",".join(["0-0"] * (RANGES_LIMIT + 1)))


@pytest.mark.parametrize(
    ("header", "leading"),
    [
        ("bytes=5-9", "bytes=5-9"),
        ("bytes=0-9,10-19,30-39,9000000-9000001", "bytes=0-39"),
        ("bytes=0-9,5-19", "bytes=0-9"),
        ("bytes=30-39,0-9", "bytes=30-39"),
        ("bytes=0-9,20-", "bytes=0-"),
        ("bytes=0-9,20-,30-39", "bytes=0-"),
        ("bytes=-5,0-9", "bytes=-5"),
        (f"bytes=0-0,{CLOSE_BYTES + 1}-{CLOSE_BYTES + 2}", f"bytes=0-{CLOSE_BYTES + 2}"),
        (f"bytes=0-0,{CLOSE_BYTES + 2}-{CLOSE_BYTES + 2}", "bytes=0-0"),
    ],
)
def test_the_leading_range_holds_what_follows_closely(header: str, leading: str) -> None:
    assert str(leading_range(parse_ranges(header))) == leading


@given(st.lists(ranges, min_size=1, max_size=5), st.integers(0, 80))
def test_several_ranges_mean_the_bytes_that_they_name(asked: list[ByteRange], size: int) -> None:
    wanted = [positions for one in asked if (positions := wanted_positions(one, size))]
    if not wanted:
        with pytest.raises(RangeUnsatisfiable):
            spans_of(asked, size)
        return
    assert [list(range(span.start, span.stop)) for span in spans_of(asked, size)] == wanted


@given(ranges, st.integers(0, 80))
def test_a_range_means_the_bytes_it_names(asked: ByteRange, size: int) -> None:
    wanted = wanted_positions(asked, size)
    if wanted:
        span = asked.of(size)
        assert list(range(span.start, span.stop)) == wanted
        assert span.length == len(wanted)
    else:
        with pytest.raises(RangeUnsatisfiable) as caught:
            asked.of(size)
        assert caught.value.size == size


@given(ranges, st.integers(1, 80), st.integers(0, 80), st.integers(1, 80))
def test_only_the_asked_bytes_answer_a_range(asked: ByteRange, size: int, start: int, length: int) -> None:
    wanted = wanted_positions(asked, size)
    assume(wanted)
    span = Span(start, start + length)
    assert asked.is_answered_by(span, size) == (list(range(start, start + length)) == wanted)
    assert asked.is_answered_by(Span(wanted[0], wanted[-1] + 1), size)


@pytest.mark.parametrize(
    ("asked", "span", "answered"),
    [
        (ByteRange(5, 9), Span(5, 10), True),
        (ByteRange(5, 9), Span(5, 8), True),
        (ByteRange(5, 9), Span(5, 11), False),
        (ByteRange(5, 9), Span(4, 10), False),
        (ByteRange(5, None), Span(5, 99), True),
        (ByteRange(None, 5), Span(0, 5), False),
    ],
)
def test_an_answer_of_unknown_size_is_judged(asked: ByteRange, span: Span, answered: bool) -> None:  # noqa: FBT001 - a column
    assert asked.is_answered_by(span, None) is answered
