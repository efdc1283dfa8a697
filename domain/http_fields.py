"""HTTP header fields and URIs that an upstream sends: Link, Warning, HTTP dates, and URIs with illegal characters."""

import re
from collections.abc import Iterable, Sequence
from email.utils import parsedate_to_datetime
from itertools import accumulate
from urllib.parse import quote

WARNINGS_LIMIT = 4096
"""Bytes of all warnings in one response (OCI distribution specification, section "Warnings")."""
# RFC 7234 section 5.5: warn-code, warn-agent, quoted warn-text, and an optional date.
_WARNING = re.compile(r'(?:^|,)[ \t]*([0-9]{3}) +[^ ",]+ +"((?:[^"\\]|\\.)*)"')
_NOT_PRINTABLE = re.compile(r"[^\x20-\x7e]")
# RFC 8288 section 3: link-param, with its leading semicolon. Matching takes linear time.
_LINK_PARAMETER = re.compile(r'[ \t]*;[ \t]*([^ \t=;,"<>]+)[ \t]*(?:=[ \t]*(?:"((?:[^"\\]|\\.)*)"|([^ \t;,"<>]*)))?')
_RESERVED = "%:/?#[]@!$&'()*+,;="
"""The percent sign and the reserved characters of RFC 3986 section 2.2."""


def parse_http_date(field: str | None) -> float | None:
    """The date in seconds since 1970, in any of the three formats of RFC 9110 section 5.6.7; None if it is not a date.

    The asctime format has no time zone. All three formats are in UTC.
    """
    try:
        date = parsedate_to_datetime(field or "")
        return (date if date.tzinfo else parsedate_to_datetime(f"{field} GMT")).timestamp()
    except (ValueError, OverflowError):
        return None


def next_link(header: str | None) -> str | None:
    """The target of the first link with `rel="next"` in a Link header (RFC 8288), or None. Skips what it cannot parse.

    The caller joins several header lines with commas (RFC 9110 section 5.3).
    """
    header, position = header or "", 0
    while (end := header.find(">", position)) >= 0:
        start = header.rfind("<", position, end)
        position = end + 1
        relations: str | None = None
        while parameter := _LINK_PARAMETER.match(header, position):
            position = parameter.end()
            name, quoted, plain = parameter.groups()
            # RFC 8288 section 3.3: only the first rel parameter of a link counts.
            if name.lower() == "rel" and relations is None:
                relations = quoted if quoted is not None else plain
        if start >= 0 and "next" in (relations or "").lower().split():
            return header[start + 1 : end]
    return None


def warning(text: str) -> str:
    """The value of a Warning header with this text, in the form of the OCI distribution specification: code 299, agent
    `-`, no date. Replaces characters that a quoted ASCII string cannot contain.
    """
    printable = _NOT_PRINTABLE.sub("?", text).replace("\\", "").replace('"', "'")
    return f'299 - "{printable}"'


def read_warnings(lines: Iterable[str]) -> tuple[str, ...]:
    """The warnings with code 299 in an upstream's Warning lines, one value each.

    Other codes describe caches between the mirror and the upstream, so they are dropped, as is what cannot be parsed.
    """
    found = (match for line in lines for match in _WARNING.finditer(line))
    return tuple(
        warning(re.sub(r"\\(.)", r"\1", text)) for code, text in (match.groups() for match in found) if code == "299"
    )


def bounded_warnings(warnings: Sequence[str]) -> tuple[str, ...]:
    """The first distinct warnings whose total length is at most WARNINGS_LIMIT bytes."""
    distinct = list(dict.fromkeys(warnings))
    totals = accumulate(map(len, distinct))
    return tuple(value for value, total in zip(distinct, totals, strict=True) if total <= WARNINGS_LIMIT)


def is_legal(text: str) -> bool:
    """Whether a URI may contain every character of the text (RFC 3986 section 2)."""
    return percent_encoded(text) == text


def percent_encoded(text: str) -> str:
    """The URI with its illegal characters percent-encoded (RFC 3986 section 2.1).

    Encodes the bytes of non-ASCII characters as they were sent, and changes nothing else: a signed URI is only valid
    exactly as the upstream wrote it. Header fields are decoded as UTF-8, with surrogates for bytes that are not UTF-8.
    """
    return quote(text, safe=_RESERVED, errors="surrogateescape")
