"""FetchBlob: downloads a blob from its upstream into the cache, or follows another process that downloads it."""

import asyncio
from contextlib import AsyncExitStack
from functools import partial

from application.access.access_request import PullAccess
from application.access.provenance import Provenance
from application.access.read_permission import ReadPermissions
from application.blobs.download import Download, PartialBlobLost
from application.blobs.retries import Retries
from application.blobs.write_batches import WriteBatches
from application.concurrency import BackgroundTasks
from application.eviction import Eviction
from application.ports.content import ContentStore, OpenFile, PartialBlob, StorageFull, StorageRefused
from application.ports.lease import DownloadLease, DownloadLeases, FollowedPartialBlob
from application.ports.telemetry import EventSink
from application.ports.upstream import Resource, ResponseMetadata, UpstreamRegistry, UpstreamRequest
from domain.byte_ranges import ByteRange
from domain.documents import one_line
from domain.errors import (
    ContentUnknown,
    Denied,
    RangeUnsatisfiable,
    UpstreamBroken,
    UpstreamChallenged,
    UpstreamContentChanged,
    UpstreamUnavailable,
)
from domain.events import BytesFetched, DigestMismatch, DownloadResumed, DownloadStarted
from domain.ports import Clock
from domain.records import ContentKind, ContentLocation
from domain.upstreams import Source

_LOOK_SECONDS = (0.002, 0.02)
"""How often the partial blob of another process is checked: while it grows, and while it does not."""
_CHANGED = "the upstream sent a different beginning of the blob than before"
_SILENCE_SECONDS = 0.25
"""After this time without growth, the process tries to take the lease, in case the other process has ended."""


