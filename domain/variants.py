"""Which answers to a tag are the same: those that were asked for with the same media types."""

from collections.abc import Iterable

from domain.content import MANIFEST_MEDIA_TYPES

_SCHEMA_1_TYPES = (
    "application/vnd.docker.distribution.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v1+prettyjws",
)
_KNOWN = frozenset((*MANIFEST_MEDIA_TYPES, *_SCHEMA_1_TYPES, "*/*", "application/json"))


def accepts(accept: Iterable[str], media_type: str) -> bool:
    """Whether an answer of this type is one that was asked for; without any Accept line, each is."""
    words = _words(accept)
    return not words or "*/*" in words or media_type.partition(";")[0].strip().lower() in words


def variant_of(accept: Iterable[str]) -> str | None:
    """A name for all Accept lines that mean the same; None where nothing in them is known to us, and so nothing can
    be said about what answers them. Unknown types beside known ones, parameters and order make no difference: no
    client lists its types by weight, and a name for each invention would let anybody fill the index.
    """
    words = _words(accept)
    known = words & _KNOWN
    if words and not known:
        return None
    return ",".join(sorted(known))


def _words(accept: Iterable[str]) -> set[str]:
    return {part.partition(";")[0].strip().lower() for line in accept for part in line.split(",")} - {""}
