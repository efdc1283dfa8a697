"""Query parameters of a request, and the header fields that select a representation."""

import re
from collections.abc import Sequence
from urllib.parse import urlencode

from sanic import Request

from application.listings import Query
from domain.errors import PaginationInvalid, RequestInvalid
from domain.upstreams import without_default_port

_LARGEST_PAGE = 1000
"""ECR rejects more; other registries allocate memory for it (CVE-2023-2253)."""
_PRINTABLE = re.compile(r"[\x20-\x7e]{0,1024}")
_SHOWN = 128
_WORD = re.compile(r"[A-Za-z0-9_.-]{1,64}")
# Sanic decodes headers as UTF-8, with surrogates for invalid bytes.
_NOT_TO_PASS_ON = re.compile("[\x00-\x08\x0a-\x1f\x7f-\x9f\ud800-\udfff]")


def namespace_of(request: Request) -> str | None:
    """The registry that the client names with `ns`; containerd sends it with every request to a mirror. Raises
    RequestInvalid if the request names two.
    """
    names = dict.fromkeys(request.get_args().getlist("ns", []))
    if len({without_default_port(one.lower()) for one in names}) > 1:
        raise RequestInvalid(
            "the request names two different registries", detail={"ns": [one[:_SHOWN] for one in names][:2]}
        )
    return next(iter(names), None)


def paging(request: Request) -> Query:
    """The query for the upstream. Besides `n` and `last`, registries use pagination parameters of their own, which a
    client takes from the Link that we passed on. Raises PaginationInvalid, RequestInvalid.
    """
    pairs: list[tuple[str, str]] = []
    for name, value in request.get_query_args(keep_blank_values=True):
        if name == "ns":  # names the registry to the mirror (specification, "Registry Proxying")
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
    """A Link to the next page (RFC 8288). It is relative, because clients reject one to another host, and names the
    same registry as the request.
    """
    namespaced = f"{query}&{urlencode({'ns': namespace})}" if namespace else query
    return f'<{path}?{namespaced}>; rel="next"'


def passed_on(name: str, lines: Sequence[str]) -> tuple[str, ...]:
    """Header lines of the client that are sent to the upstream unchanged.

    Raises RequestInvalid for a control character other than a tab (RFC 9110 section 5.5) and for bytes that are not
    UTF-8, because neither can be sent.
    """
    if any(_NOT_TO_PASS_ON.search(line) for line in lines):
        raise RequestInvalid(f"the {name} header has control characters, or bytes that are not UTF-8")
    return tuple(lines)


def accept_lines(request: Request) -> tuple[str, ...]:
    """All Accept lines. Empty if they accept everything, because old registries would then send schema 1."""
    lines = passed_on("Accept", request.headers.getall("accept", []))
    return () if all(line.strip() in {"*/*", ""} for line in lines) else lines


def known_digests(request: Request) -> frozenset[str]:
    """The entity tags of If-None-Match, without quotes: some registries omit them."""
    lines = ",".join(request.headers.getall("if-none-match", []))
    return frozenset(tag.strip().removeprefix("W/").strip('"') for tag in lines.split(",") if tag.strip())
