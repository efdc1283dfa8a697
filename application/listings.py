"""Listings: the lists of a registry: repositories, tags and referrers."""

from dataclasses import dataclass, replace
from urllib.parse import parse_qsl, urlencode

from application.access.access_request import Access, AccessRequest, Caller, PullAccess, Purpose
from application.access.authorize import Authorize
from application.access.pull_rules import PullRules
from application.access.refusals import Refusals
from application.concurrency import in_slices
from application.ports.upstream import Resource, UpstreamRegistry, UpstreamRequest
from domain.digest import Digest
from domain.documents import all_members_of, members_of, print_json, print_members, scalar_of, strings_of
from domain.errors import UpstreamBroken
from domain.http_fields import next_link, percent_encoded, warning
from domain.manifests import INDEX_MEDIA_TYPE, MANIFEST_LIMIT, check_index
from domain.names import RepositoryName
from domain.upstream_table import NO_HINT, RegistryHint
from domain.upstreams import Upstream

Query = tuple[tuple[str, str], ...]
_IN_CIRCLES = warning("the upstream sends the same page again: the list may be incomplete")
_TOO_LONG = warning("the list is incomplete: too many of the names that follow are hidden from you")
_JOINED_PAGES = 20
"""Maximum pages that are joined to one page. More would take longer than clients wait."""
_NAMES_LIMIT = 50_000
"""Maximum names on a catalog page that is parsed. The time to parse it grows with their number."""
_EMPTY_PAGE_LIMIT = 4096
_OTHERS_LIMIT = 256 * 1024
"""Bytes of a page besides its list."""
_EMPTY = b"[]"


@dataclass(frozen=True)
class Listing:
    """One page. `next_query`: the query string of the next page; None on the last page."""

    content: bytes
    media_type: str = "application/json"
    next_query: str | None = None
    filters_applied: str | None = None
    warnings: tuple[str, ...] = ()


class Listings:
    """Passes pages on unchanged, except for the repository name, for lists that an upstream sends as null, and for
    names that the caller may not pull.
    """

    def __init__(
        self,
        authorize: Authorize,
        refusals: Refusals,
        registry: UpstreamRegistry,
        rules: PullRules,
    ) -> None:
        self._authorize = authorize
        self._refusals = refusals
        self._registry = registry
        self._rules = rules

    async def tags(self, caller: Caller, name: RepositoryName, query: Query, hint: RegistryHint = NO_HINT) -> Listing:
        """One page of the tags of a repository, under the name that the client uses."""
        async with self._authorize.repository(caller, name, hint, Purpose.LISTING) as access:
            page = await self._page(access, Resource.tags(access.source, query), ("application/json",))
        found = _list_of(page.content, "tags")
        if found.get("tags") and scalar_of(found.get("name")) == str(name):
            return page
        wanted = {"name": print_json(str(name)), "tags": found.get("tags", _EMPTY)}
        return replace(page, content=_printed(page.content, found, wanted))

    async def repositories(
        self, caller: Caller, upstream: Upstream, query: Query, purpose: Purpose = Purpose.LISTING
    ) -> Listing:
        """One page of the catalog of the upstream, without the names that the caller may not pull. A page may therefore
        be short or empty without being the last.

        The Link header of a page contains the name after which the next page starts. This name must not be hidden from
        the caller either. If it is, the next page is joined to this one, which can make the page long.
        """
        access = await self._authorize.access(AccessRequest.to_list_repositories(caller, upstream, purpose))
        page, names, hidden = await self._catalog(access, upstream, query)
        if names is None:
            return page
        size, is_changed = len(page.content), bool(hidden)
        for _ in range(_JOINED_PAGES):
            following = tuple(parse_qsl(page.next_query or ""))
            if hidden.isdisjoint(value for _, value in following):
                return _with_repositories(page, names) if is_changed else page
            another, more, hidden = await self._catalog(access, upstream, following)
            size += len(another.content)
            if size > MANIFEST_LIMIT:
                break
            names, is_changed = names + (more or []), True
            warnings = tuple(dict.fromkeys((*page.warnings, *another.warnings)))
            page = replace(page, next_query=another.next_query, warnings=warnings)
        return replace(_with_repositories(page, names), next_query=None, warnings=(_TOO_LONG, *page.warnings))

    async def referrers(
        self, caller: Caller, name: RepositoryName, digest: Digest, query: Query, hint: RegistryHint = NO_HINT
    ) -> Listing:
        """The manifests that refer to this one, as an OCI index."""
        async with self._authorize.repository(caller, name, hint) as access:
            page = await self._page(access, Resource.referrers(access.source, digest, query), (INDEX_MEDIA_TYPE,))
        return replace(page, content=check_index(page.content), media_type=INDEX_MEDIA_TYPE)

    async def _catalog(
        self, access: Access, upstream: Upstream, query: Query
    ) -> tuple[Listing, list[str] | None, frozenset[str]]:
        """A page, its names that the caller may see, and its hidden names. The visible names are None if the access
        rules hide no names; the page is then complete.
        """
        with self._refusals.by_upstream(access):
            page = await self._page(access, Resource.catalog(upstream, query), ("application/json",))
        found = _list_of(page.content, "repositories")
        if "repositories" not in found:
            page = replace(page, content=_printed(page.content, found, {"repositories": _EMPTY}))
        if not self._rules.hide_names:
            return page, None, frozenset()
        names = _names_in(found.get("repositories", _EMPTY))
        shown, hidden = [], set()
        async for name in in_slices(names):
            if self._rules.shows(access.check, name):
                shown.append(name)
            else:
                hidden.add(name)
        return page, shown, frozenset(hidden)

    async def _page(self, access: Access | PullAccess, resource: Resource, accept: tuple[str, ...]) -> Listing:
        async with self._registry.open(UpstreamRequest(resource, access.credentials, accept=accept)) as answer:
            content, metadata = await answer.read(MANIFEST_LIMIT), answer.metadata
        page = Listing(
            content,
            next_query=following_query(next_link(metadata.link), resource.query),
            filters_applied=metadata.filters_applied,
            warnings=metadata.warnings,
        )
        if resource.query and sorted(parse_qsl(page.next_query or "")) == sorted(resource.query):
            # The next page is the page that was just requested. A client that follows the link would never finish.
            return replace(page, next_query=None, warnings=(_IN_CIRCLES, *page.warnings))
        return page


