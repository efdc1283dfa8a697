"""StreamBlob: a blob from the upstream to one client, kept nowhere, checked on its way."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace

from application.blobs import BlobAnswer, BlobQuery, described
from application.cache.callers import Ask
from application.cache.read_rights import ReadRights
from application.ports.content_store import OpenFile
from application.ports.event_sink import EventSink
from application.ports.upstream_registry import Answer, Facts, Fetch, Resource, UpstreamRegistry
from domain.content import ByteRange, Span
from domain.digest import Bytes, Digest, DigestCheck
from domain.errors import RegistryError, UpstreamBroken
from domain.events import BytesFetched, WrongContent
from domain.records import ContentKind, Item

_REREAD = 1024 * 1024
_END = 2**63


class StreamBlob:
    """Nobody receives a complete wrong body: the last piece waits until the digest is known to be right."""

    def __init__(self, registry: UpstreamRegistry, rights: ReadRights, events: EventSink) -> None:
        self._registry = registry
        self._rights = rights
        self._events = events

    async def open(self, stack: AsyncExitStack, ask: Ask, query: BlobQuery) -> BlobAnswer:
        """The blob, open until the stack is left."""
        answer = await self._opened(stack, ask, query.digest, query.byte_range)
        facts, asked = answer.facts, query.byte_range
        if facts.span is not None:
            return self._partial(ask, query, answer, facts.span)
        pieces = self._checked(ask, query.digest, answer.pieces())
        if asked is None or facts.size is None:
            return replace(described(query.digest, facts), pieces=pieces)
        # The upstream ignores ranges, but clients that resume take nothing but a 206.
        span = asked.of(facts.size)
        return replace(described(query.digest, facts), span=span, pieces=_cut(pieces, span))

    async def facts(self, ask: Ask, digest: Digest) -> Facts:
        """What a GET says of the whole blob, where a HEAD left out its length; without one no HEAD can be answered,
        for clients would believe the 0 that stands in for it.
        """
        async with self._registry.open(Fetch(Resource.blob(ask.source, digest), ask.right)) as answer:
            if answer.facts.size is None:
                raise UpstreamBroken("the upstream does not say how long the blob is")
            return answer.facts

    async def rest(
        self, ask: Ask, digest: Digest, begun: OpenFile, wanted: Span, total: int | None
    ) -> AsyncIterator[Bytes]:
        """The wanted bytes of a blob whose first `wanted.start` bytes somebody has got out of this file already.

        `total` is the length that was promised. The digest is checked over those bytes and all that come now: an old
        beginning and a new rest that do not belong together never make a whole.
        """
        check, position = DigestCheck(digest), wanted.start
        while check.size < position:
            known = await begun.read(check.size, min(check.size + _REREAD, position))
            if not known:
                raise UpstreamBroken("what was delivered of the blob cannot be read again")
            check.update(known)
        async with AsyncExitStack() as stack:
            answer = await self._opened(stack, ask, digest, ByteRange(position, None) if position else None)
            facts, span = answer.facts, answer.facts.span
            if span is not None and span.start != position:
                raise UpstreamBroken("the upstream sent another range than was asked")
            size = facts.size if span is None else facts.whole_size
            if None not in {size, total} and size != total:
                raise UpstreamBroken("the upstream sent the blob with another size than before")
            fresh = _cut(answer.pieces(), Span(0 if span else position, _END))
            async for piece in _cut(self._held_back(ask, check, fresh, total), Span(0, wanted.length)):
                yield piece

    async def _opened(self, stack: AsyncExitStack, ask: Ask, digest: Digest, asked: ByteRange | None) -> Answer:
        item = Item(ask.source, ContentKind.BLOB, digest)
        fetch = Fetch(Resource.blob(ask.source, digest), ask.right, byte_range=asked)
        try:
            answer = await stack.enter_async_context(self._registry.open(fetch))
        except RegistryError as error:
            await self._rights.refused(ask, item, error)
            raise
        self._rights.record(ask, item, answer.facts)
        return answer

    def _partial(self, ask: Ask, query: BlobQuery, answer: Answer, span: Span) -> BlobAnswer:
        facts, asked = answer.facts, query.byte_range
        wrong_size = facts.size not in {None, span.length}
        if asked is None or wrong_size or not asked.is_answered_by(span, facts.whole_size):
            raise UpstreamBroken("the upstream sent another range than was asked")
        is_whole = span.start == 0 and (span.stop == facts.whole_size or asked.last is None)
        pieces = self._checked(ask, query.digest, answer.pieces()) if is_whole else self._counted(answer.pieces())
        return replace(described(query.digest, facts), size=facts.whole_size, span=span, pieces=pieces)

    def _checked(self, ask: Ask, promised: Digest, pieces: AsyncIterator[Bytes]) -> AsyncIterator[Bytes]:
        return self._held_back(ask, DigestCheck(promised), pieces)

    async def _held_back(
        self, ask: Ask, check: DigestCheck, pieces: AsyncIterator[Bytes], total: int | None = None
    ) -> AsyncIterator[Bytes]:
        held: Bytes = b""
        async for piece in self._counted(pieces):
            check.update(piece)
            if total is not None and check.size > total:
                raise UpstreamBroken("the upstream sent more of the blob than there is")
            if held:
                yield held
            held = piece
        if not check.holds:
            source = ask.source
            self._events.emit(WrongContent(source.upstream.url, str(source.repository), str(check.promised)))
            raise UpstreamBroken("the upstream sent a blob that is not what its digest says")
        if held:
            yield held

    async def _counted(self, pieces: AsyncIterator[Bytes]) -> AsyncIterator[Bytes]:
        async for piece in pieces:
            self._events.emit(BytesFetched(len(piece)))
            yield piece


async def _cut(pieces: AsyncIterator[Bytes], span: Span) -> AsyncIterator[Bytes]:
    """The bytes of the span out of the whole."""
    position = 0
    async for piece in pieces:
        wanted = piece[max(0, span.start - position) : max(0, span.stop - position)]
        position += len(piece)
        if wanted:
            yield wanted
        if position >= span.stop:
            return
