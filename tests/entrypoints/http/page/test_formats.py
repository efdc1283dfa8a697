"""Numbers and times on the page."""

import pytest

from entrypoints.http.page.formats import duration, number, size, window


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (0.4, "0 B"),
        (999.4, "999 B"),
        (999.5, "1.0 kB"),
        (12_345, "12 kB"),
        (3.14e6, "3.1 MB"),
        (7e15, "7000 TB"),
    ],
)
def test_sizes(count: float, text: str) -> None:
    assert size(count) == text


@pytest.mark.parametrize(("value", "text"), [(0, "0"), (0.04, "0.0"), (2.25, "2.2"), (9.94, "9.9"), (1234.5, "1234")])
def test_numbers(value: float, text: str) -> None:
    assert number(value) == text


@pytest.mark.parametrize(("seconds", "text"), [(21600, "6 h"), (3600, "1 h"), (5400, "90 min"), (60, "1 min")])
def test_windows(seconds: int, text: str) -> None:
    assert window(seconds) == text


@pytest.mark.parametrize(("seconds", "text"), [(0.0004, "0.4 ms"), (0.012, "12 ms"), (3.5, "3.5 s"), (12.3, "12 s")])
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text
