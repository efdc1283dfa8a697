"""FetchManifest: manifests as the upstream has them now; what comes is checked and kept."""

from application.cache.callers import Ask
from application.cache.joined import Joined
from application.cache.manifest_shelf import ManifestShelf
from application.cache.read_rights import ReadRights
from application.manifests import ManifestAnswer, ManifestQuery
from application.ports.event_sink import EventSink
from application.ports.upstream_registry import Facts, Fetch, Resource, UpstreamRegistry
from domain.content import MANIFEST_LIMIT, MANIFEST_MEDIA_TYPES, check_manifest, signed_part
from domain.digest import Digest
from domain.errors import RegistryError, UpstreamBroken
from domain.events import BytesFetched, WrongContent
from domain.records import ContentKind, Item
from domain.upstreams import Source

_ANY = (", ".join(MANIFEST_MEDIA_TYPES),)


class FetchManifest:
    """Every manifest that leaves has been hashed; a HEAD says what the upstream says.

    What one caller asks several times at once is asked once. Not for several callers: an answer is a proof of the
    right of the one whose right it was asked with.
    """

    def __init__(self, registry: UpstreamRegistry, rights: ReadRights, shelf: ManifestShelf, events: EventSink) -> None:
        self._registry = registry
        self._rights = rights
        self._shelf = shelf
        self._events = events
        self._joined = Joined()

    async def head(self, ask: Ask, query: ManifestQuery) -> ManifestAnswer | None:
        """What the upstream says of it; None where it leaves out what clients need to hear."""
        return await self._joined.do(self._key(ask, query, head=True), lambda: self._head(ask, query))

    async def get(self, ask: Ask, query: ManifestQuery) -> ManifestAnswer:
        """The manifest itself."""
        return await self._joined.do(self._key(ask, query, head=False), lambda: self._get(ask, query))

    def _key(self, ask: Ask, query: ManifestQuery, *, head: bool) -> tuple[object, ...]:
        return (ask.caller, ask.right, ask.source, str(query.reference), query.accept, head)

    async def _head(self, ask: Ask, query: ManifestQuery) -> ManifestAnswer | None:
        facts, _ = await self._ask(ask, query, head=True)
        digest = query.reference.digest or facts.digest
        if digest is None or facts.size is None or facts.media_type is None:
            return None
        self._rights.record(ask, Item(ask.source, ContentKind.MANIFEST, digest), facts)
        return ManifestAnswer(facts.media_type, digest, facts.size, None, facts.warnings)

    async def _get(self, ask: Ask, query: ManifestQuery) -> ManifestAnswer:
        facts, content = await self._ask(ask, query, head=False)
        digest = self._checked(ask.source, query.reference.digest, facts, content)
        media_type = facts.media_type or ""
        check_manifest(media_type, content)
        self._events.emit(BytesFetched(len(content)))
        self._rights.record(ask, Item(ask.source, ContentKind.MANIFEST, digest), facts)
        # The withdrawn schema 1 has a digest over a part of its bytes only; what is kept is found by all of them.
        if digest.matches(content):
            await self._shelf.put(digest, content)
        return ManifestAnswer(media_type, digest, len(content), content, facts.warnings)

    async def _ask(self, ask: Ask, query: ManifestQuery, *, head: bool) -> tuple[Facts, bytes]:
        fetch = Fetch(Resource.manifest(ask.source, query.reference), ask.right, head, query.accept or _ANY)
        asked = query.reference.digest
        try:
            async with self._registry.open(fetch) as answer:
                return answer.facts, b"" if head else await answer.read(MANIFEST_LIMIT)
        except RegistryError as error:
            item = Item(ask.source, ContentKind.MANIFEST, asked) if asked else None
            await self._rights.refused(ask, item, error)
            raise

    def _checked(self, source: Source, asked: Digest | None, facts: Facts, content: bytes) -> Digest:
        """The digest that the content really has; what was asked weighs more than what the header claims."""
        promised = asked or facts.digest
        if promised is None:
            return Digest.of(signed_part(facts.media_type, content))
        if not promised.matches(signed_part(facts.media_type, content)):
            self._events.emit(WrongContent(source.upstream.url, str(source.repository), str(promised)))
            raise UpstreamBroken("the upstream sent a manifest that is not what its digest says")
        return promised
