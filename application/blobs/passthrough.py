"""Passthrough: streams a blob from the upstream to one client, verifies it on the way and does not cache it."""

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from itertools import pairwise

from application.access.access_request import PullAccess
from application.access.read_permission import ReadPermissions
from application.blobs.blob_query import BlobAnswer, BlobQuery, described
from application.blobs.download import FirstBytes
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
from domain.byte_ranges import ByteRange, Span, grouped
from domain.digest import Bytes, Digest, DigestCheck
from domain.documents import one_line
from domain.errors import RangeUnsatisfiable, RegistryError, UpstreamBroken, UpstreamContentChanged, UpstreamUnavailable
from domain.events import BytesFetched, DigestMismatch, DownloadResumed
from domain.manifests import BLOB_MEDIA_TYPE
from domain.ports import Clock
from domain.records import ContentKind, ContentLocation
from domain.span_set import END_UNKNOWN

_REREAD_BYTES = 1024 * 1024
_WHOLE = ByteRange(0, None)
_OTHER_RANGE = "the upstream sent a different byte range than the mirror requested"


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
        """The blob, open until the stack is closed.

        For several parts, there is one upstream request for each group of parts that are close together. Most
        registries redirect to object stores, which do not answer several ranges in one request.
        """
        opened = await stack.enter_async_context(AsyncExitStack())
        answer: UpstreamResponse | None = None
        try:
            answer = await self._opened(opened, access, query.digest, query.first_range)
        except RangeUnsatisfiable as outside:
            if len(query.ranges) <= 1:  # with several ranges, others may be inside the blob
                raise
            size = outside.size
        else:
            if answer.metadata.span is None:
                return self._from_whole(access, query, answer, opened)
            if len(query.ranges) <= 1:
                return self._part(access, query, answer, answer.metadata.span, opened)
            size = answer.metadata.whole_size
        spans = query.spans(size) if size is not None else ()
        if not spans:
            # Send the whole blob. Either the upstream does not state its size, so the mirror could not write
            # Content-Range, or the requested parts together are longer than the blob.
            await opened.aclose()
            return await self.open(stack, access, replace(query, ranges=()))
        base = described(query.digest, answer.metadata) if answer else BlobAnswer(query.digest, BLOB_MEDIA_TYPE, size)
        pieces = self._of_groups(access, query.digest, grouped(spans), answer, opened)
        return replace(base, size=size, spans=spans, pieces=pieces)

    def _from_whole(
        self, access: PullAccess, query: BlobQuery, answer: UpstreamResponse, opened: AsyncExitStack
    ) -> BlobAnswer:
        """The requested parts of a response with the whole blob. Clients that resume accept only a 206, also if the
        upstream ignores ranges.
        """
        base, size = described(query.digest, answer.metadata), answer.metadata.size
        spans = query.spans(size) if size is not None else ()
        fresh = self._continued(access, query.digest, Span(0, END_UNKNOWN if size is None else size), answer, opened)
        pieces = self._held_back(access, DigestCheck(query.digest), fresh)
        if not spans or any(before.stop > after.start for before, after in pairwise(spans)):
            return replace(base, pieces=pieces)  # one pass over the whole blob cannot deliver parts out of order
        return replace(base, spans=spans, pieces=_picked(_cut(pieces, spans[-1].stop), 0, spans))

    def _part(
        self, access: PullAccess, query: BlobQuery, answer: UpstreamResponse, span: Span, opened: AsyncExitStack
    ) -> BlobAnswer:
        """The requested part, from a response with only these bytes."""
        metadata, asked = answer.metadata, query.first_range
        wrong_size = metadata.size not in {None, span.length}
        if asked is None or wrong_size or not asked.is_answered_by(span, metadata.whole_size):
            raise UpstreamBroken(_OTHER_RANGE)
        pieces = self._continued(access, query.digest, span, answer, opened)
        if span.start == 0 and (span.stop == metadata.whole_size or asked.last is None):
            pieces = self._held_back(access, DigestCheck(query.digest), pieces)
        return replace(described(query.digest, metadata), spans=(span,), pieces=pieces)

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
            span = first.metadata.span if first else None
            begun = first if span and span.start <= wanted.start and wanted.stop <= span.stop else None
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
        self, access: PullAccess, digest: Digest, begun: OpenFile | FirstBytes | None, wanted: Span, total: int | None
    ) -> AsyncIterator[Bytes]:
        """The wanted bytes of a blob of which the client has received a beginning or a part.

        `begun` has the first `wanted.start` bytes, which the client has received, and `total` is the length that was
        promised. The digest is verified over those bytes and all new ones, so that an old beginning and a new rest that
        do not belong together never form a complete body. Without `begun`, the client wants only a part, as from any
        registry.
        """
        async with AsyncExitStack() as stack:
            if begun is None:
                async for piece in self._continued(access, digest, wanted, None, stack):
                    yield piece
                return
            check = DigestCheck(digest)
            while check.size < wanted.start:
                known = await begun.read(check.size, min(check.size + _REREAD_BYTES, wanted.start))
                if not known:
                    raise UpstreamBroken("the mirror cannot read again the part of the blob that it delivered")
                check.update(known)
            rest = Span(wanted.start, total or END_UNKNOWN)
            pieces = self._held_back(access, check, self._continued(access, digest, rest, None, stack))
            async for piece in _cut(pieces, wanted.length):
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

    async def _continued(
        self, access: PullAccess, digest: Digest, wanted: Span, answer: UpstreamResponse | None, opened: AsyncExitStack
    ) -> AsyncIterator[Bytes]:
        """The wanted bytes, first from `answer`; to the end of the blob if they stop at END_UNKNOWN. If the upstream
        breaks off, the rest is requested again. Raises the fault of the last retry.

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
                    rest = ByteRange(position, None if wanted.stop == END_UNKNOWN else wanted.stop - 1)
                    answer = await self._opened(opened, access, digest, None if rest == _WHOLE else rest)
                    if not _is_rest(answer.metadata, Span(position, wanted.stop), total):
                        raise UpstreamContentChanged(_OTHER_RANGE)
                async for piece in self._pieces(answer, Span(position, wanted.stop)):
                    position += len(piece)
                    yield piece
                if position >= wanted.stop or wanted.stop == END_UNKNOWN:
                    return
                raise UpstreamBroken("the upstream stopped sending the blob before its end")
            except UpstreamUnavailable as fault:
                await opened.aclose()
                answer = None
                await retries.wait(fault, has_progressed=position > before)
                self._events.emit(DownloadResumed(access.source.upstream.url, str(digest), one_line(fault.message)))

    async def _held_back(
        self, access: PullAccess, check: DigestCheck, pieces: AsyncIterator[Bytes]
    ) -> AsyncIterator[Bytes]:
        """The pieces; the last one only after the digest has been verified."""
        held: Bytes = b""
        async for piece in pieces:
            check.update(piece)
            if held:
                yield held
            held = piece
        if not check.holds:
            source = access.source
            self._events.emit(DigestMismatch(source.upstream.url, str(source.repository), str(check.promised)))
            raise UpstreamBroken("the upstream sent a blob that does not match its digest")
        if held:
            yield held

    async def _pieces(self, answer: UpstreamResponse, wanted: Span) -> AsyncIterator[Bytes]:
        """The wanted bytes of a response. A response with no other bytes is read to its end, so that its connection can
        be reused.
        """
        metadata = answer.metadata
        position = metadata.span.start if metadata.span else 0
        has_others = position != wanted.start or metadata.size != wanted.length
        async for piece in answer.pieces():
            part = piece[max(0, wanted.start - position) : max(0, wanted.stop - position)] if has_others else piece
            position += len(piece)
            if part:
                self._events.emit(BytesFetched(len(part)))
                yield part
            if has_others and position >= wanted.stop:
                return


def _is_rest(metadata: ResponseMetadata, wanted: Span, total: int | None) -> bool:
    """Whether the response to a repeated request continues the first response. `total`: the size of the blob in the
    first response.
    """
    span, size = metadata.span, metadata.whole_size
    if span is None:
        return wanted.start == 0 or wanted.stop == END_UNKNOWN or (metadata.size or 0) >= wanted.stop
    return (
        span.start == wanted.start
        and wanted.stop in {span.stop, END_UNKNOWN}
        and (total is None or size in {None, total})
    )


async def _picked(pieces: AsyncIterator[Bytes], start: int, spans: Sequence[Span]) -> AsyncIterator[Bytes]:
    """The bytes of ascending spans, from a stream that begins at `start`."""
    position, left = start, list(spans)
    async for piece in pieces:
        stop = position + len(piece)
        while left and left[0].start < stop:
            if wanted := piece[max(0, left[0].start - position) : left[0].stop - position]:
                yield wanted
            if left[0].stop > stop:
                break
            left.pop(0)
        position = stop


async def _cut(pieces: AsyncIterator[Bytes], count: int) -> AsyncIterator[Bytes]:
    """The first `count` bytes. The stream is not read further."""
    async for piece in pieces:
        yield piece[:count]
        count -= len(piece)
        if count <= 0:
            return
