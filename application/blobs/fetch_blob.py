"""FetchBlob: downloads a blob from its upstream into the cache, or follows another process that downloads it."""

import asyncio
from contextlib import suppress
from itertools import islice
from typing import NoReturn

from application.access.provenance import Provenance
from application.access.read_permission import ReadPermissions
from application.blobs.download import Download, PartialBlobLost
from application.blobs.origins import OriginLost, UpstreamOrigin
from application.blobs.retries import Retries
from application.blobs.shared_download import NoSharing, SharedDownload, SharesDownloads
from application.blobs.transfer import Transfer
from application.concurrency import BackgroundTasks
from application.eviction import Eviction
from application.ports.content import ContentStore, OpenFile, StorageRefused
from application.ports.lease import WHOLE, DownloadLease, DownloadLeases, FollowedPartialBlob
from application.ports.telemetry import EventSink
from application.ports.upstream import UpstreamRegistry
from domain.download_policy import DownloadPolicy
from domain.errors import UpstreamBroken, UpstreamContentChanged
from domain.events import DigestMismatch
from domain.ports import Clock
from domain.span_set import SpanSet

_LOOK_SECONDS = (0.002, 0.02)
"""How often the partial blob of another process is checked: while it grows, and while it does not."""
_TOLD = 32
"""Of the bytes that readers need, this many spans are told to the process that downloads."""
_SILENCE_SECONDS = 0.1
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
        replicas: SharesDownloads,
        policy: DownloadPolicy,
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
        self._replicas = replicas
        self._policy = policy
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
                download.grow(state.present)
                download.complete()
            elif lease is None:
                await self._adopt(download)
            elif download.present and _file_of(lease).identity != download.file.identity:
                await self._give_back(lease)
                # Another file would join an old beginning to a new rest.
                raise PartialBlobLost
            elif isinstance(lease, FollowedPartialBlob):
                if followed and followed.file.identity == lease.file.identity:
                    lease.file.close()  # the same partial blob, whose process is only silent
                else:
                    download.read_from(lease.file)
                    followed = lease
                download.begin(None, followed.look().total)
                await self._follow(download, followed)
            else:
                download.read_from(lease.partial_blob.file)
                await self._fetch(download, lease)

    # --- this process receives the blob, from the upstream or from the shared store ---

    async def _fetch(self, download: Download, lease: DownloadLease) -> None:
        """Receive, verify and commit the blob, and end its lease."""
        sharing, partial_blob = self._replicas.sharing(download), lease.partial_blob
        # For the bytes of an earlier download, it is unknown which callers the upstream sent them to.
        download.is_public = not partial_blob.present.length
        download.grow(partial_blob.present)
        try:
            transfer = await self._receive(download, lease, sharing)
            is_right = await partial_blob.commit()
        except BaseException as error:
            # The next download continues from here, unless the bytes are useless.
            is_wrong = isinstance(error, UpstreamContentChanged)
            keep = bool(partial_blob.present) and not is_wrong and not isinstance(error, StorageRefused)
            await asyncio.shield(lease.release(keep=keep))
            if is_wrong:
                await sharing.discard()
            raise
        finally:
            sharing.end()
            self._eviction.reserve(download.upstream, download.digest, 0)
        if not is_right:
            await sharing.discard()
            self._refuse(download, transfer, sharing)
        self._provenance.sent(download.upstream, download.digest, is_public=download.is_public)
        download.grow(partial_blob.present)
        download.complete()
        # Not awaited, because readers are waiting. BackgroundTasks completes it even if the service stops now.
        self._background.start(self._eviction.added(download.digest, partial_blob.present.length))

    async def _receive(self, download: Download, lease: DownloadLease, sharing: SharedDownload | NoSharing) -> Transfer:
        """The transfer that received the last missing bytes."""
        while True:
            origin = await sharing.next_origin()
            transfer = Transfer(
                download,
                lease,
                origin or UpstreamOrigin(self._registry, self._policy.connections_to(download.upstream)),
                self._permissions,
                self._eviction,
                self._provenance,
                self._events,
                Retries(self._retries, self._clock),
                self._clock,
            )
            with suppress(OriginLost):
                await transfer.run()
                return transfer

    def _refuse(self, download: Download, transfer: Transfer, sharing: SharedDownload | NoSharing) -> NoReturn:
        """The digest of the received blob is wrong. Raises the reason."""
        source = transfer.source
        self._events.emit(DigestMismatch(source.upstream.url, str(source.repository), str(download.digest)))
        if transfer.is_divided or sharing.is_used:
            # It is fetched again from the upstream alone, over a single connection: an upstream whose ranges are wrong
            # must not make an image unpullable.
            raise UpstreamContentChanged("the parts of the blob do not match its digest")
        raise UpstreamBroken("the upstream sent a blob that does not match its digest")

    # --- another process downloads the blob, or has completed it ---

    async def _follow(self, download: Download, partial_blob: FollowedPartialBlob) -> None:
        """Returns when the blob is whole, or when the process that downloads it may have ended."""
        quiet = 0.0
        wanted: SpanSet | None = None  # not told yet in this call, but perhaps in an earlier one
        while quiet < _SILENCE_SECONDS:
            state = partial_blob.look()
            download.expect(state.total)
            if state.present != download.present:
                download.grow(state.present)
                quiet = 0.0
            if state.is_verified:
                download.complete()
                return
            if state.is_discarded:
                if not download.present:
                    return
                # It was discarded because there was no space, or because it was wrong. A reader that continues alone
                # verifies the whole blob.
                raise PartialBlobLost
            if not download.readers:
                unwanted = UpstreamBroken("no client reads this download any more")
                download.fail(unwanted)  # at once, so that the next reader starts a new download
                raise unwanted
            needs = SpanSet.of(islice(download.needs(), _TOLD))
            if (needs := needs.plus(WHOLE) if download.is_whole_wanted else needs) != wanted:
                wanted = needs
                partial_blob.want(wanted)
            pause = _LOOK_SECONDS[quiet > _LOOK_SECONDS[1]]
            quiet += pause
            await asyncio.sleep(pause)

    async def _adopt(self, download: Download) -> None:
        """Read the blob from the cache: another process has just completed it."""
        stored = await self._store.open(download.digest)
        if stored is None:
            raise PartialBlobLost  # and it was dropped again at once
        if download.present and stored.file.identity != download.file.identity:
            stored.file.close()
            raise PartialBlobLost
        download.read_from(stored.file)
        download.grow(SpanSet.up_to(stored.size))
        download.complete()

    async def _give_back(self, lease: DownloadLease | FollowedPartialBlob | None) -> None:
        if isinstance(lease, FollowedPartialBlob):
            lease.file.close()
        elif lease:
            await lease.release(keep=bool(lease.partial_blob.present))
            lease.partial_blob.file.close()


def _file_of(lease: DownloadLease | FollowedPartialBlob) -> OpenFile:
    return lease.file if isinstance(lease, FollowedPartialBlob) else lease.partial_blob.file
