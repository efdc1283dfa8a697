"""Downloads of blobs: DownloadTask runs one, BlobFetcher receives its bytes from the upstream."""

import asyncio
from collections import deque
from dataclasses import dataclass

from application.access.access_request import PullAccess
from application.access.provenance import Provenance
from application.access.read_permission import ReadPermissions
from application.blobs.download import Download, PartialBlobLost
from application.blobs.retries import Retries
from application.blobs.write_batches import WriteBatches
from application.concurrency import BackgroundTasks
from application.eviction import Eviction
from application.ports.content import ContentStore, StorageFull, StorageRefused
from application.ports.lease import DownloadLease, DownloadLeases, FollowedPartialBlob
from application.ports.telemetry import EventSink
from application.ports.upstream import (
    Resource,
    ResponseMetadata,
    UpstreamRegistry,
    UpstreamRequest,
    UpstreamResponse,
)
from domain.content import ByteRange
from domain.digest import Bytes
from domain.documents import one_line
from domain.errors import (
    ContentUnknown,
    Denied,
    RangeUnsatisfiable,
    RegistryError,
    UpstreamBroken,
    UpstreamChallenged,
    UpstreamUnavailable,
)
from domain.events import BytesFetched, DigestMismatch, DownloadResumed, DownloadStarted
from domain.ports import Clock
from domain.records import ContentKind, ContentLocation


@dataclass(frozen=True)
class DownloadDependencies:
    """What a download needs. `retries`: how many times in a row an interrupted download is continued without receiving
    a byte.
    """

    store: ContentStore
    leases: DownloadLeases
    registry: UpstreamRegistry
    permissions: ReadPermissions
    eviction: Eviction
    provenance: Provenance
    events: EventSink
    background: BackgroundTasks
    retries: int
    clock: Clock


_ACCESS_LOST = (UpstreamChallenged, Denied, ContentUnknown)


class ContentChanged(Exception):
    """The upstream sends different content than before, so the partial blob cannot be completed."""


class _WrongBlob(Exception):
    """The blob arrived completely and does not match its digest. This is not an outage: another request would bring the
    same bytes.
    """


