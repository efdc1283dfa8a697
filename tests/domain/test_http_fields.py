"""HTTP header fields and URIs of upstreams."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.http_fields import (
    WARNINGS_LIMIT,
    bounded_warnings,
    is_legal,
    next_link,
    percent_encoded,
    read_warnings,
    warning,
)


@pytest.mark.parametrize(
    ("header", "target"),
    [
        ('</v2/_catalog?n=2&last=b>; rel="next"', "/v2/_catalog?n=2&last=b"),
        ("</v2/a/tags/list?last=1>; rel=next", "/v2/a/tags/list?last=1"),
        ('<https://h/v2/_catalog?last=b>;rel="next"', "https://h/v2/_catalog?last=b"),
        ('</x>; REL = "Next"', "/x"),
        ('</x>; title="page"; rel="next"; type="a/b"', "/x"),
        ('</first>; rel="first", </x>; rel="next", </last>; rel="last"', "/x"),
        ('</x?a=1,2;3>; rel="next"', "/x?a=1,2;3"),
        ('<>; rel="next"', ""),
        ('</last>; rel="last", </x>; rel="next"; title="a, \\"b\\"; rel=prev"', "/x"),
        ('</x>; rel="start next"', "/x"),
        ('</a>; title="</b>; rel=next", </x>; rel=next', "/x"),
        ('</broken; rel="next", </x>; rel="next"', "/x"),
        ('</x>;rel="next";rel="prev"', "/x"),
        (",, ,</x>; rel=next,,", "/x"),
    ],
)
def test_the_next_page_is_found(header: str, target: str) -> None:
    assert next_link(header) == target


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "</x>",
        '</x>; rel="prev"',
        '</x>; rel="nextish"',
        "</x>; rel=nextish",
        '</x>; xrel="next"',
        '/x; rel="next"',
        '</x; rel="next"',
        '; rel="next"',
        '</x>; rel="prev"; rel="next"',
        '</x>; title="; rel=next"',
        '</x>; rel="next',
    ],
)
def test_without_a_next_page_there_is_none(header: str | None) -> None:
    assert next_link(header) is None


def test_the_first_of_several_next_pages_counts() -> None:
    assert next_link('</a>; rel="next", </b>; rel="next"') == "/a"


@given(st.text() | st.text('<>;,="relnxt /'))
def test_malformed_text_is_skipped_without_raising(header: str) -> None:
    target = next_link(header)
    assert target is None or f"<{target}>" in header


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


@pytest.mark.parametrize(
    "address",
    [
        "https://storage.test/a%2Fb%3Ac%7Ed?X-Amz-Credential=AK%2F2026%2Fs3&sig=a%2Bb%3D%3D&t=10%3A20%7E",
        "/a~b:c?x=~/:@,;+%20!$&'()*[]#",
        "http://[::1]:5000/a//b?x=1&&y=",
        "/%zz%",
        "",
    ],
)
def test_a_legal_address_stays_as_it_is(address: str) -> None:
    assert percent_encoded(address) == address
    assert is_legal(address)


@pytest.mark.parametrize(
    ("address", "legal"),
    [
        ("/a b?c d", "/a%20b?c%20d"),
        ("/é?ü=%C3%A9", "/%C3%A9?%C3%BC=%C3%A9"),
        ("/\udcff", "/%FF"),
        ("/a\tb\x00c\x7f", "/a%09b%00c%7F"),
        ('/"<>\\^`{|}', "/%22%3C%3E%5C%5E%60%7B%7C%7D"),
        ("/a%20b c", "/a%20b%20c"),
    ],
)
def test_illegal_characters_are_percent_encoded(address: str, legal: str) -> None:
    assert percent_encoded(address) == legal


@pytest.mark.parametrize("byte", range(256))
def test_each_byte_becomes_legal_once(byte: int) -> None:
    once = percent_encoded((b"/x" + bytes([byte]) + b"y").decode("utf-8", "surrogateescape"))
    assert is_legal(once)
    assert percent_encoded(once) == once
