"""PullManifest: one manifest, by tag or by digest, its bytes as the upstream sent them."""

from dataclasses import replace

from application.authorize_pull import AuthorizePull
from application.cache.callers import Ask, Callers
from application.cache.fetch_manifest import FetchManifest
from application.cache.manifest_shelf import ManifestShelf
from application.cache.outages import OUTAGE
from application.cache.pull_tag import PullTag
from application.cache.read_rights import Admission, ReadRights
from application.manifests import ManifestAnswer, ManifestQuery
from application.ports.event_sink import EventSink
from application.refusals import Refusals
from application.rights import Caller, Wish
from domain.digest import Digest
from domain.events import ContentAsked
from domain.names import Tag
from domain.records import ContentKind, Item
from domain.upstream_table import UpstreamTable


class PullManifest:
    """Served from here where the caller may read it, else asked of the upstream with the caller's right."""

    def __init__(  # noqa: PLR0913, PLR0917 - who may, what is here, and where it comes from; the container names them
        self,
        authorize: AuthorizePull,
        refusals: Refusals,
        upstreams: UpstreamTable,
        callers: Callers,
        rights: ReadRights,
        shelf: ManifestShelf,
        fetch: FetchManifest,
        tags: PullTag,
        events: EventSink,
    ) -> None:
        self._authorize = authorize
        self._refusals = refusals
        self._upstreams = upstreams
        self._callers = callers
        self._rights = rights
        self._shelf = shelf
        self._fetch = fetch
        self._tags = tags
        self._events = events

    async def __call__(self, caller: Caller, query: ManifestQuery) -> ManifestAnswer:
        """The manifest. Raises Unauthorized, Denied, ContentUnknown or UpstreamFault."""
        source = self._upstreams.source_of(query.name, query.naming)
        right = await self._authorize(Wish.to_read(caller, source, query.name))
        with self._refusals.by_upstream(right):
            ask = await self._callers.ask(right, source)
            target = query.reference.target
            if isinstance(target, Tag):
                answer = await self._tags(ask, query, target)
            else:
                answer = await self._by_digest(ask, query, target)
        if answer.content is not None and not query.head:
            self._events.emit(ContentAsked(ContentKind.MANIFEST, answer.is_hit))
        return replace(answer, content=None) if query.head and answer.content is not None else answer

    async def _by_digest(self, ask: Ask, query: ManifestQuery, digest: Digest) -> ManifestAnswer:
        """Content that never changes: nothing is asked but the caller's right to it."""
        item = Item(ask.source, ContentKind.MANIFEST, digest)
        if ask.is_mirrors:
            content = await self._shelf.get(ask.source.upstream, digest)
            if content is None:
                return await self._fetch.unknown(ask, query)
            return _linked(await self._rights.admit(ask, item), content)
        # Here or not, a caller with a right of its own is asked for in the same way (ReadRights.is_asked_first).
        known = await self._rights.known(ask, item)
        stand_in = known.link if known else await self._rights.stand_in(ask, item)
        # Read only for a caller who may be given it: the time to read and hash it would tell others that it is here.
        content = await self._shelf.get(ask.source.upstream, digest) if stand_in else None
        if known and content is not None:
            return _linked(known, content)
        proves_first = await self._rights.is_asked_first(ask)
        try:
            return await self._fetch.unknown(ask, query, has_stand_in=content is not None, proves_first=proves_first)
        except OUTAGE as fault:
            if stand_in is None or content is None:
                raise
            return _linked(self._rights.stale(stand_in, fault), content)


def _linked(admission: Admission, content: bytes) -> ManifestAnswer:
    """By what is known of it here."""
    link = admission.link
    return ManifestAnswer(
        link.media_type,
        link.item.digest,
        len(content),
        content,
        admission.warnings,
        admission.good_until,
        is_hit=True,
    )