class BlobFetcher:
    """Downloads a blob for the holder of its lease, and ends the lease."""

    def __init__(self, download: Download, lease: DownloadLease, parts: DownloadDependencies) -> None:
        self._download = download
        self._lease = lease
        self._partial_blob = partial_blob = lease.partial_blob
        self._parts = parts
        self._access_index = 0
        self._room_until = partial_blob.size
        """The cache has space for the blob up to this offset."""
        # For the bytes of an earlier download, it is unknown which callers the upstream sent them to.
        self._is_public = not partial_blob.size

    async def run(self) -> None:
        """Returns when the blob is whole. Raises the reason if the download ends early."""
        self._download.grow(self._partial_blob.size)
        self._parts.events.emit(DownloadStarted())
        try:
            await self._until_whole()
        except _WrongBlob:
            # The commit has discarded the partial blob.
            raise UpstreamBroken("the upstream sent a blob that does not match its digest") from None
        except (ContentChanged, StorageRefused):
            await asyncio.shield(self._lease.release(keep=False))
            raise
        except BaseException:
            # The next download continues from here.
            await asyncio.shield(self._lease.release(keep=self._partial_blob.size > 0))
            raise
        finally:
            self._parts.eviction.reserve(self._download.upstream, self._download.digest, 0)

    async def _until_whole(self) -> None:
        retries = Retries(self._parts.retries, self._parts.clock)
        while True:
            before = self._partial_blob.size
            try:
                await self._receive()
            except _ACCESS_LOST as refused:
                await self._next_access(refused)
            except UpstreamUnavailable as fault:
                if self._partial_blob.size > before:
                    retries.progressed()
                if not self._download.has_begun:
                    raise
                await retries.wait(fault)
                self._report_resumed(fault)
            else:
                return

    async def _next_access(self, refused: RegistryError) -> None:
        """Continue with the access of the next reader, which may still be valid: a token may expire during the download
        of a large blob.
        """
        access = self._download.accesses[self._access_index]
        await self._parts.permissions.refused(access, self._location(access), refused)
        if not self._download.has_begun or self._access_index + 1 >= len(self._download.accesses):
            raise refused
        self._access_index += 1
        self._report_resumed(refused)

    def _report_resumed(self, reason: RegistryError) -> None:
        upstream = self._download.accesses[self._access_index].source.upstream.url
        self._parts.events.emit(DownloadResumed(upstream, str(self._download.digest), one_line(reason.message)))

    async def _receive(self) -> None:
        """Receive one response of the upstream. If the blob is whole after it, verify and commit it."""
        download, partial_blob, offset = self._download, self._partial_blob, self._partial_blob.size
        access = download.accesses[self._access_index]
        asked = ByteRange(offset, None) if offset else None
        fetch = UpstreamRequest(Resource.blob(access.source, download.digest), access.credentials, byte_range=asked)
        try:
            async with self._parts.registry.open(fetch) as answer:
                position = await self._body_offset(access, answer.metadata, offset)
                await self._write_body(answer, position)
        except RangeUnsatisfiable as nothing_left:
            if not offset:
                raise
            if nothing_left.size not in {None, offset}:
                raise ContentChanged from None
        if download.total is not None and partial_blob.size != download.total:
            raise UpstreamBroken("the upstream stopped sending the blob before its end")
        size = partial_blob.size
        if not await partial_blob.commit():
            source = access.source
            self._parts.events.emit(DigestMismatch(source.upstream.url, str(source.repository), str(download.digest)))
            raise _WrongBlob
        self._parts.provenance.sent(download.upstream, download.digest, is_public=self._is_public)
        download.complete()
        # Not awaited, because readers are waiting. BackgroundTasks completes it even if the service stops now.
        self._parts.background.start(self._parts.eviction.added(download.digest, size))

    async def _body_offset(self, access: PullAccess, metadata: ResponseMetadata, offset: int) -> int:
        """The offset in the blob at which the body begins: the requested offset (verified), or 0 if the upstream
        ignores ranges.
        """
        download, span = self._download, metadata.span
        total = metadata.size if span is None else metadata.whole_size
        if span is not None and (span.start != offset or total not in {None, span.stop}):
            raise UpstreamBroken("the upstream sent a different byte range than the mirror requested")
        if download.total is not None and total not in {None, download.total}:
            raise ContentChanged
        self._parts.permissions.record(access, self._location(access), metadata)
        self._is_public = self._is_public and self._parts.provenance.is_public(access)
        download.begin(metadata, total)
        if download.total is not None and not self._parts.eviction.can_store(download.total):
            raise StorageFull("the blob is larger than the part of the cache for running downloads")
        return 0 if span is None else offset

    async def _write_body(self, answer: UpstreamResponse, position: int) -> None:
        batches = WriteBatches(self._partial_blob, self._write, self._grown)
        known = self._partial_blob.size
        try:
            async for piece in answer.pieces():
                self._parts.events.emit(BytesFetched(len(piece)))
                repeated = piece[: max(0, known - position)]
                if repeated and not await self._partial_blob.holds(position, repeated):
                    # The old beginning and the new rest would not match the digest, and readers have received the old
                    # beginning.
                    raise ContentChanged
                position += len(piece)
                if fresh := piece[len(repeated) :]:
                    await self._require_space(position)
                    await batches.add(fresh)
        finally:
            await batches.finish()  # also after an interruption: the received bytes are kept

    async def _require_space(self, end: int) -> None:
        """Make space up to this offset of the blob and one step beyond it. Space is made as bytes arrive, so a declared
        size alone evicts nothing.
        """
        download, missing = self._download, end - self._room_until
        if missing > 0:
            most = None if download.total is None else download.total - self._room_until
            self._room_until += await self._parts.eviction.make_space_in_partial_blob(
                download.upstream, download.digest, missing, most
            )

    async def _write(self, pieces: deque[Bytes]) -> None:
        try:
            await self._partial_blob.append(pieces)
        except StorageFull:
            await self._parts.eviction.make_space(sum(map(len, pieces)))
            await self._partial_blob.append(pieces)

    def _grown(self) -> None:
        download, size = self._download, self._partial_blob.size
        if size == download.size:
            return
        self._parts.eviction.reserve(download.upstream, download.digest, self._room_until - size)
        download.grow(size)

    def _location(self, access: PullAccess) -> ContentLocation:
        return ContentLocation(access.source, ContentKind.BLOB, self._download.digest)


