"""Browse: the lists that a registry keeps: repositories, tags, referrers."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from urllib.parse import parse_qsl, urlencode

from application.authorize_pull import AuthorizePull
from application.ports.upstream_registry import Fetch, Resource, UpstreamRegistry
from application.pull_rules import PullRules
from application.refusals import Refusals
from application.rights import Caller, Purpose, Right, Wish
from domain.content import INDEX_MEDIA_TYPE, MANIFEST_LIMIT
from domain.digest import Digest
from domain.documents import parse_object
from domain.errors import UpstreamBroken
from domain.links import next_link
from domain.names import RepositoryName
from domain.upstream_table import UpstreamTable
from domain.upstreams import NO_NAMING, Naming, Upstream
from domain.uri import percent_encoded
from domain.warning_headers import warning

Query = tuple[tuple[str, str], ...]
_IN_CIRCLES = warning("the upstream sends the same page again: the list may be incomplete")
_TOO_LONG = warning("the list is incomplete: too much of what follows is not for you")
_JOINED_PAGES = 20
"""Nobody waits for more."""


@dataclass(frozen=True)
class Listing:
    """One page. `next_query` is the query string of the page after it, None on the last one."""

    content: bytes
    media_type: str = "application/json"
    next_query: str | None = None
    filters_applied: str | None = None
    warnings: tuple[str, ...] = ()


class Browse:
    """Passes pages on as they are, but for the name and for lists that an upstream writes as null."""

    def __init__(
        self,
        authorize: AuthorizePull,
        refusals: Refusals,
        upstreams: UpstreamTable,
        registry: UpstreamRegistry,
        rules: PullRules,
    ) -> None:
        self._authorize = authorize
        self._refusals = refusals
        self._upstreams = upstreams
        self._registry = registry
        self._rules = rules

    async def tags(self, caller: Caller, name: RepositoryName, query: Query, naming: Naming = NO_NAMING) -> Listing:
        """One page of the tags of a repository, under the name that the client uses."""
        source = self._upstreams.source_of(name, naming)
        right = await self._authorize(Wish.to_read(caller, source, name, Purpose.LISTING))
        page = await self._page(right, Resource.tags(source, query), ("application/json",))
        _check_list(page, "tags")
        return _normalised(page, {"name": str(name), "tags": []})

    async def repositories(
        self, caller: Caller, upstream: Upstream, query: Query, purpose: Purpose = Purpose.LISTING
    ) -> Listing:
        """One page of the upstream's catalog, without the names that the caller may not pull. So a page may be short,
        even empty, and not be the last.

        Its Link leads on from a name, which must be none of those either. Where it would be, the next page is joined
        to this one, which may then be a long one.
        """
        right = await self._authorize(Wish.to_list_repositories(caller, upstream, purpose))
        page, hidden = await self._catalog(right, upstream, query)
        for _ in range(_JOINED_PAGES):
            following = tuple(parse_qsl(page.next_query or ""))
            if hidden.isdisjoint(value for _, value in following):
                return page
            another, hidden = await self._catalog(right, upstream, following)
            page = _joined(page, another)
        return replace(page, next_query=None, warnings=(_TOO_LONG, *page.warnings))

    async def referrers(
        self, caller: Caller, name: RepositoryName, digest: Digest, query: Query, naming: Naming = NO_NAMING
    ) -> Listing:
        """The manifests that refer to this one, as an OCI index."""
        source = self._upstreams.source_of(name, naming)
        right = await self._authorize(Wish.to_read(caller, source, name))
        resource = Resource.referrers(source, digest, query)
        page = await self._page(right, resource, (INDEX_MEDIA_TYPE,))
        return replace(page, media_type=INDEX_MEDIA_TYPE)

    async def _catalog(self, right: Right, upstream: Upstream, query: Query) -> tuple[Listing, frozenset[str]]:
        """A page, and the names that were on it and are left out."""
        page = await self._page(right, Resource.catalog(upstream, query), ("application/json",))
        _check_list(page, "repositories")
        page = _normalised(page, {"repositories": []})
        if not self._rules.hide_names:
            return page, frozenset()
        names = _repositories(page)
        shown = [name for name in names if self._rules.shows(right.gate, name)]
        if len(shown) == len(names):
            return page, frozenset()
        hidden = frozenset(map(str, names)) - frozenset(map(str, shown))
        return _with_repositories(page, shown), hidden

    async def _page(self, right: Right, resource: Resource, accept: tuple[str, ...]) -> Listing:
        with self._refusals.by_upstream(right):
            async with self._registry.open(Fetch(resource, right.upstream, accept=accept)) as answer:
                content, facts = await answer.read(MANIFEST_LIMIT), answer.facts
        page = Listing(
            _json_object(content),
            next_query=following_query(next_link(facts.link), resource.query),
            filters_applied=facts.filters_applied,
            warnings=facts.warnings,
        )
        if resource.query and sorted(parse_qsl(page.next_query or "")) == sorted(resource.query):
            # The next page is the one that was just asked for. A client that believed it would never come to an end.
            return replace(page, next_query=None, warnings=(_IN_CIRCLES, *page.warnings))
        return page


def _repositories(page: Listing) -> list[object]:
    names = (parse_object(page.content) or {}).get("repositories")
    return names if isinstance(names, list) else []


def _with_repositories(page: Listing, names: list[object]) -> Listing:
    document = parse_object(page.content) or {}
    return replace(page, content=json.dumps({**document, "repositories": names}).encode())


def _joined(page: Listing, following: Listing) -> Listing:
    names = _repositories(page) + _repositories(following)
    warnings = tuple(dict.fromkeys((*page.warnings, *following.warnings)))
    return replace(_with_repositories(page, names), next_query=following.next_query, warnings=warnings)


def following_query(target: str | None, asked: Query) -> str | None:
    """The query of the next page's address, with all that was asked and that it leaves out: filters and the page size.
    None where there is no next page.

    Only the query is used: where the upstream's address leads to is not looked at. `last` is a position in the list and
    not repeated.
    """
    query = percent_encoded(target.partition("#")[0].partition("?")[2]) if target else ""
    if not query:
        return None
    told = {name for name, _ in parse_qsl(query, keep_blank_values=True)}
    missing = [(name, value) for name, value in asked if name not in told and name != "last"]
    return f"{query}&{urlencode(missing)}" if missing else query


def _json_object(content: bytes) -> bytes:
    if parse_object(content) is None:
        raise UpstreamBroken("the upstream sent a list that is no JSON object")
    return content


def _check_list(page: Listing, member: str) -> None:
    """Raises UpstreamBroken for a JSON object that is no such list: a portal's answer, an error with status 200.

    Registries write an empty list as null, or leave it out; then nothing else is there but the name.
    """
    document = parse_object(page.content) or {}
    is_list = document.get(member) is None or isinstance(document[member], list)
    if not is_list or (member not in document and document.keys() - {"name"}):
        raise UpstreamBroken(f"the upstream sent a list without {member}")


def _normalised(page: Listing, form: Mapping[str, object]) -> Listing:
    """The page with the names of `form` and no null lists; its bytes stay where nothing is to be changed."""
    document = parse_object(page.content) or {}
    wanted = {
        key: (document.get(key) if isinstance(document.get(key), list) else value) if isinstance(value, list) else value
        for key, value in form.items()
    }
    if wanted.items() <= document.items():
        return page
    return replace(page, content=json.dumps(document | wanted).encode())
