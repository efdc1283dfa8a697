"""Queries and the headers that choose, without a server around them."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlencode

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from sanic import Request
from sanic.compat import Header

from domain.errors import PaginationInvalid, RequestInvalid
from entrypoints.http.requests.request_parameters import accept_lines, known_digests, link_to, paging


def _asked(query: str = "") -> Request[Any, Any]:
    return _request(f"/v2/_catalog?{query}".encode(), [])


def _with(*lines: tuple[str, str]) -> Request[Any, Any]:
    return _request(b"/v2/a/manifests/v1", list(lines))


def _request(url: bytes, lines: list[tuple[str, str]]) -> Request[Any, Any]:
    nowhere: Any = None
    return Request(url, Header(lines), "1.1", "GET", nowhere, nowhere)


def test_paging_keeps_what_registries_page_with() -> None:
    query = "n=50&last=a%2Fb&next_page=gAAA%3D%3D&empty=&last=again"
    expected = ("n", "50"), ("last", "a/b"), ("next_page", "gAAA=="), ("empty", ""), ("last", "again")
    assert paging(_asked(query)) == expected


def test_paging_keeps_the_mirrors_ns() -> None:
    assert paging(_asked("ns=docker.io&n=1&ns=evil%0d%0a")) == (("n", "1"),)


@given(st.text(max_size=12))
@example("1\n")
@example("\u0661")
@example("\u00b2")
@example("0" * 9)
def test_page_size_is_ascii_digits_only(text: str) -> None:
    try:
        ((_, size),) = paging(_asked(f"n={quote(text, safe='')}"))
    except (PaginationInvalid, RequestInvalid):
        assert not (text.isascii() and text.isdigit() and len(text) <= 9)
        return
    assert size == str(min(int(text), 1000))
    assert text.isascii()


@given(st.lists(st.tuples(st.text(max_size=8), st.text(max_size=8)), max_size=3))
@example([("last", "a\r\nX: y")])
@example([("a\r\nb", "1")])
@example([("last", "\x7f")])
def test_whatever_passes_is_printable_ascii(pairs: list[tuple[str, str]]) -> None:
    try:
        passed = paging(_asked(urlencode(pairs)))
    except (PaginationInvalid, RequestInvalid):
        return
    for name, value in passed:
        assert name.isascii()
        assert name.isprintable()
        assert value.isascii()
        assert value.isprintable()


@pytest.mark.parametrize("query", ["last=" + "x" * 1025, "x" * 65 + "=1", "=1", "a[]=1", "a+b=1"])
def test_strange_parameters_are_refused_whole(query: str) -> None:
    with pytest.raises(RequestInvalid):
        paging(_asked(query))


def test_link_is_a_path_without_host() -> None:
    assert link_to("/v2/a/tags/list", "last=b&n=2", None) == '</v2/a/tags/list?last=b&n=2>; rel="next"'


@pytest.mark.parametrize(
    ("lines", "kept"),
    [
        ([], ()),
        (["*/*"], ()),
        (["", " */* "], ()),
        (["a/b", "*/*"], ("a/b", "*/*")),
        (["a/b, c/d;q=0.1"], ("a/b, c/d;q=0.1",)),
        (["a/b", "a/b"], ("a/b", "a/b")),
    ],
)
def test_all_accept_lines_count_together(lines: list[str], kept: tuple[str, ...]) -> None:
    assert accept_lines(_with(*(("Accept", line) for line in lines))) == kept


KNOWN: Mapping[str, set[str]] = {
    '"a"': {"a"},
    "a": {"a"},
    'W/"a"': {"a"},
    '"a", W/"b" ,c': {"a", "b", "c"},
    "*": {"*"},
    "": set(),
    " , ,": set(),
}


@pytest.mark.parametrize("line", KNOWN)
def test_entity_tags_are_read_in_any_form(line: str) -> None:
    assert known_digests(_with(("If-None-Match", line))) == KNOWN[line]


def test_entity_tags_of_several_lines_count() -> None:
    assert known_digests(_with(("If-None-Match", '"a"'), ("if-none-match", '"b"'))) == {"a", "b"}