_LOOK_SECONDS = (0.002, 0.02)
"""How often the partial blob of another process is checked: while it grows, and while it does not."""
_SILENCE_SECONDS = 0.25
"""After this time without growth, the process tries to take the lease, in case the other process has ended."""


class DownloadTask:
    """Runs independently of client requests: the client whose request started it may disconnect."""

    def __init__(self, download: Download, parts: DownloadDependencies) -> None:
        self._download = download
        self._parts = parts

    async def run(self) -> bool:
        """Returns when the download is over. True: the content of the upstream has changed during the download, which
        must start again.
        """
        try:
            await self._run()
        except ContentChanged:
            self._download.fail(UpstreamBroken("the upstream sent a different beginning of the blob than before"))
            return True
        except Exception as error:  # noqa: BLE001 - the readers of the download receive every failure
            self._download.fail(error)
        except BaseException:
            self._download.fail(UpstreamBroken("the mirror stopped fetching this blob"))
            raise
        return False

    async def _run(self) -> None:
        download = self._download
        followed: FollowedPartialBlob | None = None
        while not download.is_over:
            # Cached content is used only if it is served for this upstream.
            refetch = not await self._parts.provenance.serves(download.upstream, download.digest)
            lease = await self._parts.leases.lease(download.upstream, download.digest, refetch=refetch)
            if followed and await self._has_become_whole(followed, lease):
                return
            if lease is None:
                await self._adopt()
                return
            partial_blob = lease if isinstance(lease, FollowedPartialBlob) else lease.partial_blob
            if download.size and partial_blob.file.identity != download.file.identity:
                await self._give_back(lease)
                # Another file would join an old beginning to a new rest.
                raise PartialBlobLost
            if not isinstance(lease, FollowedPartialBlob):
                download.read_from(lease.partial_blob.file)
                await BlobFetcher(download, lease, self._parts).run()
                return
            if followed and followed.file.identity == lease.file.identity:
                lease.file.close()  # the same partial blob, whose process is only silent
            else:
                download.read_from(lease.file)
                followed = lease
            download.begin(None)
            await self._follow(followed)

    async def _has_become_whole(
        self, followed: FollowedPartialBlob, lease: DownloadLease | FollowedPartialBlob | None
    ) -> bool:
        """Whether the other process has completed the blob since the last check. The lease may then be for a new, empty
        file of the same name, and is released.
        """
        state = followed.look()
        if not state.is_verified:
            return False
        if lease is not None:
            await self._give_back(lease)
        self._download.grow(state.size)
        self._download.complete()
        return True

    async def _adopt(self) -> None:
        """Read the blob from the cache: another process has just completed it."""
        stored = await self._parts.store.open(self._download.digest)
        if stored is None:
            raise PartialBlobLost  # and it was dropped again at once
        if self._download.size and stored.file.identity != self._download.file.identity:
            stored.file.close()
            raise PartialBlobLost  # as above
        self._download.read_from(stored.file)
        self._download.grow(stored.size)
        self._download.complete()

    async def _give_back(self, lease: DownloadLease | FollowedPartialBlob) -> None:
        if isinstance(lease, FollowedPartialBlob):
            lease.file.close()
        else:
            await lease.release(keep=lease.partial_blob.size > 0)
            lease.partial_blob.file.close()

    async def _follow(self, partial_blob: FollowedPartialBlob) -> None:
        """Returns when the blob is whole, or when the process that downloads it may have ended."""
        download, quiet = self._download, 0.0
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
