"""Name patterns: `*` matches any text within a segment, `**` any number of segments, including zero.

Names come from clients, so matching uses no regular expressions and no backtracking: its time is at most proportional
to the length of the name times the length of the pattern.
"""

import re
from collections.abc import Callable, Sequence, Sized
from dataclasses import dataclass, field
from typing import TypeVar

from domain.names import Tag
from domain.upstreams import Source, Upstream, without_default_port

Run = TypeVar("Run", bound=Sized)

_ANY_SEGMENTS = "**"
_REGISTRY = re.compile(r"[a-z0-9.:*\[\]-]+")
_REPOSITORY = re.compile(r"[a-z0-9._*-]+")
_TAG = re.compile(r"[a-zA-Z0-9._*-]+")
_SHOWN = 128


@dataclass(frozen=True)
class RepositoryPattern:
    """A pattern of repositories in one registry (`docker.io/library/**`) or, if no registry is the first segment, in
    all registries (`library/**`). The registry may be any name of an upstream, or a pattern of such names.

    Raises ValueError if no name can match. `?` and `[a-z]` are not wildcards.
    """

    text: str
    _registry: str | None = field(init=False, repr=False, compare=False)
    _runs: tuple[tuple[str, ...], ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        first, _, rest = self.text.partition("/")
        has_registry = _is_registry(first)
        if has_registry and not rest:
            raise _wrong(self.text, f"it names a registry but no repository; {first}/** matches all its repositories")
        segments = (rest if has_registry else self.text).split("/")
        for segment in segments:
            _check(self.text, segment, _REPOSITORY)
        if has_registry:
            _check(self.text, first.lower(), _REGISTRY)
        object.__setattr__(self, "_registry", without_default_port(first.lower()) if has_registry else None)
        object.__setattr__(self, "_runs", _runs_of(segments))

    @property
    def has_registry(self) -> bool:
        """Whether the first segment of the pattern is a registry."""
        return self._registry is not None

    def is_for(self, upstream: Upstream) -> bool:
        """Whether the pattern can match at this upstream. A pattern without any upstream is a configuration error."""
        return self._registry is None or any(_glob(self._registry, name) for name in upstream.names)

    def matches(self, source: Source) -> bool:
        if not self.is_for(source.upstream):
            return False
        segments = str(source.repository).split("/")
        if source.upstream.library_prefix:
            # An official image may be written with or without `library/`, as by clients.
            if len(segments) == 1:
                segments = ["library", *segments]
            if [len(run) for run in self._runs] == [1] and segments[0] == "library":
                segments = segments[1:]
        return _lie_in_order(
            self._runs,
            len(segments),
            lambda run, at: all(_glob(part, segments[at + offset]) for offset, part in enumerate(run)),
        )


@dataclass(frozen=True)
class TagPattern:
    """A pattern of tags, such as `v*.*`. Raises ValueError if no tag can match."""

    text: str

    def __post_init__(self) -> None:
        _check(self.text, self.text, _TAG)
        if self.text == _ANY_SEGMENTS:
            raise _wrong(self.text, "a tag has no segments; * matches every tag")

    def matches(self, tag: Tag) -> bool:
        return _glob(self.text, str(tag))


def _is_registry(segment: str) -> bool:
    """Whether the segment is a registry, by the rule of clients: it has a dot or a port, or is `localhost`."""
    return segment == "localhost" or "." in segment or ":" in segment


def _check(pattern: str, segment: str, grammar: re.Pattern[str]) -> None:
    if segment == _ANY_SEGMENTS and grammar is _REPOSITORY:
        return
    if _ANY_SEGMENTS in segment and segment != _ANY_SEGMENTS:
        raise _wrong(pattern, "** must be a whole segment, between slashes")
    if not grammar.fullmatch(segment):
        raise _wrong(pattern, "no name can match it; * and ** are the only wildcards")


def _wrong(pattern: str, reason: str) -> ValueError:
    return ValueError(f"{pattern[:_SHOWN]!r} is not a valid pattern: {reason}")


def _runs_of(segments: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    """The segments between one `**` and the next."""
    runs: list[tuple[str, ...]] = [()]
    for segment in segments:
        if segment == _ANY_SEGMENTS:
            runs.append(())
        else:
            runs[-1] += (segment,)
    return tuple(runs)


def _glob(pattern: str, text: str) -> bool:
    return _lie_in_order(pattern.split("*"), len(text), text.startswith)


def _lie_in_order(runs: Sequence[Run], length: int, fits: Callable[[Run, int], bool]) -> bool:
    """Whether the runs fit one after another into `length` places: the first at the start, the last at the end, and
    every other one at the first place where it fits. The first place leaves the most space for the following runs, so
    no backtracking is necessary.
    """
    first, *others = runs
    if not others:
        return len(first) == length and fits(first, 0)
    *between, last = others
    at, stop = len(first), length - len(last)
    if at > stop or not fits(first, 0) or not fits(last, stop):
        return False
    for run in between:
        found = next((place for place in range(at, stop - len(run) + 1) if fits(run, place)), None)
        if found is None:
            return False
        at = found + len(run)
    return True