def repositories_of(content: bytes) -> list[str]:
    """The names in a catalog page. Raises UpstreamBroken if it contains something else, or more than _NAMES_LIMIT
    names.
    """
    return _names_in(_list_of(content, "repositories").get("repositories", _EMPTY))


def _names_in(listed: bytes) -> list[str]:
    if listed.count(b'"') > 2 * _NAMES_LIMIT:
        raise UpstreamBroken(f"the upstream sent a catalog page with more than {_NAMES_LIMIT} names")
    try:
        return strings_of(listed)
    except ValueError as error:
        raise UpstreamBroken("the upstream sent a catalog that contains something other than names") from error


def _with_repositories(page: Listing, names: list[str]) -> Listing:
    found = _list_of(page.content, "repositories")
    return replace(page, content=_printed(page.content, found, {"repositories": print_json(names)}))


def following_query(target: str | None, asked: Query) -> str | None:
    """The query of the address of the next page, with the requested parameters that it omits: filters and the page
    size. None if there is no next page.

    Only the query of the address is used, not its host or path. `last` is a position in the list and is not repeated.
    """
    query = percent_encoded(target.partition("#")[0].partition("?")[2]) if target else ""
    if not query:
        return None
    present = {name for name, _ in parse_qsl(query, keep_blank_values=True)}
    missing = [(name, value) for name, value in asked if name not in present and name != "last"]
    return f"{query}&{urlencode(missing)}" if missing else query


def _list_of(content: bytes, member: str) -> dict[str, bytes]:
    """The list of a page and its name, if present. Registries send an empty list as null, or omit it; an object without
    the list may then contain only the name.

    Raises UpstreamBroken for a JSON object that is not such a list: the response of a portal, or an error with status
    200.
    """
    found = members_of(content, "name", member)
    if found is None:
        raise UpstreamBroken("the upstream sent a list that is not a JSON object")
    listed = found.get(member)
    if listed is None:
        is_list = len(content) <= _EMPTY_PAGE_LIMIT and not all_members_of(content).keys() - {"name"}
    else:
        is_list = listed == b"null" or listed.startswith(b"[")
    if not is_list:
        raise UpstreamBroken(f"the upstream sent a list without {member}")
    return {name: value for name, value in found.items() if value != b"null"}


def _printed(content: bytes, found: dict[str, bytes], wanted: dict[str, bytes]) -> bytes:
    """The page with the members `wanted` in place of its own. The other members are kept, unless they are so long that
    parsing them would block the event loop.
    """
    others = len(content) - sum(map(len, found.values()))
    kept = all_members_of(content) if others <= _OTHERS_LIMIT else {}
    return print_members(kept | wanted)
