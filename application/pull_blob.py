"""PullBlob: one blob, whole or a part of it: from the cache, along with what fills it, or past it."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace

from application.authorize_pull import AuthorizePull
from application.blobs import BlobAnswer, BlobQuery, Piece, described, linked
from application.cache.callers import Ask, Callers
from application.cache.fill import DraftLost, Fill
from application.cache.fills import Fills
from application.cache.joined import Joined
from application.cache.provenance import Provenance
from application.cache.read_rights import Admission, ReadRights
from application.cache.remembered import Remembered
from application.cache.stream_blob import StreamBlob
from application.cache.sweep_cache import SweepCache
from application.ports.content_store import ContentStore, FilePart, StorageRefused, StoredContent
from application.ports.event_sink import EventSink
from application.ports.upstream_registry import Facts, Fetch, Resource
from application.refusals import Refusals
from application.rights import Caller, Wish
from domain.content import ByteRange, Span
from domain.digest import Digest
from domain.errors import RegistryError, UpstreamBroken, UpstreamTimedOut, UpstreamUndecided, UpstreamUnreachable
from domain.events import ContentAsked, ContentDamaged, FillJoined
from domain.records import ContentKind, Item
from domain.upstream_table import UpstreamTable

_REMEMBERED = 4096
_WHOLE = ByteRange(0, None)
_NOBODYS_FAULT = (UpstreamUnreachable, UpstreamTimedOut, UpstreamBroken, UpstreamUndecided)


class PullBlob:
    """Nobody gets a byte of cached content, nor of what is on its way into the cache, without a right of his own."""

    def __init__(  # noqa: PLR0913, PLR0917 - who may, what is here, and where it comes from; the container names them
        self,
        authorize: AuthorizePull,
        refusals: Refusals,
        upstreams: UpstreamTable,
        callers: Callers,
        rights: ReadRights,
        store: ContentStore,
        provenance: Provenance,
        sweep: SweepCache,
        fills: Fills,
        stream: StreamBlob,
        events: EventSink,
    ) -> None:
        self._authorize = authorize
        self._refusals = refusals
        self._upstreams = upstreams
        self._callers = callers
        self._rights = rights
        self._store = store
        self._provenance = provenance
        self._sweep = sweep
        self._fills = fills
        self._stream = stream
        self._events = events
        self._checks = Joined()
        self._intact: Remembered[Digest, object] = Remembered(_REMEMBERED)

    @asynccontextmanager
    async def open(self, caller: Caller, query: BlobQuery) -> AsyncIterator[BlobAnswer]:
        """The blob, open until the context is left.

        Raises Unauthorized, Denied, ContentUnknown, RangeUnsatisfiable or UpstreamFault; while the pieces are
        read only UpstreamFault.
        """
        source = self._upstreams.source_of(query.name, query.naming)
        right = await self._authorize(Wish.to_read(caller, source, query.name))
        with self._refusals.by_upstream(right):
            ask = await self._callers.ask(right, source)
            async with AsyncExitStack() as stack:
                if query.head or query.known:
                    yield await self._described(ask, query)
                else:
                    yield await self._delivered(stack, ask, query)

    async def _described(self, ask: Ask, query: BlobQuery) -> BlobAnswer:
        admission = await self._rights.admit(ask, _item(ask, query))
        answer = linked(admission.link, admission.warnings)
        if query.known or answer.size or query.digest.is_of_nothing:
            return answer
        # A HEAD upstream may have proved the right without a length.
        if stored := await self._stored(ask, query.digest):
            stored.file.close()
            self._sweep.used(query.digest)
            return replace(answer, size=stored.size)
        return described(query.digest, await self._stream.facts(ask, query.digest))

    async def _delivered(self, stack: AsyncExitStack, ask: Ask, query: BlobQuery) -> BlobAnswer:
        stored = await self._stored(ask, query.digest)
        if stored is not None:
            stack.callback(stored.file.close)
            admission = await self._rights.admit(ask, _item(ask, query), self._as_fetched(ask, query))
            if admission.link.size in {None, 0, stored.size} or await self._is_intact(query.digest, stored):
                self._events.emit(ContentAsked(ContentKind.BLOB, is_hit=True))
                return self._from_file(query, admission, stored)
            await self._damaged(query.digest)
        elif await self._rights.is_asked_first(ask):
            await self._rights.admit(ask, _item(ask, query))
        self._events.emit(ContentAsked(ContentKind.BLOB, is_hit=False))
        if self._fills.is_unfit(ask.source.upstream, query.digest):
            return await self._stream.open(stack, ask, query)
        if not query.is_partial or await self._is_filled_for(ask, query):
            return await self._along(stack, ask, query)
        answer = await self._stream.open(stack, ask, query)
        asked = sum(span.length for span in answer.spans) or (answer.span.length if answer.span else answer.size or 0)
        self._fills.asked_in_part(ask, query.digest, asked, answer.size)
        return answer

    def _as_fetched(self, ask: Ask, query: BlobQuery) -> Fetch:
        """The first request upstream for a blob that is not here."""
        asked = query.first_range
        if query.byte_range == _WHOLE and not self._fills.is_unfit(ask.source.upstream, query.digest):
            asked = None  # the whole is fetched into the cache
        return Fetch(Resource.blob(ask.source, query.digest), ask.right, byte_range=asked)

    # --- whole, and here ---

    async def _stored(self, ask: Ask, digest: Digest) -> StoredContent | None:
        """Open content, where it is here and served for this upstream: to be closed by the caller."""
        if not await self._provenance.serves(ask.source.upstream, digest):
            return None
        return await self._store.open(digest)

    def _from_file(self, query: BlobQuery, admission: Admission, stored: StoredContent) -> BlobAnswer:
        self._sweep.used(query.digest)
        spans = query.spans(stored.size)
        parts = [FilePart(stored.file.descriptor, span.start, span.stop) for span in spans or (Span(0, stored.size),)]
        return replace(
            linked(admission.link, admission.warnings),
            size=stored.size,
            pieces=_each(parts),
            damaged=lambda: self._damaged(query.digest),
        ).in_part(spans)

    async def _is_intact(self, digest: Digest, stored: StoredContent) -> bool:
        """Whether a stored file is right, although an upstream says another size. A power cut may have shortened the
        file, or the size is wrong; only its digest decides, or an upstream could have any shared content removed. A
        file that was found right is not hashed again.
        """
        if self._intact.get(digest) == stored.file.identity:
            return True
        try:
            is_right = await self._checks.do(digest, lambda: self._sweep.is_right(digest))
        except StorageRefused:
            return False  # what cannot be read is fetched again
        if is_right:
            self._intact.put(digest, stored.file.identity)
        return bool(is_right)

    async def _damaged(self, digest: Digest) -> None:
        self._events.emit(ContentDamaged(str(digest)))
        await self._sweep.drop(digest)

    # --- on its way ---

    async def _is_filled_for(self, ask: Ask, query: BlobQuery) -> bool:
        """Whether the fill can give these parts: all from the beginning, or what it has already."""
        asked = query.byte_range
        if asked == _WHOLE:
            return True
        fill = self._fills.running(ask.source.upstream, query.digest)
        if fill is None or fill.total is None:
            return False
        # Before anything is said of it, its size too.
        await self._rights.admit(ask, _item(ask, query), self._as_fetched(ask, query))
        spans = query.spans(fill.total)
        if all(span.stop <= fill.readable for span in spans):
            return True
        # A client that goes on where it was cut off reads along; for a part that is far ahead nobody waits.
        return asked is not None and asked.last is None and spans[0].start <= fill.readable

    async def _along(self, stack: AsyncExitStack, ask: Ask, query: BlobQuery) -> BlobAnswer:
        try:
            fill, facts, admission = await self._joined(stack, ask, query)
        except (StorageRefused, DraftLost):
            return await self._stream.open(stack, ask, query)
        fill.offer(ask)
        base = linked(admission.link, admission.warnings) if admission else described(query.digest, facts or Facts())
        if fill.total is None:
            fill.total = base.size
        size = fill.total
        spans = query.spans(size) if size is not None else ()
        return replace(base, size=size, pieces=self._pieces(fill, ask, spans)).in_part(spans)

    async def _joined(
        self, stack: AsyncExitStack, ask: Ask, query: BlobQuery
    ) -> tuple[Fill, Facts | None, Admission | None]:
        """A fill that has been opened, what the upstream answered to it, and the caller's right if that was not the
        answer to this very request. Raises StorageRefused, or the refusal of the caller's own question.
        """
        while True:
            is_own = self._fills.running(ask.source.upstream, query.digest) is None
            fill = self._fills.join(ask, query.digest)
            stack.enter_context(fill.reading())
            if not is_own:
                self._events.emit(FillJoined())
            try:
                facts = await asyncio.shield(fill.opened)
            except RegistryError as error:
                # Somebody else's refusal is none of ours: then we ask ourselves. But who waited for an upstream that
                # fails shares that: in turn, each would wait as long again.
                if is_own or isinstance(error, _NOBODYS_FAULT):
                    raise
                await self._rights.admit(ask, _item(ask, query), self._as_fetched(ask, query))
                continue
            # Only the request that began it has been answered by the upstream; all others are still to be let in, the
            # same caller's too, whose right may have ended since.
            admission = (
                None
                if is_own and facts
                else await self._rights.admit(ask, _item(ask, query), self._as_fetched(ask, query))
            )
            if is_own or not isinstance(fill.failure, RegistryError):
                return fill, facts, admission

    async def _pieces(self, fill: Fill, ask: Ask, spans: Sequence[Span]) -> AsyncIterator[Piece]:
        """The bytes of each span; the whole for none."""
        bounds: list[tuple[int, int | None]] = [(span.start, span.stop) for span in spans]
        for start, stop in bounds or [(0, fill.total)]:
            position = start
            try:
                async for part in fill.parts(start, stop):
                    yield part
                    position = part.stop
            except (StorageRefused, DraftLost):
                # The disk is full in the middle, or another process gave up: each reader goes on alone, uncached.
                rest = Span(position, 2**63 if stop is None else stop)
                async for piece in self._stream.rest(ask, fill.digest, fill.file, rest, fill.total):
                    yield piece


def _item(ask: Ask, query: BlobQuery) -> Item:
    return Item(ask.source, ContentKind.BLOB, query.digest)


async def _each(parts: Sequence[FilePart]) -> AsyncIterator[Piece]:
    for part in parts:
        if part.start < part.stop:
            yield part
