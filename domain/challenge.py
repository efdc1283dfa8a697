"""One authentication challenge of a WWW-Authenticate field, parsed leniently and printed strictly."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Self

# Every quantifier is possessive: a hostile line is read once, not tried in all the ways it could be cut up.
_WORD = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]++"
_QUOTED = r'"(?:[^"\\]|\\.)*+"'
# Some registries send an unquoted scope with colons, slashes and commas in it. So a bare value goes on behind a
# comma, unless a space, the end, another parameter or another scheme with its first parameter comes there.
_BARE = rf'[^\s,"]++(?:,(?![\s,]|$|{_WORD}\s*+=|{_WORD}\s++{_WORD}\s*+=)[^\s,"]++)*+'
_SEPARATORS = re.compile(r"[\s,]*+")
_PARAMETER = re.compile(rf"({_WORD})\s*+=\s*+({_QUOTED}|{_BARE})")
_SCHEME = re.compile(rf"{_WORD}(?=[\s,]|$)")


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


def _parse_line(line: str) -> list[Challenge]:
    found: list[tuple[str, dict[str, str]]] = []
    position = 0
    while match := _next(line, position, has_scheme=bool(found)):
        position = match.end()
        if match.re is _SCHEME:
            found.append((match[0], {}))
        else:
            found[-1][1].setdefault(match[1].lower(), _unquote(match[2]))
    return [Challenge(scheme, tuple(parameters.items())) for scheme, parameters in found]


def _next(line: str, position: int, *, has_scheme: bool) -> re.Match[str] | None:
    """The next parameter or scheme; None at the end and at what is neither."""
    separators = _SEPARATORS.match(line, position)
    start = separators.end() if separators else position
    parameter = _PARAMETER.match(line, start) if has_scheme else None
    return parameter or _SCHEME.match(line, start)


def _unquote(value: str) -> str:
    return re.sub(r"\\(.)", r"\1", value[1:-1]) if value.startswith('"') else value


def _escape(value: str) -> str:
    return re.sub(r'(["\\])', r"\\\1", value)
