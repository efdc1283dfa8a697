"""Variants of a tag: requests that accept the same media types get the same manifest."""

from collections.abc import Iterable

from domain.content import MANIFEST_MEDIA_TYPES

_SCHEMA_1_TYPES = (
    "application/vnd.docker.distribution.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v1+prettyjws",
)
_KNOWN = frozenset((*MANIFEST_MEDIA_TYPES, *_SCHEMA_1_TYPES, "*/*", "application/json"))


def accepts(accept: Iterable[str], media_type: str) -> bool:
    """Whether the Accept lines allow this media type. Without Accept lines, every type is allowed."""
    words = _words(accept)
    return not words or "*/*" in words or media_type.partition(";")[0].strip().lower() in words


def variant_of(accept: Iterable[str]) -> str | None:
    """A name for all Accept lines with the same known media types; None if they contain only unknown types, whose
    answer cannot be predicted. Ignores unknown types beside known ones, parameters and order: clients do not use
    weights, and a variant for each unknown type would let a client fill the index.
    """
    words = _words(accept)
    known = words & _KNOWN
    if words and not known:
        return None
    return ",".join(sorted(known))


def _words(accept: Iterable[str]) -> set[str]:
    return {part.partition(";")[0].strip().lower() for line in accept for part in line.split(",")} - {""}
