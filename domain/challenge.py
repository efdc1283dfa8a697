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
_SCHEME = re.compile(rf"[\s,]*({_WORD})(?=[\s,]|$)")
# Some registries send an unquoted scope with colons, slashes and commas. So an unquoted value continues after a comma,
# unless a space, the end, another parameter, or a scheme with its first parameter follows.
_PARAMETER = re.compile(
    rf"[\s,]*({_WORD})\s*=\s*"
    r'(?:"((?:[^"\\]|\\.)*)"'
    rf'|([^\s,"]+(?:,(?!\s|,|$|{_WORD}\s*=|{_WORD}\s+{_WORD}\s*=)[^\s,"]+)*))'
)


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
        """The value of the parameter, or None."""
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
    position = 0
    while True:
        if found and (parameter := _PARAMETER.match(line, position)):
            name, quoted, unquoted = parameter.groups()
            found[-1][1].setdefault(name.lower(), unquoted or re.sub(r"\\(.)", r"\1", quoted))
            position = parameter.end()
        elif scheme := _SCHEME.match(line, position):
            found.append((scheme[1], {}))
            position = scheme.end()
        else:
            return [Challenge(name, tuple(parameters.items())) for name, parameters in found]


def _escape(value: str) -> str:
    return re.sub(r'(["\\])', r"\\\1", value)
