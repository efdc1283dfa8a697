"""PullManifest: one manifest, by tag or by digest, its bytes as the upstream sent them."""

from dataclasses import dataclass, replace

from application.authorize_pull import AuthorizePull
from application.ports.event_sink import EventSink
from application.ports.upstream_registry import Facts, Fetch, Resource, UpstreamRegistry
from application.refusals import Refusals
from application.rights import Caller, Right, Wish
from domain.content import MANIFEST_LIMIT, MANIFEST_MEDIA_TYPES, check_manifest, signed_part
from domain.digest import Digest
from domain.errors import UpstreamBroken
from domain.events import WrongContent
from domain.names import Reference, RepositoryName
from domain.upstreams import Source, UpstreamTable

_ANY = (", ".join(MANIFEST_MEDIA_TYPES),)


@dataclass(frozen=True)
class ManifestQuery:
    """Which manifest: `accept` holds whole Accept lines, `known` what the client says it has (If-None-Match)."""

    name: RepositoryName
    reference: Reference
    accept: tuple[str, ...] = ()
    head: bool = False
    known: frozenset[str] = frozenset()


@dataclass(frozen=True)
class ManifestAnswer:
    """A manifest or, for HEAD and for what the client has already, what is to be said of it."""

    media_type: str
    digest: Digest
    size: int
    content: bytes | None
    warnings: tuple[str, ...] = ()


class PullManifest:
    """Every manifest that leaves has been hashed; a HEAD says what the upstream says."""

    def __init__(
        self,
        authorize: AuthorizePull,
        refusals: Refusals,
        upstreams: UpstreamTable,
        registry: UpstreamRegistry,
        events: EventSink,
    ) -> None:
        self._authorize = authorize
        self._refusals = refusals
        self._upstreams = upstreams
        self._registry = registry
        self._events = events

    async def __call__(self, caller: Caller, query: ManifestQuery) -> ManifestAnswer:
        """The manifest. Raises Unauthorized, Denied, ContentUnknown or UpstreamFault."""
        source = self._upstreams.source_of(query.name)
        right = await self._authorize(Wish.to_read(caller, source, query.name))
        with self._refusals.by_upstream(right):
            # A HEAD first, where the client may have it already: Docker Hub counts GETs only.
            told = await self._head(source, right, query) if query.head or query.known else None
            if told and (query.head or str(told.digest) in query.known):
                return told
            answer = await self._get(source, right, query)
        return replace(answer, content=None) if query.head else answer

    async def _head(self, source: Source, right: Right, query: ManifestQuery) -> ManifestAnswer | None:
        """What the upstream says of it; None where it leaves out what clients need to hear."""
        async with self._registry.open(self._fetch(source, right, query, head=True)) as answer:
            facts = answer.facts
            digest = query.reference.digest or facts.digest
            if digest is None or facts.size is None or facts.media_type is None:
                return None
            return ManifestAnswer(facts.media_type, digest, facts.size, None, facts.warnings)

    async def _get(self, source: Source, right: Right, query: ManifestQuery) -> ManifestAnswer:
        async with self._registry.open(self._fetch(source, right, query, head=False)) as answer:
            content, facts = await answer.read(MANIFEST_LIMIT), answer.facts
        digest = self._checked(source, query.reference.digest, facts, content)
        media_type = facts.media_type or ""
        check_manifest(media_type, content)
        return ManifestAnswer(media_type, digest, len(content), content, facts.warnings)

    def _checked(self, source: Source, asked: Digest | None, facts: Facts, content: bytes) -> Digest:
        """The digest that the content really has; what was asked weighs more than what the header claims."""
        promised = asked or facts.digest
        if promised is None:
            return Digest.of(signed_part(facts.media_type, content))
        if not promised.matches(signed_part(facts.media_type, content)):
            self._events.emit(WrongContent(source.upstream.url, str(source.repository), str(promised)))
            raise UpstreamBroken("the upstream sent a manifest that is not what its digest says")
        return promised

    def _fetch(self, source: Source, right: Right, query: ManifestQuery, *, head: bool) -> Fetch:
        accept = query.accept or _ANY
        return Fetch(Resource.manifest(source, query.reference), right.upstream, head, accept)
