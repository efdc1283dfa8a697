"""PullTag: what a tag means for these media types: as it was just now, as it is, or as it was."""

from dataclasses import replace

from application.cache.callers import Ask
from application.cache.fetch_manifest import FetchManifest
from application.cache.manifest_shelf import ManifestShelf
from application.cache.outages import OUTAGE, Outages
from application.cache.read_rights import REFUSED_HEAD, ReadRights
from application.cache.tag_marks import TagMarks
from application.manifests import ManifestAnswer, ManifestQuery
from domain.errors import ContentUnknown, Denied, RegistryError, UpstreamChallenged, UpstreamThrottled
from domain.names import Tag
from domain.records import TagKey, TagMark, class_of, classes_for
from domain.variants import variant_of


class _ChangedAndThrottled(Exception):
    """A HEAD said that the tag means something else now, and the GET of that was answered 429."""

    def __init__(self, fault: UpstreamThrottled) -> None:
        super().__init__(fault.message)
        self.fault = fault


class PullTag:
    """Within its time a tag is answered from here; then a HEAD says whether it still means the same."""

    def __init__(
        self, rights: ReadRights, marks: TagMarks, shelf: ManifestShelf, fetch: FetchManifest, outages: Outages
    ) -> None:
        self._rights = rights
        self._marks = marks
        self._shelf = shelf
        self._fetch = fetch
        self._outages = outages

    async def __call__(self, ask: Ask, query: ManifestQuery, tag: Tag) -> ManifestAnswer:
        """The manifest, or what is to be said of it. Raises what the upstream says to this caller."""
        query = replace(query, asked_at=self._marks.now())
        variant = variant_of(query.accept)
        if variant is None:
            return await self._outages.attempt(
                ask.source.upstream,
                ask.caller,
                lambda: self._asked(ask, query, None, None),
                has_stand_in=False,
                manifests=True,
            )
        key = TagKey(ask.source, tag, variant)
        mark = await self._marks.find(key, classes_for(ask.caller))
        held = await self._held(mark) if mark else None
        grant = await self._rights.grants.live(ask) if held else None
        if mark and held and grant and self._marks.is_fresh(mark):
            good_until = min(self._marks.fresh_until(mark), grant.ends_at, ask.identity.ends_at)
            return self._answer(mark, held, good_until=good_until)
        stand_in = await self._stand_in(ask, query, key)
        try:
            return await self._outages.attempt(
                ask.source.upstream,
                ask.caller,
                lambda: self._asked(ask, query, key, mark if held else None),
                has_stand_in=stand_in is not None,
                manifests=True,
            )
        except _ChangedAndThrottled as changed:
            if stand_in is None:
                raise changed.fault from None
            return self._stale(*stand_in, changed.fault)
        except OUTAGE as fault:
            if stand_in is None:
                raise
            if isinstance(fault, UpstreamThrottled):
                # It is there, and asks to be asked less: the tag is believed a while longer. No right is.
                await self._marks.extend(stand_in[0])
            return self._stale(*stand_in, fault)

    async def _stand_in(self, ask: Ask, query: ManifestQuery, key: TagKey) -> tuple[TagMark, bytes] | None:
        """What may be told should the upstream fail, where this caller may be told it then."""
        mark = await self._marks.stand_in(key, query.accept, await self._rights.grants.standing_in(ask))
        held = await self._held(mark) if mark else None
        return (mark, held) if mark and held else None

    async def _held(self, mark: TagMark) -> bytes | None:
        return await self._shelf.get(mark.key.source.upstream, mark.digest)

    def _answer(self, mark: TagMark, content: bytes, *, good_until: float = 0.0, warning: str = "") -> ManifestAnswer:
        warnings = (warning,) if warning else ()
        return ManifestAnswer(mark.media_type, mark.digest, len(content), content, warnings, good_until, is_hit=True)

    def _stale(self, mark: TagMark, content: bytes, fault: RegistryError) -> ManifestAnswer:
        return self._answer(mark, content, warning=self._outages.stale(mark.key.source.upstream, fault))

    async def _asked(self, ask: Ask, query: ManifestQuery, key: TagKey | None, mark: TagMark | None) -> ManifestAnswer:
        try:
            return await self._newest(ask, query, key, mark)
        except ContentUnknown:
            if key:
                await self._marks.forget(key.source, key.tag)
            raise
        except (UpstreamChallenged, Denied):
            if key and self._rights.is_refusal_of_class(ask):
                await self._marks.withdraw(key.source, key.tag, class_of(ask.caller))
            raise

    async def _newest(self, ask: Ask, query: ManifestQuery, key: TagKey | None, mark: TagMark | None) -> ManifestAnswer:
        """A mark is learnt not before what the tag means is here: a HEAD may say what the GET then does not get any
        more, and what the tag meant before would not stand in.
        """
        told = await self._told(ask, query, mark)
        if told is None:
            return await self._fetch.get(ask, query, key)
        if query.is_content_with(told.digest):
            return await self._learnt(ask, key, told)
        # The HEAD spoke of content that may be here; it is fetched only where it is not.
        held = await self._shelf.get(ask.source.upstream, told.digest)
        if held is not None:
            return await self._learnt(ask, key, replace(told, content=held, size=len(held), is_hit=True))
        try:
            return await self._fetch.get(ask, query, key, told)
        except UpstreamThrottled as fault:
            raise _ChangedAndThrottled(fault) from fault

    async def _learnt(self, ask: Ask, key: TagKey | None, told: ManifestAnswer) -> ManifestAnswer:
        if key:
            await self._marks.learn(key, told.digest, told.media_type, class_of(ask.caller))
            self._fetch.tag_means(key.source, key.tag, told.digest)
        return told

    async def _told(self, ask: Ask, query: ManifestQuery, mark: TagMark | None) -> ManifestAnswer | None:
        """What a HEAD says, where one may do: Docker Hub counts GETs only. None where it does not do."""
        if not (mark or query.head or query.known):
            return None
        try:
            told = await self._fetch.head(ask, query)
        except REFUSED_HEAD:
            if mark is None:
                raise
            return None  # counts only when a GET is refused too
        if told and not mark and not query.is_content_with(told.digest):
            return None
        return told
