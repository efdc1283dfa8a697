"""The Link header of a paged list."""

import re

_LINK = re.compile(r"<([^<>]*)>([^<]*)")
_NEXT = re.compile(r";\s*rel\s*=\s*(?:\"(?:[^\"]*\s)?next(?:\s[^\"]*)?\"|next(?=[\s;,]|$))", re.IGNORECASE)


def next_link(header: str | None) -> str | None:
    """The target of `rel="next"` (RFC 8288 section 3), None where there is none."""
    return next((target for target, rest in _LINK.findall(header or "") if _NEXT.search(rest)), None)
