"""PullBlob: delivers one blob, whole or in part: from the cache, from a running download, or from the upstream."""

from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace

from application.access.access_request import Caller, PullAccess
from application.access.authorize import Authorize
from application.access.provenance import Provenance
from application.access.read_permission import ReadPermission, ReadPermissions
from application.blobs.blob_query import BlobAnswer, BlobQuery, Piece, described, linked
from application.blobs.download import Download, PartialBlobLost
from application.blobs.passthrough import Passthrough
from application.blobs.running_downloads import RunningDownloads
from application.concurrency import LruCache, SingleFlight
from application.eviction import Eviction
from application.ports.content import ContentPart, ContentStore, StorageRefused, StoredContent
from application.ports.telemetry import EventSink, current_record
from application.ports.tracing import current_span
from application.ports.upstream import Resource, ResponseMetadata, UpstreamRequest
from domain.byte_ranges import ByteRange, Span
from domain.digest import Digest
from domain.errors import RangeUnsatisfiable, RegistryError, UpstreamOutage
from domain.events import ContentDamaged, ContentRequested, DownloadJoined
from domain.records import ContentKind, ContentLocation
from domain.span_set import END_UNKNOWN
from domain.upstreams import Upstream

_WHOLE = (ByteRange(0, None),)
_REMEMBERED = 4096


class CachedBlobs:
    """Opens cached blobs, records their use, and removes those that are damaged."""

    def __init__(self, store: ContentStore, provenance: Provenance, eviction: Eviction, events: EventSink) -> None:
        self._store = store
        self._provenance = provenance
        self._eviction = eviction
        self._events = events
        self._checks = SingleFlight()
        self._intact: LruCache[Digest, object] = LruCache(_REMEMBERED)

    async def open(self, upstream: Upstream, digest: Digest) -> StoredContent | None:
        """The cached blob, if it is served for this upstream. The caller of the method closes it."""
        if not await self._provenance.serves(upstream, digest):
            return None
        return await self._store.open(digest)

    def used(self, digest: Digest) -> None:
        """A client receives the blob from the cache."""
        self._eviction.used(digest)

    async def is_intact(self, digest: Digest, stored: StoredContent, stated_size: int | None) -> bool:
        """Whether a cached file is right. `stated_size`: the size that the upstream states; None or 0 if it states
        none.

        If the sizes differ, either a power cut has shortened the file, or the stated size is wrong. Only the digest
        decides: otherwise an upstream could have any shared content removed. A file that was found right is not hashed
        again.
        """
        if stated_size in {None, 0, stored.size} or self._intact.get(digest) == stored.file.identity:
            return True
        try:
            is_right = await self._checks.do(digest, lambda: self._eviction.is_right(digest))
        except StorageRefused:
            return False  # content that cannot be read is fetched again
        if is_right:
            self._intact.put(digest, stored.file.identity)
        return bool(is_right)

    async def drop_damaged(self, digest: Digest) -> None:
        """Remove a blob whose file is damaged, so that it is fetched again."""
        self._events.emit(ContentDamaged(str(digest)))
        await self._eviction.drop(digest)


