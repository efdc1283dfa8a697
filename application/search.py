"""Search: answers `docker search HOST/term` and `podman search`."""

from dataclasses import replace
from urllib.parse import parse_qsl

from application.access.access_request import AccessRequest, Caller, Purpose
from application.access.authorize import Authorize
from application.access.pull_rules import PullRules
from application.concurrency import in_slices
from application.listings import Listings, repositories_of
from application.ports.upstream import SearchResult, UpstreamSearch
from domain.errors import NameInvalid
from domain.names import RepositoryName
from domain.upstream_table import NO_HINT, RegistryHint, UpstreamTable
from domain.upstreams import Upstream

# The catalog of a registry without a search is read page by page. Reading more pages than this would take longer than
# clients wait.
_PAGES = 20
_PAGE_SIZE = 1000


class Search:
    """Uses the search of the upstream if it has one, else matches the names of its catalog."""

    def __init__(
        self,
        authorize: Authorize,
        browse: Listings,
        upstreams: UpstreamTable,
        search: UpstreamSearch,
        rules: PullRules,
    ) -> None:
        self._authorize = authorize
        self._browse = browse
        self._upstreams = upstreams
        self._search = search
        self._rules = rules

    async def __call__(
        self, caller: Caller, term: str, limit: int, hint: RegistryHint = NO_HINT
    ) -> tuple[SearchResult, ...]:
        """At most `limit` results, with the names that the client would pull. The term may begin with the name of a
        registry.

        Names are content too: if accounts are checked, a search needs an account, and names that the caller may not
        pull are left out. An operator needs no account: the search finds what the mirror's own login finds.
        """
        upstream, there, registry = self._upstreams.search_of(term, hint)
        if upstream.search_url:
            access = await self._authorize.access(AccessRequest.to_list_repositories(caller, upstream, Purpose.SEARCH))
            found = await self._search.search(upstream, there, limit)
            if self._rules.hide_names:
                found = tuple(one for one in found if self._rules.shows(access.check, one.name))
        else:
            found = await self._match_catalog(caller, upstream, there.lower(), limit)
        return tuple(replace(one, name=f"{registry}{one.name}") for one in found)

    async def _match_catalog(
        self, caller: Caller, upstream: Upstream, term: str, limit: int
    ) -> tuple[SearchResult, ...]:
        found: dict[str, SearchResult] = {}
        query: tuple[tuple[str, str], ...] = (("n", str(_PAGE_SIZE)),)
        for _ in range(_PAGES):
            page = await self._browse.repositories(caller, upstream, query, Purpose.SEARCH)
            async for name in in_slices(repositories_of(page.content)):
                if term in name and _is_name(name):
                    found[name] = SearchResult(name)
            following = tuple(parse_qsl(page.next_query or ""))
            # Some registries drop the query when they redirect, and always return the first page.
            if len(found) >= limit or not following or following == query:
                break
            query = following
        return tuple(found.values())[:limit]


def _is_name(text: str) -> bool:
    try:
        RepositoryName(text)
    except NameInvalid:
        return False
    return True
