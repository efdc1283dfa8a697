from itertools import groupby

import pytest
from hypothesis import given

from domain.digest import Digest
from domain.errors import DigestInvalid, NameInvalid, TagInvalid
from domain.names import Reference, RepositoryName, Tag
from tests.domain.strategies import ALPHANUMERIC, digests, names, spoilt, tags


def is_name(text: str) -> bool:
    """The grammar of the specification, independent of the pattern under test."""
    return all(_is_component(component) for component in text.split("/"))


def _is_component(text: str) -> bool:
    runs = [(is_word, "".join(run)) for is_word, run in groupby(text, lambda one: one in ALPHANUMERIC)]
    if not runs or not runs[0][0] or not runs[-1][0]:
        return False
    return all(is_word or run in {".", "_", "__"} or set(run) == {"-"} for is_word, run in runs)


def is_tag(text: str) -> bool:
    word = ALPHANUMERIC + ALPHANUMERIC.upper() + "_"
    return 0 < len(text) <= 128 and text[0] in word and all(one in word + ".-" for one in text)


@given(names)
def test_every_name_of_the_grammar_is_accepted(text: str) -> None:
    assert str(RepositoryName(text)) == text


@given(spoilt(names, ALPHANUMERIC[:2] + "._-/A:@ \n\0é"))
def test_a_name_outside_the_grammar_is_refused(text: str) -> None:
    if is_name(text):
        assert RepositoryName(text).text == text
    else:
        with pytest.raises(NameInvalid):
            RepositoryName(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/",
        "a/",
        "/a",
        "a//b",
        "..",
        "a/../b",
        "a..b",
        "a___b",
        "a_-b",
        "A",
        "a\n",
        "a/b\n",
        "\N{FULLWIDTH LATIN SMALL LETTER A}",
        "a%2Fb",
    ],
)
def test_a_malformed_name_is_refused(text: str) -> None:
    with pytest.raises(NameInvalid):
        RepositoryName(text)


def test_a_name_has_255_characters_at_most() -> None:
    assert RepositoryName("a" * 255)
    with pytest.raises(NameInvalid) as caught:
        RepositoryName("a" * 256)
    assert caught.value.detail == {"name": "a" * 255}


@given(tags)
def test_every_tag_of_the_grammar_is_accepted(text: str) -> None:
    assert str(Tag(text)) == text


@given(spoilt(tags, "aZ_.-/:@ \n\0é"))
def test_a_tag_outside_the_grammar_is_refused(text: str) -> None:
    if is_tag(text):
        assert Tag(text).text == text
    else:
        with pytest.raises(TagInvalid):
            Tag(text)


@pytest.mark.parametrize("text", ["", ".a", "-a", "a/b", "a b", "latest\n", "é", "a" * 129])
def test_a_malformed_tag_is_refused(text: str) -> None:
    with pytest.raises(TagInvalid):
        Tag(text)


@given(tags)
def test_a_reference_without_colon_is_a_tag(text: str) -> None:
    reference = Reference.parse(text)
    assert (reference.target, reference.digest, str(reference)) == (Tag(text), None, text)


@given(digests)
def test_a_reference_with_colon_is_a_digest(text: str) -> None:
    reference = Reference.parse(text)
    assert (reference.digest, str(reference)) == (Digest.parse(text), text)


@pytest.mark.parametrize(
    ("text", "refusal"),
    [("latest:1", DigestInvalid), ("sha256:beef", DigestInvalid), (":", DigestInvalid), ("", TagInvalid)],
)
def test_a_reference_of_neither_kind_is_refused(text: str, refusal: type[Exception]) -> None:
    with pytest.raises(refusal):
        Reference.parse(text)