class PullBlob:
    """Every caller needs a read permission of its own, also for a download that another caller started."""

    def __init__(
        self,
        authorize: Authorize,
        permissions: ReadPermissions,
        cached: CachedBlobs,
        downloads: RunningDownloads,
        passthrough: Passthrough,
        events: EventSink,
    ) -> None:
        self._authorize = authorize
        self._permissions = permissions
        self._cached = cached
        self._downloads = downloads
        self._passthrough = passthrough
        self._events = events

    @asynccontextmanager
    async def open(self, caller: Caller, query: BlobQuery) -> AsyncIterator[BlobAnswer]:
        """The blob, open until the context is left.

        Raises Unauthorized, Denied, ContentUnknown, RangeUnsatisfiable or UpstreamFault. While the pieces are read,
        raises only UpstreamFault.
        """
        async with self._authorize.repository(caller, query.name, query.hint) as access, AsyncExitStack() as stack:
            if query.head or query.known:
                yield await self._described(access, query)
            elif cached := await self._from_cache(stack, access, query):
                yield cached
            elif not self._downloads.can_store(access.source.upstream, query.digest):
                yield await self._passthrough.open(stack, access, query)
            else:
                yield await self._from_download(stack, access, query)

    def _permission(self, access: PullAccess, query: BlobQuery) -> Awaitable[ReadPermission]:
        """The permission of the caller. If the mirror must ask the upstream, it sends the request that it would send
        first if the blob were not cached, so that the request does not show whether the blob is cached.
        """
        asked = query.first_range
        if query.ranges == _WHOLE and self._downloads.can_store(access.source.upstream, query.digest):
            asked = None  # the whole blob is downloaded into the cache
        resource = Resource.blob(access.source, query.digest)
        as_fetched = UpstreamRequest(resource, access.credentials, byte_range=asked)
        return self._permissions.require(access, _location(access, query), as_fetched)

    async def _described(self, access: PullAccess, query: BlobQuery) -> BlobAnswer:
        answer = linked(await self._permissions.require(access, _location(access, query)))
        if query.known or answer.size or query.digest.is_of_empty_content:
            return answer
        # A HEAD to the upstream may have proved the permission without giving a length.
        if stored := await self._cached.open(access.source.upstream, query.digest):
            stored.file.close()
            self._cached.used(query.digest)
            return replace(answer, size=stored.size)
        return described(query.digest, await self._passthrough.metadata(access, query.digest))

    async def _from_cache(self, stack: AsyncExitStack, access: PullAccess, query: BlobQuery) -> BlobAnswer | None:
        """The cached blob. None if it is not cached, or damaged."""
        stored = await self._cached.open(access.source.upstream, query.digest)
        if stored:
            stack.callback(stored.file.close)
            permission = await self._permission(access, query)
            if await self._cached.is_intact(query.digest, stored, permission.link.size):
                self._events.emit(ContentRequested(ContentKind.BLOB, is_hit=True))
                current_record().result = "hit"
                self._cached.used(query.digest)
                spans = query.spans(stored.size)
                parts = [ContentPart(stored.file, span.start, span.stop) for span in spans or [Span(0, stored.size)]]
                return replace(
                    linked(permission),
                    size=stored.size,
                    spans=spans,
                    pieces=_each(parts),
                    damaged=lambda: self._cached.drop_damaged(query.digest),
                )
            await self._cached.drop_damaged(query.digest)
        elif await self._permissions.is_asked_first(access):
            await self._permissions.require(access, _location(access, query))
        self._events.emit(ContentRequested(ContentKind.BLOB, is_hit=False))
        current_record().result = "miss"
        return None

    async def _from_download(self, stack: AsyncExitStack, access: PullAccess, query: BlobQuery) -> BlobAnswer:
        """The blob, or parts of it, from its running download or from a new one."""
        first_range = None if query.ranges == _WHOLE else query.first_range
        while True:
            running = self._downloads.running(access.source.upstream, query.digest)
            is_own = running is None
            download = running or self._downloads.start(access, query.digest, first_range)
            stack.enter_context(download.reading())
            if not is_own:
                self._events.emit(DownloadJoined())
                download.span.link(current_span())
                current_span().link(download.span)
                current_record().result = "joined"
            try:
                metadata = await self._metadata(download, query, is_own=is_own)
            except (StorageRefused, PartialBlobLost):
                return await self._passthrough.open(stack, access, query)
            # The upstream has answered only the request that began the download. All other requests need a permission,
            # also those of the same caller, whose permission may have ended since.
            if is_own and metadata:
                answer = described(query.digest, metadata)
            else:
                answer = linked(await self._permission(access, query))
            if is_own or not isinstance(download.failure, RegistryError):
                break
        download.offer(access)
        download.expect(answer.size)
        if download.total is None and first_range:
            return await self._passthrough.open(stack, access, query)
        return self._answer_from(download, access, query, answer)

    async def _metadata(self, download: Download, query: BlobQuery, *, is_own: bool) -> ResponseMetadata | None:
        """The metadata of the response that began the download; None if there is none."""
        try:
            return await download.begun()
        except RegistryError as error:
            if isinstance(error, RangeUnsatisfiable) and len(query.ranges) > 1:
                raise PartialBlobLost from error  # other ranges may be inside the blob
            # A refusal of another caller says nothing about this one, which asks the upstream itself. An outage is
            # shared: otherwise each waiting caller would wait as long again, one after the other.
            if is_own or isinstance(error, UpstreamOutage):
                raise
        return None

    def _answer_from(self, download: Download, access: PullAccess, query: BlobQuery, answer: BlobAnswer) -> BlobAnswer:
        size = download.total
        spans = query.spans(size) if size is not None else ()
        return replace(answer, size=size, spans=spans, pieces=self._pieces(download, access, query.ranges, spans))

    async def _pieces(
        self, download: Download, access: PullAccess, ranges: Sequence[ByteRange], spans: Sequence[Span]
    ) -> AsyncIterator[Piece]:
        """The bytes of each span; of the whole blob if there are no spans."""
        whole = Span(0, END_UNKNOWN if download.total is None else download.total)
        is_whole = not spans or whole in spans
        # A client that resumes wants the rest of the blob, and not only a part.
        is_part = not is_whole and any(one.first is None or one.last is not None for one in ranges)
        download.is_whole_wanted = download.is_whole_wanted or is_whole
        download.part_requests += not is_whole
        with download.wanting(spans or [whole]) as want:
            try:
                async for part in download.parts(want, is_part=is_part):
                    yield part
            except (StorageRefused, PartialBlobLost):
                # The disk is full, or the downloading process has ended the download. Each reader fetches the rest
                # itself, uncached.
                for rest in want.spans:
                    begun = None if is_part else download.beginning(rest.start)
                    async for piece in self._passthrough.rest(access, download.digest, begun, rest, download.total):
                        yield piece


def _location(access: PullAccess, query: BlobQuery) -> ContentLocation:
    return ContentLocation(access.source, ContentKind.BLOB, query.digest)


async def _each(parts: Sequence[ContentPart]) -> AsyncIterator[Piece]:
    for part in parts:
        if part.length:
            yield part
