"""PullBlob: delivers one blob, whole or in part: from the cache, from a running download, or from the upstream."""

from collections.abc import AsyncIterator, Sequence
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
from application.ports.telemetry import EventSink
from application.ports.upstream import Resource, ResponseMetadata, UpstreamRequest
from domain.content import ByteRange, Span
from domain.digest import Digest
from domain.errors import RegistryError, UpstreamOutage
from domain.events import ContentDamaged, ContentRequested, DownloadJoined
from domain.records import ContentKind, ContentLocation

_REMEMBERED = 4096
_WHOLE = ByteRange(0, None)


class PullBlob:
    """Every caller needs a read permission of its own, also for a download that another caller started."""

    def __init__(
        self,
        authorize: Authorize,
        permissions: ReadPermissions,
        store: ContentStore,
        provenance: Provenance,
        eviction: Eviction,
        downloads: RunningDownloads,
        passthrough: Passthrough,
        events: EventSink,
    ) -> None:
        self._authorize = authorize
        self._permissions = permissions
        self._store = store
        self._provenance = provenance
        self._eviction = eviction
        self._downloads = downloads
        self._passthrough = passthrough
        self._events = events
        self._checks = SingleFlight()
        self._intact: LruCache[Digest, object] = LruCache(_REMEMBERED)

    @asynccontextmanager
    async def open(self, caller: Caller, query: BlobQuery) -> AsyncIterator[BlobAnswer]:
        """The blob, open until the context is left.

        Raises Unauthorized, Denied, ContentUnknown, RangeUnsatisfiable or UpstreamFault. While the pieces are read,
        raises only UpstreamFault.
        """
        async with self._authorize.repository(caller, query.name, query.hint) as access, AsyncExitStack() as stack:
            if query.head or query.known:
                yield await self._described(access, query)
            else:
                yield await self._delivered(stack, access, query)

    async def _described(self, access: PullAccess, query: BlobQuery) -> BlobAnswer:
        permission = await self._permissions.require(access, _location(access, query))
        answer = linked(permission.link, permission.warnings)
        if query.known or answer.size or query.digest.is_of_empty_content:
            return answer
        # A HEAD to the upstream may have proved the permission without giving a length.
        if stored := await self._stored(access, query.digest):
            stored.file.close()
            self._eviction.used(query.digest)
            return replace(answer, size=stored.size)
        return described(query.digest, await self._passthrough.metadata(access, query.digest))

    async def _delivered(self, stack: AsyncExitStack, access: PullAccess, query: BlobQuery) -> BlobAnswer:
        stored = await self._stored(access, query.digest)
        if stored is not None:
            stack.callback(stored.file.close)
            permission = await self._permissions.require(
                access, _location(access, query), self._as_fetched(access, query)
            )
            if permission.link.size in {None, 0, stored.size} or await self._is_intact(query.digest, stored):
                self._events.emit(ContentRequested(ContentKind.BLOB, is_hit=True))
                return self._from_file(query, permission, stored)
            await self._damaged(query.digest)
        elif await self._permissions.is_asked_first(access):
            await self._permissions.require(access, _location(access, query))
        self._events.emit(ContentRequested(ContentKind.BLOB, is_hit=False))
        if self._downloads.is_unfit(access.source.upstream, query.digest):
            return await self._passthrough.open(stack, access, query)
        if not query.is_partial or await self._is_covered_by_download(access, query):
            return await self._from_download(stack, access, query)
        answer = await self._passthrough.open(stack, access, query)
        asked = sum(span.length for span in answer.spans) or (answer.span.length if answer.span else answer.size or 0)
        self._downloads.asked_in_part(access, query.digest, asked, answer.size)
        return answer

    def _as_fetched(self, access: PullAccess, query: BlobQuery) -> UpstreamRequest:
        """The first upstream request for a blob that is not cached."""
        asked = query.first_range
        if query.byte_range == _WHOLE and not self._downloads.is_unfit(access.source.upstream, query.digest):
            asked = None  # the whole blob is downloaded into the cache
        return UpstreamRequest(Resource.blob(access.source, query.digest), access.credentials, byte_range=asked)

    # --- cached ---

    async def _stored(self, access: PullAccess, digest: Digest) -> StoredContent | None:
        """The cached content, open, if it is served for this upstream. The caller of the method closes it."""
        if not await self._provenance.serves(access.source.upstream, digest):
            return None
        return await self._store.open(digest)

    def _from_file(self, query: BlobQuery, permission: ReadPermission, stored: StoredContent) -> BlobAnswer:
        self._eviction.used(query.digest)
        spans = query.spans(stored.size)
        parts = [ContentPart(stored.file, span.start, span.stop) for span in spans or (Span(0, stored.size),)]
        return replace(
            linked(permission.link, permission.warnings),
            size=stored.size,
            pieces=_each(parts),
            damaged=lambda: self._damaged(query.digest),
        ).in_part(spans)

    async def _is_intact(self, digest: Digest, stored: StoredContent) -> bool:
        """Whether a cached file is right although an upstream states another size. Either a power cut has shortened the
        file, or the stated size is wrong. Only the digest decides: otherwise an upstream could have any shared content
        removed. A file that was found right is not hashed again.
        """
        if self._intact.get(digest) == stored.file.identity:
            return True
        try:
            is_right = await self._checks.do(digest, lambda: self._eviction.is_right(digest))
        except StorageRefused:
            return False  # content that cannot be read is fetched again
        if is_right:
            self._intact.put(digest, stored.file.identity)
        return bool(is_right)

    async def _damaged(self, digest: Digest) -> None:
        self._events.emit(ContentDamaged(str(digest)))
        await self._eviction.drop(digest)

    # --- while it is downloaded ---

    async def _is_covered_by_download(self, access: PullAccess, query: BlobQuery) -> bool:
        """Whether the download can deliver these parts: everything from the start, or bytes that it has received."""
        asked = query.byte_range
        if asked == _WHOLE:
            return True
        download = self._downloads.running(access.source.upstream, query.digest)
        if download is None or download.total is None:
            return False
        # The permission comes first: even the size of the blob is for permitted callers only.
        await self._permissions.require(access, _location(access, query), self._as_fetched(access, query))
        spans = query.spans(download.total)
        if all(span.stop <= download.readable for span in spans):
            return True
        # A client that resumes waits for the download; a client that wants a part far ahead does not.
        return asked is not None and asked.last is None and spans[0].start <= download.readable

    async def _from_download(self, stack: AsyncExitStack, access: PullAccess, query: BlobQuery) -> BlobAnswer:
        try:
            download, metadata, permission = await self._join_download(stack, access, query)
        except (StorageRefused, PartialBlobLost):
            return await self._passthrough.open(stack, access, query)
        download.offer(access)
        base = (
            linked(permission.link, permission.warnings)
            if permission
            else described(query.digest, metadata or ResponseMetadata())
        )
        download.expect(base.size)
        size = download.total
        spans = query.spans(size) if size is not None else ()
        return replace(base, size=size, pieces=self._pieces(download, access, spans)).in_part(spans)

    async def _join_download(
        self, stack: AsyncExitStack, access: PullAccess, query: BlobQuery
    ) -> tuple[Download, ResponseMetadata | None, ReadPermission | None]:
        """A download that has begun; the response of the upstream, if this request caused it; else the read permission
        of the caller. Raises StorageRefused, PartialBlobLost, or the fault of the upstream.
        """
        while True:
            is_own = self._downloads.running(access.source.upstream, query.digest) is None
            download = self._downloads.join(access, query.digest)
            stack.enter_context(download.reading())
            if not is_own:
                self._events.emit(DownloadJoined())
            try:
                metadata = await download.begun()
            except RegistryError as error:
                # A refusal of another caller says nothing about this one, which asks the upstream itself. An outage is
                # shared: otherwise each waiting caller would wait as long again, one after the other.
                if is_own or isinstance(error, UpstreamOutage):
                    raise
                await self._permissions.require(access, _location(access, query), self._as_fetched(access, query))
                continue
            # The upstream has answered only the request that began the download. All other requests need a permission,
            # also those of the same caller, whose permission may have ended since.
            permission = (
                None
                if is_own and metadata
                else await self._permissions.require(access, _location(access, query), self._as_fetched(access, query))
            )
            if is_own or not isinstance(download.failure, RegistryError):
                return download, metadata, permission

    async def _pieces(self, download: Download, access: PullAccess, spans: Sequence[Span]) -> AsyncIterator[Piece]:
        """The bytes of each span; of the whole blob if there are no spans."""
        bounds: list[tuple[int, int | None]] = [(span.start, span.stop) for span in spans]
        for start, stop in bounds or [(0, download.total)]:
            position = start
            try:
                async for part in download.parts(start, stop):
                    yield part
                    position = part.stop
            except (StorageRefused, PartialBlobLost):
                # The disk is full, or the downloading process has ended the download. Each reader fetches the rest
                # itself, uncached.
                rest = Span(position, 2**63 if stop is None else stop)
                async for piece in self._passthrough.rest(access, download.digest, download.file, rest, download.total):
                    yield piece


def _location(access: PullAccess, query: BlobQuery) -> ContentLocation:
    return ContentLocation(access.source, ContentKind.BLOB, query.digest)


async def _each(parts: Sequence[ContentPart]) -> AsyncIterator[Piece]:
    for part in parts:
        if part.length:
            yield part
