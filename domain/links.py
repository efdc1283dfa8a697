"""The Link header of a paged list (RFC 8288)."""

import re
from collections.abc import Iterator

# RFC 8288 section 3: link-param, from its semicolon on. Each character is looked at a bounded number of times.
_PARAMETER = re.compile(r'[ \t]*;[ \t]*([^ \t=;,"<>]+)[ \t]*(?:=[ \t]*(?:"((?:[^"\\]|\\.)*)"|([^ \t;,"<>]*)))?')


def next_link(header: str | None) -> str | None:
    """The target of the first `rel="next"` in a Link header; None where there is none. Several lines are one list, with
    commas between them (RFC 9110 section 5.3).
    """
    for target, relations in _links(header or ""):
        if "next" in relations:
            return target
    return None


def _links(header: str) -> Iterator[tuple[str, frozenset[str]]]:
    """Each target with its relation types in lower case (section 2.1.1); what cannot be read is skipped."""
    position = 0
    while (end := header.find(">", position)) >= 0:
        start = header.rfind("<", position, end)
        position = end + 1
        relations: str | None = None
        while parameter := _PARAMETER.match(header, position):
            position = parameter.end()
            name, quoted, plain = parameter.groups()
            # Section 3.3: only the first rel of a link counts.
            if name.lower() == "rel" and relations is None:
                relations = quoted if quoted is not None else plain
        if start >= 0:
            yield header[start + 1 : end], frozenset((relations or "").lower().split())
