import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.documents import (
    all_members_of,
    is_nested_deeper,
    members_of,
    parse_json,
    parse_object,
    print_json,
    print_members,
    scalar_of,
    strings_of,
)

_leaves = st.none() | st.booleans() | st.integers() | st.text()
anything = st.recursive(_leaves, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=5)


@given(anything)
def test_a_document_is_read_back(document: object) -> None:
    text = json.dumps(document)
    assert parse_json(text) == parse_json(text.encode()) == document
    assert parse_object(text) == (document if isinstance(document, dict) else None)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "{}{}",
        "<html>",
        b"\xff",
        b"",
        "[" * 100_000,
        '{"a":' * 100_000,
        "9" * 5000,
        "NaN",
        "[-Infinity]",
        "1e999",
    ],
)
def test_content_that_is_not_json_is_refused(content: str | bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the words are not ours but where the nesting is at fault
        parse_json(content)
    assert parse_object(content) is None


@given(st.text() | st.binary())
def test_any_content_is_read_or_refused(content: str | bytes) -> None:
    document = parse_object(content)
    assert document is None or json.loads(content) == document


@given(st.dictionaries(st.text(), anything))
def test_members_are_found_and_printed_as_they_are(document: dict[str, object]) -> None:
    text = print_json(document)
    members = all_members_of(text)
    assert {name: json.loads(value) for name, value in members.items()} == document
    assert json.loads(print_members(members)) == document
    assert members_of(text, "a", "b") == {name: members[name] for name in ("a", "b") if name in members}


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"null", b'{"a":NaN}', b'{"a":1}x', b'{"a":"\xff"}'])
def test_other_json_than_an_object_has_no_members(content: bytes) -> None:
    assert members_of(content, "a") is None


def test_a_member_may_be_a_scalar() -> None:
    found = members_of('\ufeff{"a": 1, "b":"x", "c":[1], "d":null}', "a", "b", "c", "d", "e") or {}
    assert [scalar_of(found.get(name)) for name in "abcde"] == [1, "x", None, None, None]
    assert found["c"] == b"[1]"


def test_only_lists_of_strings_are_lists_of_strings() -> None:
    assert strings_of(b'["a", "b"]') == ["a", "b"]
    for content in (b'["a",1]', b"{}", b'"a"', b"["):
        with pytest.raises(ValueError):  # noqa: PT011 - the words are not ours
            strings_of(content)


def test_numbers_that_json_does_not_have_are_printed_as_null() -> None:
    assert print_json({"a": [float("nan"), float("inf"), 1.5]}) == b'{"a":[null,null,1.5]}'


def test_nesting_is_counted() -> None:
    assert [is_nested_deeper(document, 1) for document in (1, [1], {"a": 1}, [[]], {"a": {}}, [[1]])] == [
        False,
        False,
        False,
        False,
        False,
        True,
    ]


def test_bytes_that_are_not_utf_8_are_printed_as_escapes() -> None:
    text = b"bytes=\xff".decode(errors="surrogateescape")
    assert print_json({"range": text}) == b'{"range": "bytes=\\udcff"}'