class FetchBlob:
    """Runs independently of client requests: the client whose request started the download may disconnect."""

    def __init__(
        self,
        store: ContentStore,
        leases: DownloadLeases,
        registry: UpstreamRegistry,
        permissions: ReadPermissions,
        eviction: Eviction,
        provenance: Provenance,
        events: EventSink,
        background: BackgroundTasks,
        retries: int,
        clock: Clock,
    ) -> None:
        """`retries`: how many times in a row an interrupted download is continued without receiving a byte."""
        self._store = store
        self._leases = leases
        self._registry = registry
        self._permissions = permissions
        self._eviction = eviction
        self._provenance = provenance
        self._events = events
        self._background = background
        self._retries = retries
        self._clock = clock

    async def __call__(self, download: Download) -> None:
        """Returns when the blob is whole and verified. Raises the reason if the download ends early."""
        followed: FollowedPartialBlob | None = None
        while not download.is_over:
            # Cached content is used only if it is served for this upstream.
            refetch = not await self._provenance.serves(download.upstream, download.digest)
            lease = await self._leases.lease(download.upstream, download.digest, refetch=refetch)
            if followed and (state := followed.look()).is_verified:
                # The other process has completed the blob since the last check. The lease may be for a new, empty file.
                await self._give_back(lease)
                download.grow(state.size)
                download.complete()
            elif lease is None:
                await self._adopt(download)
            elif download.size and _file_of(lease).identity != download.file.identity:
                await self._give_back(lease)
                # Another file would join an old beginning to a new rest.
                raise PartialBlobLost
            elif isinstance(lease, FollowedPartialBlob):
                if followed and followed.file.identity == lease.file.identity:
                    lease.file.close()  # the same partial blob, whose process is only silent
                else:
                    download.read_from(lease.file)
                    followed = lease
                download.begin(None)
                await self._follow(download, followed)
            else:
                download.read_from(lease.partial_blob.file)
                await self._fetch(download, lease)

    # --- the upstream sends the blob to this process ---

    async def _fetch(self, download: Download, lease: DownloadLease) -> None:
        """Receive, verify and commit the blob, and end its lease."""
        partial_blob = lease.partial_blob
        download.space_until = partial_blob.size
        # For the bytes of an earlier download, it is unknown which callers the upstream sent them to.
        download.is_public = not partial_blob.size
        download.grow(partial_blob.size)
        self._events.emit(DownloadStarted())
        try:
            source = await self._receive_all(download, partial_blob)
            size = partial_blob.size
            is_right = await partial_blob.commit()
        except BaseException as error:
            # The next download continues from here, unless the bytes are useless.
            keep = partial_blob.size > 0 and not isinstance(error, UpstreamContentChanged | StorageRefused)
            await asyncio.shield(lease.release(keep=keep))
            raise
        finally:
            self._eviction.reserve(download.upstream, download.digest, 0)
        if not is_right:
            self._events.emit(DigestMismatch(source.upstream.url, str(source.repository), str(download.digest)))
            raise UpstreamBroken("the upstream sent a blob that does not match its digest")
        self._provenance.sent(download.upstream, download.digest, is_public=download.is_public)
        download.complete()
        # Not awaited, because readers are waiting. BackgroundTasks completes it even if the service stops now.
        self._background.start(self._eviction.added(download.digest, size))

    async def _receive_all(self, download: Download, partial_blob: PartialBlob) -> Source:
        """Receive the blob to its end. Requests the rest again if the upstream breaks off or refuses a caller. Returns
        the repository that the last response came from.
        """
        retries = Retries(self._retries, self._clock)
        accesses = iter(download.accesses)  # accesses that are offered meanwhile are at the end of the list
        access = next(accesses)
        while True:
            before = partial_blob.size
            try:
                await self._receive(download, partial_blob, access)
                if download.total is not None and partial_blob.size != download.total:
                    raise UpstreamBroken("the upstream stopped sending the blob before its end")
            except (UpstreamChallenged, Denied, ContentUnknown) as refused:
                await self._permissions.refused(access, _location(access, download), refused)
                # The access of another reader may still be valid: a token may expire while a large blob is downloaded.
                if not download.has_begun or not (other := next(accesses, None)):
                    raise
                access, reason = other, refused.message
            except UpstreamUnavailable as fault:
                if not download.has_begun:
                    raise
                await retries.wait(fault, has_progressed=partial_blob.size > before)
                reason = fault.message
            else:
                return access.source
            self._events.emit(DownloadResumed(download.upstream.url, str(download.digest), one_line(reason)))

    async def _receive(self, download: Download, partial_blob: PartialBlob, access: PullAccess) -> None:
        """Receive one response of the upstream, and write what follows the end of the partial blob."""
        known = partial_blob.size
        resource, rest = Resource.blob(access.source, download.digest), ByteRange(known, None) if known else None
        request = UpstreamRequest(resource, access.credentials, byte_range=rest)
        batches = WriteBatches(partial_blob, self._eviction.make_space, partial(self._grown, download, partial_blob))
        try:
            async with self._registry.open(request) as answer, AsyncExitStack() as stack:
                stack.push_async_callback(batches.finish)  # also after an interruption: the received bytes are kept
                position = self._start_of_body(download, access, answer.metadata, known)
                async for piece in answer.pieces():
                    self._events.emit(BytesFetched(len(piece)))
                    repeated = piece[: max(0, known - position)]
                    if repeated and not await partial_blob.holds(position, repeated):
                        # The old beginning and the new rest would not match the digest, and readers have received the
                        # old beginning.
                        raise UpstreamContentChanged(_CHANGED)
                    position += len(piece)
                    if (missing := position - download.space_until) > 0:
                        # Space is made as bytes arrive, so a declared size alone evicts nothing.
                        most = None if download.total is None else download.total - download.space_until
                        download.space_until += await self._eviction.make_space_in_partial_blob(
                            download.upstream, download.digest, missing, most
                        )
                    if fresh := piece[len(repeated) :]:
                        await batches.add(fresh)
        except RangeUnsatisfiable as nothing_left:
            if not known:
                raise
            if nothing_left.size not in {None, known}:
                raise UpstreamContentChanged(_CHANGED) from None

    def _start_of_body(self, download: Download, access: PullAccess, metadata: ResponseMetadata, asked: int) -> int:
        """The offset in the blob at which the body begins: the requested offset (verified), or 0 if the upstream
        ignores ranges.
        """
        span = metadata.span
        total = metadata.size if span is None else metadata.whole_size
        if span is not None and (span.start != asked or total not in {None, span.stop}):
            raise UpstreamBroken("the upstream sent a different byte range than the mirror requested")
        if download.total is not None and total not in {None, download.total}:
            raise UpstreamContentChanged(_CHANGED)
        self._permissions.record(access, _location(access, download), metadata)
        download.is_public = download.is_public and self._provenance.is_public(access)
        download.begin(metadata, total)
        if download.total is not None and not self._eviction.can_store(download.total):
            raise StorageFull("the blob is larger than the part of the cache for running downloads")
        return 0 if span is None else asked

    def _grown(self, download: Download, partial_blob: PartialBlob) -> None:
        size = partial_blob.size
        if size != download.size:
            self._eviction.reserve(download.upstream, download.digest, download.space_until - size)
            download.grow(size)

    # --- another process downloads the blob, or has completed it ---

    async def _follow(self, download: Download, partial_blob: FollowedPartialBlob) -> None:
        """Returns when the blob is whole, or when the process that downloads it may have ended."""
        quiet = 0.0
        while quiet < _SILENCE_SECONDS:
            state = partial_blob.look()
            if state.size != download.size:
                download.grow(state.size)
                quiet = 0.0
            if state.is_verified:
                download.complete()
                return
            if state.is_discarded:
                if not download.size:
                    return
                # It was discarded because there was no space, or because it was wrong. A reader that continues alone
                # verifies the whole blob.
                raise PartialBlobLost
            if not download.readers:
                raise UpstreamBroken("no client reads this download any more")
            pause = _LOOK_SECONDS[quiet > _LOOK_SECONDS[1]]
            quiet += pause
            await asyncio.sleep(pause)

    async def _adopt(self, download: Download) -> None:
        """Read the blob from the cache: another process has just completed it."""
        stored = await self._store.open(download.digest)
        if stored is None:
            raise PartialBlobLost  # and it was dropped again at once
        if download.size and stored.file.identity != download.file.identity:
            stored.file.close()
            raise PartialBlobLost
        download.read_from(stored.file)
        download.grow(stored.size)
        download.complete()

    async def _give_back(self, lease: DownloadLease | FollowedPartialBlob | None) -> None:
        if isinstance(lease, FollowedPartialBlob):
            lease.file.close()
        elif lease:
            await lease.release(keep=lease.partial_blob.size > 0)
            lease.partial_blob.file.close()


def _file_of(lease: DownloadLease | FollowedPartialBlob) -> OpenFile:
    return lease.file if isinstance(lease, FollowedPartialBlob) else lease.partial_blob.file


def _location(access: PullAccess, download: Download) -> ContentLocation:
    return ContentLocation(access.source, ContentKind.BLOB, download.digest)
