import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.documents import parse_json, parse_object

_leaves = st.none() | st.booleans() | st.integers() | st.text()
anything = st.recursive(_leaves, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=5)


@given(anything)
def test_a_document_is_read_back(document: object) -> None:
    text = json.dumps(document)
    assert parse_json(text) == parse_json(text.encode()) == document
    assert parse_object(text) == (document if isinstance(document, dict) else None)


@pytest.mark.parametrize(
    "content", ["", "{", "{}{}", "<html>", b"\xff", b"", "[" * 100_000, '{"a":' * 100_000, "9" * 5000]
)
def test_what_is_no_document_is_refused(content: str | bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the words are not ours but where the nesting is at fault
        parse_json(content)
    assert parse_object(content) is None


@given(st.text() | st.binary())
def test_any_content_is_read_or_refused(content: str | bytes) -> None:
    document = parse_object(content)
    assert document is None or json.loads(content) == document
