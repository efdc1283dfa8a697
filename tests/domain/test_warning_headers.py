"""Warning headers: what is read of an upstream's, and what is sent."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.warning_headers import WARNINGS_LIMIT, bounded_warnings, read_warnings, warning


@pytest.mark.parametrize(
    ("lines", "warnings"),
    [
        (['299 - "one"', '299 - "two"'], ['299 - "one"', '299 - "two"']),
        (['299 - "one", 299 - "two, and more"'], ['299 - "one"', '299 - "two, and more"']),
        (['299 registry.test:5000 "one" "Wed, 21 Oct 2015 07:28:00 GMT"'], ['299 - "one"']),
        (['110 - "Response is Stale", 299 - "one"', '199 - "other"'], ['299 - "one"']),
        (['299 - "a \\"quoted\\" word"'], ["299 - \"a 'quoted' word\""]),
        (['299 - "caf\u00e9\x07"'], ['299 - "caf??"']),
        (["299 - one", "299", "", '299 - "open', 'xx - "one"', '2999 - "one"'], []),
    ],
)
def test_only_warnings_of_code_299_are_read(lines: list[str], warnings: list[str]) -> None:
    assert list(read_warnings(lines)) == warnings


@given(st.text(max_size=50))
def test_a_written_warning_is_read_back_as_it_is(text: str) -> None:
    assert read_warnings([warning(text)]) == (warning(text),)


@given(st.lists(st.text(max_size=50)))
def test_any_lines_are_read(lines: list[str]) -> None:
    for value in read_warnings(lines):
        assert value.startswith('299 - "')
        assert value.isascii()
        assert value.isprintable()


def test_warnings_are_bounded_together_and_sent_once() -> None:
    many = [warning(f"{number:04}" + "x" * 200) for number in range(40)]
    kept = bounded_warnings([many[0], *many])
    assert kept == tuple(many[: len(kept)])
    assert WARNINGS_LIMIT - len(many[0]) < sum(map(len, kept)) <= WARNINGS_LIMIT
