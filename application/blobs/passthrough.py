"""Passthrough: streams a blob from the upstream to one client, verifies it on the way and does not cache it."""

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from itertools import pairwise

from application.access.access_request import PullAccess
from application.access.read_permission import ReadPermissions
from application.blobs.blob_query import BlobAnswer, BlobQuery, described
from application.blobs.retries import Retries
from application.ports.content import OpenFile
from application.ports.telemetry import EventSink
from application.ports.upstream import (
    Resource,
    ResponseMetadata,
    UpstreamRegistry,
    UpstreamRequest,
    UpstreamResponse,
)
from domain.content import BLOB_MEDIA_TYPE, CLOSE_BYTES, ByteRange, Span
from domain.digest import Bytes, Digest, DigestCheck
from domain.documents import one_line
from domain.errors import RangeUnsatisfiable, RegistryError, UpstreamBroken, UpstreamUnavailable
from domain.events import BytesFetched, DigestMismatch, DownloadResumed
from domain.ports import Clock
from domain.records import ContentKind, ContentLocation

_REREAD = 1024 * 1024
END = 2**63


class Passthrough:
    """No client receives a complete wrong body: the last piece is withheld until the digest has been verified.

    If the upstream breaks off a body, the rest is requested again, up to `retries` times in a row without a byte.
    """

    def __init__(
        self, registry: UpstreamRegistry, permissions: ReadPermissions, events: EventSink, clock: Clock, retries: int
    ) -> None:
        self._registry = registry
        self._permissions = permissions
        self._events = events
        self._clock = clock
        self._retries = retries

    async def open(self, stack: AsyncExitStack, access: PullAccess, query: BlobQuery) -> BlobAnswer:
        """The blob, open until the stack is closed."""
        if query.byte_ranges:
            return await self._several(stack, access, query)
        opened = await stack.enter_async_context(AsyncExitStack())
        answer = await self._opened(opened, access, query.digest, query.byte_range)
        metadata, asked = answer.metadata, query.byte_range
        if metadata.span is not None:
            return self._partial(access, query, answer, metadata.span, opened)
        base = described(query.digest, metadata)
        if metadata.size is None:
            return replace(base, pieces=self._checked(access, query.digest, self._counted(answer.pieces())))
        extent = Span(0, metadata.size)
        pieces = self._checked(access, query.digest, self._continued(access, query.digest, extent, answer, opened))
        if asked is None:
            return replace(base, pieces=pieces)
        # The upstream ignores ranges, but clients that resume accept only a 206.
        span = asked.of(metadata.size)
        return replace(base, span=span, pieces=_cut(pieces, span))

    async def _several(self, stack: AsyncExitStack, access: PullAccess, query: BlobQuery) -> BlobAnswer:
        """Several parts, with one upstream request for each group of parts that are close together. Most registries
        redirect to object stores, which do not answer several ranges in one request.
        """
        whole = replace(query, byte_ranges=())
        opened = await stack.enter_async_context(AsyncExitStack())
        first: UpstreamResponse | None = None
        try:
            first = await self._opened(opened, access, query.digest, query.first_range)
        except RangeUnsatisfiable as outside:
            size = outside.size
        else:
            size = first.metadata.size if first.metadata.span is None else first.metadata.whole_size
        spans = query.spans(size) if size is not None else ()
        ignores_ranges = first is not None and first.metadata.span is None
        if size is None or not spans or (ignores_ranges and not _ascend(spans)):
            # Without a size, Content-Range cannot be correct. One pass over the whole blob cannot deliver parts out of
            # order.
            await opened.aclose()
            return await self.open(stack, access, whole)
        groups = [list(spans)] if ignores_ranges else _grouped(spans)
        base = described(query.digest, first.metadata) if first else BlobAnswer(query.digest, BLOB_MEDIA_TYPE, size)
        pieces = self._of_groups(access, query.digest, groups, first, opened)
        return replace(base, size=size, pieces=pieces).in_part(spans)

    async def _of_groups(
        self,
        access: PullAccess,
        digest: Digest,
        groups: list[list[Span]],
        first: UpstreamResponse | None,
        opened: AsyncExitStack,
    ) -> AsyncIterator[Bytes]:
        """The bytes of all spans in order. `first`: a response that is already open. It is used if it contains the
        whole first group.
        """
        for group in groups:
            wanted = Span(group[0].start, group[-1].stop)
            begun = first if first is not None and _can_give(first, wanted) else None
            first = None
            async for piece in _picked(self._continued(access, digest, wanted, begun, opened), wanted.start, group):
                yield piece

    async def metadata(self, access: PullAccess, digest: Digest) -> ResponseMetadata:
        """The metadata of a GET for the whole blob, if a HEAD response had no length. Raises UpstreamBroken if the GET
        has no length either: the HEAD response to the client would then state 0, and clients would believe it.
        """
        async with self._registry.open(
            UpstreamRequest(Resource.blob(access.source, digest), access.credentials)
        ) as answer:
            if not answer.metadata.size:
                raise UpstreamBroken("the upstream does not state the size of the blob")
            return answer.metadata

    async def rest(
        self, access: PullAccess, digest: Digest, begun: OpenFile, wanted: Span, total: int | None
    ) -> AsyncIterator[Bytes]:
        """The wanted bytes of a blob whose first `wanted.start` bytes the client has received from the file `begun`.

        `total` is the length that was promised. The digest is verified over those bytes and all new ones, so that an
        old beginning and a new rest that do not belong together never form a complete body.
        """
        check, position = DigestCheck(digest), wanted.start
        while check.size < position:
            known = await begun.read(check.size, min(check.size + _REREAD, position))
            if not known:
                raise UpstreamBroken("the mirror cannot read again the part of the blob that it delivered")
            check.update(known)
        async with AsyncExitStack() as stack:
            answer = await self._opened(stack, access, digest, ByteRange(position, None) if position else None)
            metadata, span = answer.metadata, answer.metadata.span
            if span is not None and span.start != position:
                raise UpstreamBroken("the upstream sent a different byte range than the mirror requested")
            size = metadata.size if span is None else metadata.whole_size
            if None not in {size, total} and size != total:
                raise UpstreamBroken("the upstream sent a different size of the blob than before")
            if size is None:
                fresh = _cut(self._counted(answer.pieces()), Span(0 if span else position, END))
            else:
                fresh = self._continued(access, digest, Span(position, size), answer, stack)
            async for piece in _cut(self._held_back(access, check, fresh, total), Span(0, wanted.length)):
                yield piece

    async def _opened(
        self, stack: AsyncExitStack, access: PullAccess, digest: Digest, asked: ByteRange | None
    ) -> UpstreamResponse:
        location = ContentLocation(access.source, ContentKind.BLOB, digest)
        fetch = UpstreamRequest(Resource.blob(access.source, digest), access.credentials, byte_range=asked)
        try:
            answer = await stack.enter_async_context(self._registry.open(fetch))
        except RegistryError as error:
            await self._permissions.refused(access, location, error)
            raise
        self._permissions.record(access, location, answer.metadata)
        return answer

    def _partial(
        self, access: PullAccess, query: BlobQuery, answer: UpstreamResponse, span: Span, opened: AsyncExitStack
    ) -> BlobAnswer:
        metadata, asked = answer.metadata, query.byte_range
        wrong_size = metadata.size not in {None, span.length}
        if asked is None or wrong_size or not asked.is_answered_by(span, metadata.whole_size):
            raise UpstreamBroken("the upstream sent a different byte range than the mirror requested")
        is_whole = span.start == 0 and (span.stop == metadata.whole_size or asked.last is None)
        pieces = self._continued(access, query.digest, span, answer, opened)
        if is_whole:
            pieces = self._checked(access, query.digest, pieces)
        return replace(described(query.digest, metadata), size=metadata.whole_size, span=span, pieces=pieces)

    async def _continued(
        self, access: PullAccess, digest: Digest, wanted: Span, answer: UpstreamResponse | None, opened: AsyncExitStack
    ) -> AsyncIterator[Bytes]:
        """The wanted bytes, first from `answer`. If the upstream breaks off, the rest is requested again. Raises the
        fault of the last retry.

        `opened` holds the open response, which is closed before the next request. With a limit on the connections to
        the upstream, that request would otherwise wait for the connection of the open response.
        """
        position, total = wanted.start, answer.metadata.whole_size if answer else None
        retries = Retries(self._retries, self._clock)
        while True:
            before = position
            try:
                if answer is None:
                    await opened.aclose()
                    answer = await self._opened(opened, access, digest, ByteRange(position, wanted.stop - 1))
                    _demand(answer, Span(position, wanted.stop), total)
                async for piece in self._counted(_out_of(answer, Span(position, wanted.stop))):
                    position += len(piece)
                    yield piece
                if position >= wanted.stop:
                    return
                raise UpstreamBroken("the upstream stopped sending the blob before its end")
            except _OtherRange:
                raise UpstreamBroken("the upstream sent a different byte range than the mirror requested") from None
            except UpstreamUnavailable as fault:
                await opened.aclose()
                answer = None
                await retries.wait(fault, has_progressed=position > before)
                reason = one_line(fault.message)
                self._events.emit(DownloadResumed(access.source.upstream.url, str(digest), reason))

    def _checked(self, access: PullAccess, promised: Digest, pieces: AsyncIterator[Bytes]) -> AsyncIterator[Bytes]:
        return self._held_back(access, DigestCheck(promised), pieces)

    async def _held_back(
        self, access: PullAccess, check: DigestCheck, pieces: AsyncIterator[Bytes], total: int | None = None
    ) -> AsyncIterator[Bytes]:
        held: Bytes = b""
        async for piece in pieces:
            check.update(piece)
            if total is not None and check.size > total:
                raise UpstreamBroken("the upstream sent more bytes than the size of the blob")
            if held:
                yield held
            held = piece
        if not check.holds:
            source = access.source
            self._events.emit(DigestMismatch(source.upstream.url, str(source.repository), str(check.promised)))
            raise UpstreamBroken("the upstream sent a blob that does not match its digest")
        if held:
            yield held

    async def _counted(self, pieces: AsyncIterator[Bytes]) -> AsyncIterator[Bytes]:
        async for piece in pieces:
            self._events.emit(BytesFetched(len(piece)))
            yield piece


