"""The port to an upstream's search."""

from dataclasses import dataclass
from typing import Protocol

from domain.upstreams import Upstream


@dataclass(frozen=True)
class SearchResult:
    """One repository as `docker search` shows it."""

    name: str
    description: str = ""
    star_count: int = 0
    is_official: bool = False


class UpstreamSearch(Protocol):
    """Asks a registry's v1 search endpoint."""

    async def search(self, upstream: Upstream, term: str, limit: int) -> tuple[SearchResult, ...]:
        """At most `limit` results; the upstream has a `search_url`. Raises UpstreamFault."""
        ...
