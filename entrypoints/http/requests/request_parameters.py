"""What clients may say after the question mark, and in the headers that choose."""

import re
from collections.abc import Sequence
from urllib.parse import urlencode

from sanic import Request

from application.listings import Query
from domain.errors import PaginationInvalid, RequestInvalid
from domain.upstreams import without_default_port

_LARGEST_PAGE = 1000
"""ECR refuses more, others allocate memory for it (CVE-2023-2253)."""
_PRINTABLE = re.compile(r"[\x20-\x7e]{0,1024}")
_SHOWN = 128
_WORD = re.compile(r"[A-Za-z0-9_.-]{1,64}")
# For us, not for the upstream: `ns` names the registry to a mirror (specification, "Registry Proxying").
# Sanic decodes headers as UTF-8 with surrogates for bytes that are none.
_NOT_TO_PASS_ON = re.compile("[\x00-\x08\x0a-\x1f\x7f-\x9f\ud800-\udfff]")
_OURS = frozenset({"ns"})


def namespace_of(request: Request) -> str | None:
    """The registry that a client means when it asks a mirror; containerd says so in every request. Raises
    RequestInvalid where the request names two.
    """
    said = dict.fromkeys(request.get_args().getlist("ns", []))
    if len({without_default_port(one.lower()) for one in said}) > 1:
        raise RequestInvalid(
            "the request names two different registries", detail={"ns": [one[:_SHOWN] for one in said][:2]}
        )
    return next(iter(said), None)


def paging(request: Request) -> Query:
    """The query that goes upstream. Besides `n` and `last`, registries page with parameters of their own,
    which come back to us out of the Link that we passed on. Raises PaginationInvalid, RequestInvalid.
    """
    pairs: list[tuple[str, str]] = []
    for name, value in request.get_query_args(keep_blank_values=True):
        if name in _OURS:
            continue
        if not _WORD.fullmatch(name) or not _PRINTABLE.fullmatch(value):
            raise RequestInvalid("malformed query", detail={"parameter": name[:64]})
        pairs.append((name, _page_size(value) if name == "n" else value))
    return tuple(pairs)


def _page_size(text: str) -> str:
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise PaginationInvalid("n must be a number of entries, 0 or more", detail={"n": text[:64]})
    return str(min(int(text), _LARGEST_PAGE))


def link_to(path: str, query: str, namespace: str | None) -> str:
    """A Link to the next page, relative: clients refuse one that leads to another host (RFC 8288). It names the same
    registry as the request.
    """
    namespaced = f"{query}&{urlencode({'ns': namespace})}" if namespace else query
    return f'<{path}?{namespaced}>; rel="next"'


def passed_on(name: str, lines: Sequence[str]) -> tuple[str, ...]:
    """Header lines of the client that go upstream as they came.

    Raises RequestInvalid for a control character other than a tab (RFC 9110 section 5.5), and for bytes that are no
    UTF-8: neither can be sent on.
    """
    if any(_NOT_TO_PASS_ON.search(line) for line in lines):
        raise RequestInvalid(f"the {name} header has control characters, or bytes that are not UTF-8")
    return tuple(lines)


def accept_lines(request: Request) -> tuple[str, ...]:
    """All Accept lines; none where they leave everything open, which old registries take for schema 1."""
    lines = passed_on("Accept", request.headers.getall("accept", []))
    return () if all(line.strip() in {"*/*", ""} for line in lines) else lines


def known_digests(request: Request) -> frozenset[str]:
    """The entity tags of If-None-Match, with or without quotes: registries have emitted both."""
    lines = ",".join(request.headers.getall("if-none-match", []))
    return frozenset(tag.strip().removeprefix("W/").strip('"') for tag in lines.split(",") if tag.strip())