class _OtherRange(Exception):
    """The upstream does not send the requested range. Another request would bring the same response."""


def _demand(answer: UpstreamResponse, wanted: Span, total: int | None) -> None:
    """Raises _OtherRange if the response to a repeated request is not the rest of the first response."""
    span, size = answer.metadata.span, answer.metadata.whole_size
    if span is None:
        if wanted.start == 0 or (answer.metadata.size or 0) >= wanted.stop:
            return
    elif span == wanted and (total is None or size in {None, total}):
        return
    raise _OtherRange


def _can_give(answer: UpstreamResponse, wanted: Span) -> bool:
    """Whether the body of this response contains all the wanted bytes."""
    span = answer.metadata.span
    return span is None or (span.start <= wanted.start and wanted.stop <= span.stop)


def _out_of(answer: UpstreamResponse, wanted: Span) -> AsyncIterator[Bytes]:
    """The wanted bytes of a response. A response with no other bytes is read to its end, so that its connection can be
    reused.
    """
    metadata = answer.metadata
    start = metadata.span.start if metadata.span else 0
    if start == wanted.start and metadata.size == wanted.length:
        return answer.pieces()
    return _cut(answer.pieces(), Span(wanted.start - start, wanted.stop - start))


def _ascend(spans: Sequence[Span]) -> bool:
    return all(before.stop <= after.start for before, after in pairwise(spans))


