"""PullBlob: one blob, whole or a part of it, streamed and checked on its way."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

from application.authorize_pull import AuthorizePull
from application.ports.event_sink import EventSink
from application.ports.upstream_registry import Answer, Facts, Fetch, Resource, UpstreamRegistry
from application.refusals import Refusals
from application.rights import Caller, Wish
from domain.content import BLOB_MEDIA_TYPE, ByteRange, Span
from domain.digest import Digest, DigestCheck
from domain.errors import UpstreamBroken
from domain.events import WrongContent
from domain.names import RepositoryName
from domain.upstreams import Source, UpstreamTable


@dataclass(frozen=True)
class BlobQuery:
    """Which blob, and which part of it. `known`: the client has this very digest already (If-None-Match)."""

    name: RepositoryName
    digest: Digest
    head: bool = False
    byte_range: ByteRange | None = None
    known: bool = False


@dataclass(frozen=True)
class BlobAnswer:
    """A blob about to be read. `size` is the whole blob's, None where the upstream does not say.

    `span` is set where only a part is sent. `pieces` is None where no body belongs to the answer.
    """

    digest: Digest
    media_type: str
    size: int | None
    span: Span | None
    pieces: AsyncIterator[bytes] | None
    warnings: tuple[str, ...] = ()


class PullBlob:
    """Nobody receives a complete wrong body: the last piece waits until the digest is known to be right."""

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

    @asynccontextmanager
    async def open(self, caller: Caller, query: BlobQuery) -> AsyncIterator[BlobAnswer]:
        """The blob, open until the context is left.

        Raises Unauthorized, Denied, ContentUnknown, RangeUnsatisfiable or UpstreamFault; while the pieces are
        read only UpstreamFault.
        """
        source = self._upstreams.source_of(query.name)
        right = await self._authorize(Wish.to_read(caller, source, query.name))
        fetch = Fetch(Resource.blob(source, query.digest), right.upstream, byte_range=query.byte_range)
        with self._refusals.by_upstream(right):
            if query.head or query.known:
                yield _described(query, await self._facts(fetch))
                return
            async with self._registry.open(fetch) as answer:
                yield self._delivered(source, query, answer)

    async def _facts(self, fetch: Fetch) -> Facts:
        """What is to be said of the whole blob. A length that a HEAD leaves out may come with a GET; without one
        no HEAD can be answered, for clients would believe the 0 that stands in for it.
        """
        for head in (True, False):
            async with self._registry.open(replace(fetch, head=head, byte_range=None)) as answer:
                if answer.facts.size is not None:
                    return answer.facts
        raise UpstreamBroken("the upstream does not say how long the blob is")

    def _delivered(self, source: Source, query: BlobQuery, answer: Answer) -> BlobAnswer:
        facts, asked = answer.facts, query.byte_range
        if facts.span is not None:
            return self._partial(source, query, answer, facts.span)
        pieces = self._checked(source, query.digest, answer.pieces())
        if asked is None or facts.size is None:
            return replace(_described(query, facts), pieces=pieces)
        # The upstream ignores ranges, but clients that resume take nothing but a 206.
        span = asked.of(facts.size)
        return replace(_described(query, facts), span=span, pieces=_cut(pieces, span))

    def _partial(self, source: Source, query: BlobQuery, answer: Answer, span: Span) -> BlobAnswer:
        facts, asked = answer.facts, query.byte_range
        wrong_size = facts.size not in {None, span.length}
        if asked is None or wrong_size or not asked.is_answered_by(span, facts.whole_size):
            raise UpstreamBroken("the upstream sent another range than was asked")
        pieces = answer.pieces()
        if span.start == 0 and span.stop == facts.whole_size:
            pieces = self._checked(source, query.digest, pieces)
        return replace(_described(query, facts), size=facts.whole_size, span=span, pieces=pieces)

    async def _checked(self, source: Source, promised: Digest, pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        check, held = DigestCheck(promised), b""
        async for piece in pieces:
            if held:
                yield held
            check.update(piece)
            held = piece
        if not check.holds:
            self._events.emit(WrongContent(source.upstream.url, str(source.repository), str(promised)))
            raise UpstreamBroken("the upstream sent a blob that is not what its digest says")
        if held:
            yield held


def _described(query: BlobQuery, facts: Facts) -> BlobAnswer:
    media_type = facts.media_type or BLOB_MEDIA_TYPE
    return BlobAnswer(query.digest, media_type, facts.size, None, None, facts.warnings)


async def _cut(pieces: AsyncIterator[bytes], span: Span) -> AsyncIterator[bytes]:
    """The bytes of the span out of the whole."""
    position = 0
    async for piece in pieces:
        wanted = piece[max(0, span.start - position) : max(0, span.stop - position)]
        position += len(piece)
        if wanted:
            yield wanted
        if position >= span.stop:
            return
