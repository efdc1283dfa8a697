"""One authentication challenge of a WWW-Authenticate field, parsed leniently and printed strictly."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Self

_WORD = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_QUOTED = r'"(?:[^"\\]|\\.)*"'
# Some registries send an unquoted scope with colons, slashes and commas in it, so a bare value runs as far
# as it can be no other parameter: up to a space, or up to a comma that a new `name=` or scheme follows.
_BARE = rf"(?:[^\s,\"]|,(?!\s*(?:{_WORD}\s*=|{_WORD}\s+{_WORD}\s*=|$)))+"
_PARAMETER = re.compile(rf"\s*,?\s*({_WORD})\s*=\s*({_QUOTED}|{_BARE})")
_SCHEME = re.compile(rf"\s*,?\s*({_WORD})(?=\s|,|$)(?!\s*=)")


@dataclass(frozen=True)
class Challenge:
    """A scheme and its parameters (RFC 9110 section 11.6.1); parameter names are kept in lower case."""

    scheme: str
    parameters: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(cls, scheme: str, **parameters: str | None) -> Self:
        """Build a challenge, leaving out what is None or empty: an empty value ends some clients' parsing."""
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
        """The same challenge with parameters set, or removed where the value is None or empty."""
        merged = {**dict(self.parameters), **changes}
        return replace(self, parameters=tuple((name, value) for name, value in merged.items() if value))

    def __str__(self) -> str:
        """The header value: every parameter quoted, for half the clients read no other form."""
        printed = ",".join(f'{name}="{_escape(value)}"' for name, value in self.parameters)
        return f"{self.scheme} {printed}" if printed else self.scheme


def parse_challenges(lines: Iterable[str]) -> tuple[Challenge, ...]:
    """All challenges of all WWW-Authenticate lines, in order. What cannot be read is passed over."""
    return tuple(challenge for line in lines for challenge in _parse_line(line))


def _parse_line(line: str) -> Iterator[Challenge]:
    position = 0
    while scheme := _SCHEME.match(line, position):
        position = scheme.end()
        parameters: dict[str, str] = {}
        while parameter := _PARAMETER.match(line, position):
            position = parameter.end()
            parameters.setdefault(parameter[1].lower(), _unquote(parameter[2]))
        yield Challenge(scheme[1], tuple(parameters.items()))


def _unquote(value: str) -> str:
    return re.sub(r"\\(.)", r"\1", value[1:-1]) if value.startswith('"') else value


def _escape(value: str) -> str:
    return re.sub(r'(["\\])', r"\\\1", value)