def _grouped(spans: Sequence[Span]) -> list[list[Span]]:
    """Groups of spans to request together: in a group, each span begins shortly after the end of the one before it."""
    groups = [[spans[0]]]
    for before, after in pairwise(spans):
        if before.stop <= after.start <= before.stop + CLOSE_BYTES:
            groups[-1].append(after)
        else:
            groups.append([after])
    return groups


async def _picked(pieces: AsyncIterator[Bytes], start: int, spans: Sequence[Span]) -> AsyncIterator[Bytes]:
    """The bytes of ascending spans, from a stream that begins at `start`."""
    position, index = start, 0
    async for piece in pieces:
        stop = position + len(piece)
        while index < len(spans) and spans[index].start < stop:
            span = spans[index]
            if wanted := piece[max(0, span.start - position) : span.stop - position]:
                yield wanted
            if span.stop > stop:
                break
            index += 1
        position = stop


async def _cut(pieces: AsyncIterator[Bytes], span: Span) -> AsyncIterator[Bytes]:
    """The bytes of the span, from a stream that begins at 0."""
    position = 0
    async for piece in pieces:
        wanted = piece[max(0, span.start - position) : max(0, span.stop - position)]
        position += len(piece)
        if wanted:
            yield wanted
        if position >= span.stop:
            return
