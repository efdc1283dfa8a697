"""Warning headers as the OCI distribution specification has them (section "Warnings"): code 299, agent `-`, no date."""

import re
from collections.abc import Iterable, Sequence

WARNINGS_LIMIT = 4096
"""Bytes of all warnings of one response together (same section)."""
# RFC 7234 section 5.5: warn-code, warn-agent, quoted warn-text, and perhaps a date.
_VALUE = re.compile(r'(?:^|,)[ \t]*([0-9]{3}) +[^ ",]+ +"((?:[^"\\]|\\.)*)"')
_NOT_PRINTABLE = re.compile(r"[^\x20-\x7e]")


def warning(text: str) -> str:
    """The value of a Warning header with this text; what cannot stand in a quoted string of ASCII is replaced."""
    printable = _NOT_PRINTABLE.sub("?", text).replace("\\", "").replace('"', "'")
    return f'299 - "{printable}"'


def read_warnings(lines: Iterable[str]) -> tuple[str, ...]:
    """The warnings with code 299 in the Warning lines of an upstream, one value each. Other codes are about caches that
    are not ours, and what cannot be read is left out.
    """
    found = (match for line in lines for match in _VALUE.finditer(line))
    return tuple(
        warning(re.sub(r"\\(.)", r"\1", text)) for code, text in (match.groups() for match in found) if code == "299"
    )


def bounded_warnings(warnings: Sequence[str]) -> tuple[str, ...]:
    """Each warning once, and only the first ones that together have at most WARNINGS_LIMIT bytes."""
    kept: list[str] = []
    room = WARNINGS_LIMIT
    for value in dict.fromkeys(warnings):
        room -= len(value)
        if room < 0:
            break
        kept.append(value)
    return tuple(kept)
