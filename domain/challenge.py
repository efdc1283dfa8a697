"""Authentication challenges of WWW-Authenticate fields. Parsing is lenient, printing is strict."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import islice
from typing import Self

_LINE_LIMIT = 64 * 1024
_LINES_LIMIT = 16
# Each pattern matches in only one way, so a hostile line is parsed in linear time.
_WORD = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_SEPARATORS = re.compile(r"[\s,]*")
_SCHEME = re.compile(rf"{_WORD}(?=[\s,]|$)")
_NAME = re.compile(rf"({_WORD})\s*=\s*")
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"')
_BARE = re.compile(r'[^\s,"]+')
_NEXT_BEGINS = re.compile(rf"[\s,]|$|{_WORD}\s*=|{_WORD}\s+{_WORD}\s*=")


@dataclass(frozen=True)
class Challenge:
    """A scheme and its parameters (RFC 9110 section 11.6.1); parameter names are kept in lower case."""

    scheme: str
    parameters: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(cls, scheme: str, **parameters: str | None) -> Self:
        """Build a challenge. Omits parameters that are None or empty, because some clients fail on empty values."""
        return cls(scheme, tuple((name, value) for name, value in parameters.items() if value))

    @property
    def is_bearer(self) -> bool:
        return self.scheme.lower() == "bearer"

    @property
    def is_basic(self) -> bool:
        return self.scheme.lower() == "basic"

    def get(self, name: str) -> str | None:
        """The parameter's value, None where it is absent."""
        return dict(self.parameters).get(name)

    def with_parameters(self, **changes: str | None) -> Self:
        """A copy with these parameters set. None or an empty value removes a parameter."""
        merged = {**dict(self.parameters), **changes}
        return replace(self, parameters=tuple((name, value) for name, value in merged.items() if value))

    def __str__(self) -> str:
        """The header value. All parameters are quoted, because many clients require quotes."""
        printed = ",".join(f'{name}="{_escape(value)}"' for name, value in self.parameters)
        return f"{self.scheme} {printed}" if printed else self.scheme


def parse_challenges(lines: Iterable[str]) -> tuple[Challenge, ...]:
    """The challenges of the WWW-Authenticate lines, in order. Skips what it cannot parse, lines longer than 64 KiB, and
    all lines after the sixteenth, to bound the time.
    """
    read = [line for line in islice(lines, _LINES_LIMIT) if len(line) <= _LINE_LIMIT]
    return tuple(challenge for line in read for challenge in _parse_line(line))


def _parse_line(line: str) -> list[Challenge]:
    found: list[tuple[str, dict[str, str]]] = []
    position = _skip(line, 0)
    while position < len(line):
        name = _NAME.match(line, position) if found else None
        end = _value_end(line, name.end()) if name else None
        if name and end:
            found[-1][1].setdefault(name[1].lower(), _unquote(line[name.end() : end]))
        elif scheme := _SCHEME.match(line, position):
            found.append((scheme[0], {}))
            end = scheme.end()
        else:
            break
        position = _skip(line, end)
    return [Challenge(scheme, tuple(parameters.items())) for scheme, parameters in found]


def _skip(line: str, position: int) -> int:
    separators = _SEPARATORS.match(line, position)
    return separators.end() if separators else position


def _value_end(line: str, start: int) -> int | None:
    """The end of the parameter value that starts here, or None if there is no value.

    Some registries send an unquoted scope with colons, slashes and commas. So it continues after a comma,
    unless a space, the end, another parameter, or a scheme with its first parameter follows.
    """
    if quoted := _QUOTED.match(line, start):
        return quoted.end()
    bare = _BARE.match(line, start)
    while bare and line[bare.end() : bare.end() + 1] == "," and not _NEXT_BEGINS.match(line, bare.end() + 1):
        following = _BARE.match(line, bare.end() + 1)
        if following is None:
            break
        bare = following
    return bare.end() if bare else None


def _unquote(value: str) -> str:
    return re.sub(r"\\(.)", r"\1", value[1:-1]) if value.startswith('"') else value


def _escape(value: str) -> str:
    return re.sub(r'(["\\])', r"\\\1", value)
