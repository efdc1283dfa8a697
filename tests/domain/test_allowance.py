"""The rate limits that registries state in their responses."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.allowance import Allowance, RateLimit, read_rate_limit, seconds_to_wait

NOW = 1_800_000_000.0


@pytest.mark.parametrize(
    ("limit", "remaining", "expected"),
    [
        ("100;w=21600", "76;w=21600", RateLimit(100, 76, 21600)),
        ("100;w=21600", "0;w=21600", RateLimit(100, 0, 21600)),
        (" 100 ; w=21600 ", "76", RateLimit(100, 76, 21600)),
        ("100", "76;w=60", RateLimit(100, 76, 60)),
        ('100;comment="a";w=21600, 5000;w=86400', "76;w=21600, 4000;w=86400", RateLimit(100, 76, 21600)),
    ],
)
def test_the_rate_limit_headers_of_docker_hub_are_parsed(limit: str, remaining: str, expected: RateLimit) -> None:
    assert read_rate_limit(limit, remaining) == expected


@pytest.mark.parametrize(
    ("limit", "remaining"),
    [
        (None, None),
        (None, "76;w=21600"),
        ("100;w=21600", None),
        ("600", "595"),  # GitLab's: a window of its own, and no word of it
        ("unlimited", "76;w=21600"),
        ("100;w=21600", "-1;w=21600"),
        ("100;w=0", "76;w=0"),
        ("100;w=6h", "76;w=6h"),
        ("1e2;w=21600", "7.6;w=21600"),
        ("\u0661\u0660\u0660;w=21600", "76;w=\u0661"),
        ("9" * 16 + ";w=21600", "76;w=21600"),
        ("", ""),
        (";w=21600", ";w=21600"),
    ],
)
def test_malformed_rate_limit_headers_are_ignored(limit: str | None, remaining: str | None) -> None:
    assert read_rate_limit(limit, remaining) is None


@given(st.text(), st.text())
def test_any_rate_limit_headers_are_parsed_without_raising(limit: str, remaining: str) -> None:
    rate_limit = read_rate_limit(limit, remaining)
    assert rate_limit is None or min(rate_limit.limit, rate_limit.remaining, rate_limit.window - 1) >= 0
    waited = seconds_to_wait(limit, NOW)
    assert waited is None or waited >= 0


def test_an_allowance_has_the_time_of_its_response() -> None:
    assert RateLimit(100, 76, 21600).seen(NOW) == Allowance(100, 76, 21600, NOW)


@pytest.mark.parametrize(("remaining", "is_low"), [(100, False), (10, False), (9, True), (0, True)])
def test_less_than_a_tenth_is_low(remaining: int, *, is_low: bool) -> None:
    assert Allowance(100, remaining, 21600, NOW).is_low == is_low


@pytest.mark.parametrize(("remaining", "until"), [(1, NOW), (0, NOW + 21600)])
def test_a_used_up_allowance_is_renewed_after_its_window(remaining: int, until: float) -> None:
    assert Allowance(100, remaining, 21600, NOW).spent_until == until


@pytest.mark.parametrize(
    ("field", "seconds"),
    [
        ("30", 30),
        (" 30 ", 30),
        ("0", 0),
        ("Fri, 15 Jan 2027 08:01:00 GMT", 60),
        ("Friday, 15-Jan-27 08:01:00 GMT", 60),
        ("Fri Jan 15 08:01:00 2027", 60),
        ("Fri, 15 Jan 2027 09:01:00 +0100", 60),
        ("Fri, 15 Jan 2027 07:00:00 GMT", 0),  # over already
        (None, None),
        ("", None),
        ("soon", None),
        ("-5", None),
        ("1.5", None),
        ("Fri, 99 Jan 2027 08:01:00 GMT", None),
    ],
)
def test_retry_after_is_parsed(field: str | None, seconds: float | None) -> None:
    assert seconds_to_wait(field, NOW) == seconds
