"""Variants of a tag."""

from hypothesis import given
from hypothesis import strategies as st

from domain.manifests import MANIFEST_MEDIA_TYPES, variant_of

KNOWN = st.lists(st.sampled_from([*MANIFEST_MEDIA_TYPES, "*/*", "application/json"]), min_size=1, max_size=9)
UNKNOWN = st.lists(st.from_regex(r"application/vnd\.nobody\.[a-z]{1,5}", fullmatch=True), max_size=3)


@given(KNOWN, UNKNOWN, st.randoms())
def test_order_and_unknown_types_make_no_difference(known: list[str], unknown: list[str], chance: object) -> None:
    mixed = [*known, *unknown]
    chance.shuffle(mixed)
    assert variant_of([", ".join(mixed)]) == variant_of(mixed) == variant_of(known)


@given(KNOWN)
def test_weights_and_capitals_make_no_difference(known: list[str]) -> None:
    assert variant_of([",".join(f" {word.upper()} ; q=0.5" for word in known)]) == variant_of(known)


@given(KNOWN, KNOWN)
def test_other_known_types_are_another_variant(one: list[str], other: list[str]) -> None:
    assert (variant_of(one) == variant_of(other)) is (set(one) == set(other))


@given(UNKNOWN.filter(bool))
def test_only_unknown_types_give_no_variant(unknown: list[str]) -> None:
    assert variant_of(unknown) is None


def test_no_accept_types_are_a_variant() -> None:
    assert variant_of([]) == variant_of([""]) == variant_of([" , "]) == ""


@given(st.lists(st.text(max_size=40), max_size=5))
def test_the_number_of_variants_is_bounded(lines: list[str]) -> None:
    name = variant_of(lines)
    assert name is None or set(name.split(",")) - {""} <= {*MANIFEST_MEDIA_TYPES, "*/*", "application/json"}
