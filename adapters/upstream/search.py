"""The v1 search API, which `docker search` uses, at an upstream."""

from urllib.parse import urlencode

from adapters.upstream.addresses import parse_url
from adapters.upstream.client import HttpRequest, UpstreamClients
from adapters.upstream.status_errors import check_ok
from application.ports.upstream import SearchResult
from domain.documents import parse_json
from domain.errors import UpstreamBroken, UpstreamChallenged, UpstreamRejected
from domain.upstreams import Upstream

_BODY_LIMIT = 256 * 1024
"""Bytes. The mirror requests at most a hundred results, which take about 30 KiB."""


class HttpUpstreamSearch:
    """Implements UpstreamSearch. Sends no credentials, because the search of a public registry is public."""

    def __init__(self, clients: UpstreamClients) -> None:
        self._clients = clients

    async def search(self, upstream: Upstream, term: str, limit: int) -> tuple[SearchResult, ...]:
        address = parse_url(f"{upstream.search_url}?{urlencode({'q': term, 'n': limit})}")
        request = HttpRequest("GET", address, kind="search")
        try:
            async with self._clients[upstream].request(request) as response:
                await check_ok(response)
                return _results(await response.read(_BODY_LIMIT))[:limit]
        except UpstreamChallenged as challenged:
            raise UpstreamRejected("the upstream's search requires a login") from challenged


def _results(content: bytes) -> tuple[SearchResult, ...]:
    try:
        return tuple(
            SearchResult(
                str(one["name"]),
                str(one.get("description") or ""),
                int(one.get("star_count") or 0),
                bool(one.get("is_official")),
            )
            for one in parse_json(content)["results"]  # type: ignore[index]  # the except clause handles every other type
        )
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError) as error:
        raise UpstreamBroken("the upstream's search did not send search results") from error
