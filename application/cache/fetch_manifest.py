"""FetchManifest: manifests as the upstream has them now; what comes is checked and kept."""

from dataclasses import replace

from application.cache.callers import Ask
from application.cache.first_comers import FirstComers
from application.cache.joined import Joined
from application.cache.manifest_shelf import ManifestShelf
from application.cache.outages import Outages
from application.cache.read_rights import REFUSED_HEAD, ReadRights
from application.manifests import ManifestAnswer, ManifestQuery
from application.ports.event_sink import EventSink
from application.ports.upstream_registry import Facts, Fetch, Resource, UpstreamRegistry
from domain.content import (
    MANIFEST_LIMIT,
    MANIFEST_MEDIA_TYPES,
    check_manifest,
    signed_part,
    stated_media_type,
    tells_of_manifest,
)
from domain.digest import Digest
from domain.errors import RegistryError, UpstreamBroken, UpstreamThrottled
from domain.events import BytesFetched, WrongContent
from domain.records import ContentKind, Item
from domain.upstreams import Source

_ANY = (", ".join(MANIFEST_MEDIA_TYPES),)


class FetchManifest:
    """Every manifest that leaves has been hashed; a HEAD says what the upstream says.

    What one caller asks several times at once is asked once. Not for several callers: an answer is a proof of the
    right of the one whose right it was asked with. But those who come while another fetches ask by HEAD, which
    registries with an allowance do not count.
    """

    def __init__(
        self, registry: UpstreamRegistry, rights: ReadRights, shelf: ManifestShelf, outages: Outages, events: EventSink
    ) -> None:
        self._registry = registry
        self._rights = rights
        self._shelf = shelf
        self._outages = outages
        self._events = events
        self._joined = Joined()
        self._first_comers = FirstComers()

    async def unknown(self, ask: Ask, query: ManifestQuery) -> ManifestAnswer:
        """What is not here at all. Where the upstream wants to be asked less by this caller, few get as far as it."""
        return await self._outages.attempt(
            ask.source.upstream,
            ask.caller,
            lambda: self._head_or_get(ask, query),
            has_stand_in=False,
            manifests=True,
        )

    async def head(self, ask: Ask, query: ManifestQuery) -> ManifestAnswer | None:
        """What the upstream says of it; None where it leaves out what clients need to hear."""
        return await self._joined.do(self._key(ask, query, head=True), lambda: self._head(ask, query))

    async def get(self, ask: Ask, query: ManifestQuery) -> ManifestAnswer:
        """The manifest itself."""
        return await self._joined.do(self._key(ask, query, head=False), lambda: self._get_or_find(ask, query))

    async def _head_or_get(self, ask: Ask, query: ManifestQuery) -> ManifestAnswer:
        digest = query.reference.digest
        if digest and query.is_content_with(digest) and (told := await self.head(ask, query)):
            return told
        return await self.get(ask, query)

    async def _get_or_find(self, ask: Ask, query: ManifestQuery) -> ManifestAnswer:
        known = self._outages.last(ask.source.upstream, ask.caller)
        async with self._first_comers.turn((ask.source, str(query.reference), query.accept)) as has_waited:
            if has_waited:
                self._outages.check(ask.source.upstream, ask.caller, known)
                if found := await self._find(ask, query):
                    return found
            return await self._get(ask, query)

    async def _find(self, ask: Ask, query: ManifestQuery) -> ManifestAnswer | None:
        """What another caller has just fetched, where the upstream says to this one too that it is that."""
        try:
            told = await self._head(ask, query)
        except REFUSED_HEAD:
            return None  # counts only when a GET is refused too
        content = await self._shelf.get(told.digest) if told else None
        if told is None or content is None:
            return None
        check_manifest(told.media_type, content)
        return replace(told, content=content, size=len(content), is_hit=True)

    def _key(self, ask: Ask, query: ManifestQuery, *, head: bool) -> tuple[object, ...]:
        return (ask.caller, ask.right, ask.source, str(query.reference), query.accept, head)

    async def _head(self, ask: Ask, query: ManifestQuery) -> ManifestAnswer | None:
        facts, _ = await self._ask(ask, query, head=True)
        digest = query.reference.digest or facts.digest
        # A manifest is never empty: a length of 0 says that the upstream does not know how to answer a HEAD.
        if digest is None or not facts.size or facts.media_type is None:
            return None
        if not tells_of_manifest(facts.media_type, facts.digest):
            return None
        self._rights.record(ask, Item(ask.source, ContentKind.MANIFEST, digest), facts)
        return ManifestAnswer(facts.media_type, digest, facts.size, None, facts.warnings)

    async def _get(self, ask: Ask, query: ManifestQuery) -> ManifestAnswer:
        facts, content = await self._ask(ask, query, head=False)
        digest = self._checked(ask.source, query.reference.digest, facts, content)
        media_type = facts.media_type or stated_media_type(content)
        check_manifest(media_type, content)
        facts = replace(facts, media_type=media_type)
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
                self._outages.saw(ask.source.upstream, ask.caller, answer.facts.allowance)
                return answer.facts, b"" if head else await answer.read(MANIFEST_LIMIT)
        except UpstreamThrottled as error:
            self._outages.throttled(ask.source.upstream, ask.caller, error)
            raise
        except RegistryError as error:
            item = Item(ask.source, ContentKind.MANIFEST, asked) if asked else None
            await self._rights.refused(ask, item, error)
            raise

    def _checked(self, source: Source, asked: Digest | None, facts: Facts, content: bytes) -> Digest:
        """The digest that the content really has; what was asked weighs more than what the header claims."""
        promised = asked or facts.digest
        if promised is None:
            return Digest.of(signed_part(facts.media_type, content))
        if not (promised.matches(content) or promised.matches(signed_part(facts.media_type, content))):
            self._events.emit(WrongContent(source.upstream.url, str(source.repository), str(promised)))
            raise UpstreamBroken("the upstream sent a manifest that is not what its digest says")
        return promised
