"""Name patterns: `*` matches any text within a segment, `**` any number of segments, including zero.

Names come from clients, so matching uses no regular expressions and no backtracking: its time is at most proportional
to the length of the name times the length of the pattern.
"""

import operator
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from domain.names import Tag
from domain.upstreams import Source, Upstream, without_default_port

_ANY_SEGMENTS = "**"
_REGISTRY = re.compile(r"[a-z0-9.:*\[\]-]+")
_REPOSITORY = re.compile(r"[a-z0-9._*-]+")
_TAG = re.compile(r"[a-zA-Z0-9._*-]+")


@dataclass(frozen=True)
class RepositoryPattern:
    """A pattern of repositories in one registry (`docker.io/library/**`) or, if no registry is the first segment, in
    all registries (`library/**`). The registry may be any name of an upstream, or a pattern of such names.

    Raises ValueError if no name can match. `?` and `[a-z]` are not wildcards.
    """

    text: str
    registry: str | None = field(init=False, repr=False, compare=False)
    _segments: tuple[str, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        first, _, rest = self.text.partition("/")
        # As for clients, a registry has a dot or a port, or is `localhost`.
        has_registry = first == "localhost" or "." in first or ":" in first
        if has_registry and not rest:
            raise _wrong(self.text, f"it names a registry but no repository; {first}/** matches all its repositories")
        segments = tuple((rest if has_registry else self.text).split("/"))
        for segment in segments:
            if segment != _ANY_SEGMENTS:
                _check(self.text, segment, _REPOSITORY)
        if has_registry:
            _check(self.text, first.lower(), _REGISTRY)
        object.__setattr__(self, "registry", without_default_port(first.lower()) if has_registry else None)
        object.__setattr__(self, "_segments", segments)

    def is_for(self, upstream: Upstream) -> bool:
        """Whether the pattern can match at this upstream. A pattern without any upstream is a configuration error."""
        return self.registry is None or any(_glob(self.registry, name) for name in upstream.names)

    def matches(self, source: Source) -> bool:
        if not self.is_for(source.upstream):
            return False
        segments = str(source.repository).split("/")
        if source.upstream.library_prefix:
            # An official image may be written with or without `library/`, as by clients.
            if len(segments) == 1:
                segments = ["library", *segments]
            if len(self._segments) == 1 and segments[0] == "library":
                segments = segments[1:]
        return _matches(self._segments, segments, _ANY_SEGMENTS, _glob)


@dataclass(frozen=True)
class TagPattern:
    """A pattern of tags, such as `v*.*`. Raises ValueError if no tag can match."""

    text: str

    def __post_init__(self) -> None:
        if self.text == _ANY_SEGMENTS:
            raise _wrong(self.text, "a tag has no segments; * matches every tag")
        _check(self.text, self.text, _TAG)

    def matches(self, tag: Tag) -> bool:
        return _glob(self.text, str(tag))


def _check(pattern: str, segment: str, grammar: re.Pattern[str]) -> None:
    if _ANY_SEGMENTS in segment:
        raise _wrong(pattern, "** must be a whole segment, between slashes")
    if not grammar.fullmatch(segment):
        raise _wrong(pattern, "no name can match it; * and ** are the only wildcards")


def _wrong(pattern: str, reason: str) -> ValueError:
    return ValueError(f"{pattern[:128]!r} is not a valid pattern: {reason}")


def _glob(pattern: str, text: str) -> bool:
    return _matches(pattern, text, "*", operator.eq) if "*" in pattern else pattern == text


def _matches(pattern: Sequence[str], text: Sequence[str], wildcard: str, fits: Callable[[str, str], bool]) -> bool:
    """Whether the pattern matches the whole text, part by part; a wildcard stands for any number of parts.

    After a mismatch, the last wildcard takes one more part of the text. An earlier wildcard never needs to take more:
    the pattern between it and the last wildcard already matches at the leftmost possible place, and a later place would
    only leave less text for the rest. So the number of comparisons is at most the product of the two lengths.
    """
    in_pattern = in_text = taken = 0
    after_wildcard: int | None = None
    while in_text < len(text):
        if in_pattern < len(pattern) and pattern[in_pattern] == wildcard:
            in_pattern, taken = in_pattern + 1, in_text
            after_wildcard = in_pattern
        elif in_pattern < len(pattern) and fits(pattern[in_pattern], text[in_text]):
            in_pattern, in_text = in_pattern + 1, in_text + 1
        elif after_wildcard is not None:
            taken += 1
            in_pattern, in_text = after_wildcard, taken
        else:
            return False
    return all(part == wildcard for part in pattern[in_pattern:])
