"""SharedDownloads: what replicas share of their downloads. NoSharing: each replica downloads for itself."""

import asyncio
from collections.abc import Awaitable, Callable
from collections.abc import Set as AbstractSet
from contextlib import suppress
from dataclasses import replace
from typing import TypeVar

from application.access.provenance import Provenance
from application.blobs.download import Download
from application.blobs.origins import BlobOrigin, GetPart, PartsInMemory, SharedOrigin
from application.blobs.part_publisher import PartPublisher
from application.concurrency import BackgroundTasks
from application.ports.shared import (
    FollowedLease,
    SharedLease,
    SharedLeases,
    SharedPart,
    SharedProgress,
    SharedRecord,
    SharedStore,
    SharedUnavailable,
)
from application.ports.telemetry import EventSink
from domain.events import ContentDamaged, SharedDownloadStarted

T = TypeVar("T")

_UPLOADS = 4
"""Parts of at most 16 MiB that one worker has in memory to write them to the shared store."""
_READS = 4
"""Beyond this number of parts in memory that were read from the shared store, none are read ahead."""


class NoSharing:
    """Takes the place of SharedDownloads, and of SharedDownload, without a shared tier."""

    is_used = False

    def sharing(self, download: Download) -> "NoSharing":  # noqa: ARG002 - as SharedDownloads
        return self

    async def next_origin(self) -> BlobOrigin | None:
        return None

    async def discard(self) -> None:
        pass

    async def finished(self) -> None:
        pass

    async def close(self) -> None:
        pass

    def end(self) -> None:
        pass


class SharedDownloads:
    """Connects downloads with those of other replicas, through the shared store and its leases."""

    def __init__(self, store: SharedStore, leases: SharedLeases, provenance: Provenance, events: EventSink) -> None:
        self.store = store
        self.leases = leases
        self.provenance = provenance
        self.events = events
        self.parts_in_memory = PartsInMemory(_READS)
        self._uploads = asyncio.Semaphore(_UPLOADS)
        self._publishing = BackgroundTasks()

    def sharing(self, download: Download) -> "SharedDownload":
        return SharedDownload(self, download)

    def publish(
        self, download: Download, lease: SharedLease, older: SharedRecord | None, taken: AbstractSet[SharedPart]
    ) -> PartPublisher:
        """Start to publish the download. The publisher ends after the download, which does not wait for it."""
        publisher = PartPublisher(download, lease, self.store, self.events, self._uploads, older, taken)
        self._publishing.start(publisher.run())
        return publisher

    async def finished(self) -> None:
        """Returns when everything that is verified has been written to the shared store, as far as it can be."""
        await self._publishing.close()

    async def close(self) -> None:
        """Stop writing to the shared store."""
        await self._publishing.cancel()


class SharedDownload:
    """What one download gets from other replicas and gives to them."""

    def __init__(self, shared: SharedDownloads, download: Download) -> None:
        self._shared = shared
        self._store = shared.store
        self._download = download
        self._record: SharedRecord | None = None
        """The last record that was read, also if it is not served for this upstream."""
        self._publisher: PartPublisher | None = None
        self._origins: list[SharedOrigin] = []
        self._role = ""
        """What this replica does now: see SharedDownloadStarted."""

    @property
    def is_used(self) -> bool:
        """Some bytes of the download are not from the upstream."""
        return any(origin.received for origin in self._origins)

    async def next_origin(self) -> BlobOrigin | None:
        """The next origin to try before the upstream; None if there is none. Called again when the last one is lost.

        It has the parts that another replica publishes, or the whole blob if the shared store has it. Otherwise this
        replica takes the lease, uses what earlier holders have published, and publishes the rest.
        """
        # What replicas have may be what was wrong before a restart.
        if self._download.is_restart or self._role in {"led", "took_over", "alone"}:
            return None
        last = self._origins[-1] if self._origins else None
        if last and (last.ends_sharing or (last.is_damaged and self._role == "followed")):
            self._play("alone")
            return None
        try:
            if last and self._role == "found":
                await self._drop_record()  # it has not brought all bytes
            held = await self._lease() if self._download.is_whole_wanted else None
            if isinstance(held, FollowedLease):
                self._play("followed")
                return self._origin(self._store.get_part, held)
            return await self._from_record(held)
        except SharedUnavailable:  # the adapter reports it
            self._play("alone")
            return None

    async def _lease(self) -> SharedLease | FollowedLease | None:
        """None if the shared index does not answer. The shared store may have the blob nevertheless."""
        try:
            return await self._shared.leases.lease(self._download.upstream, self._download.digest)
        except SharedUnavailable:
            return None

    async def _from_record(self, held: SharedLease | None) -> SharedOrigin | None:
        """The whole blob, if the store has it. The record is read after the lease was taken, because whoever had the
        lease before may just have written the record.
        """
        try:
            record = await self._usable_record()
        except BaseException:
            if held:
                await held.release(keep=True)
            raise
        if record is None:
            return self._lead(held)
        if held:
            await held.release(keep=True)
        self._play("found")
        parts = record.parts
        get_part: GetPart = self._store.get_part
        if record.content is not None:
            parts, get_part = (SharedPart("", 0, record.size, ""),), _always(record.content)
        progress = SharedProgress(parts, record.size, is_held=False)
        return self._origin(get_part, progress, is_public=record.is_public)

    async def _usable_record(self) -> SharedRecord | None:
        """The record, if its content is served for this upstream."""
        digest, upstream = self._download.digest, self._download.upstream
        record = self._record = await self._store.find(digest)
        if record and (record.serves(upstream) or await self._shared.provenance.serves(upstream, digest)):
            return record
        return None

    def _lead(self, held: SharedLease | None) -> SharedOrigin | None:
        if held is None:
            if self._download.is_whole_wanted:
                self._play("alone")
            return None
        self._play("took_over" if held.found.parts else "led")
        found = self._origin(self._store.get_part, replace(held.found, is_held=False))
        self._publisher = self._shared.publish(self._download, held, self._record, found.received)
        return found if held.found.parts else None

    def _play(self, role: str) -> None:
        if role != self._role:
            self._role = role
            self._shared.events.emit(SharedDownloadStarted(role))

    def _origin(
        self,
        get_part: GetPart,
        progress: SharedProgress | FollowedLease,
        *,
        is_public: bool = False,
    ) -> SharedOrigin:
        look = progress.look if isinstance(progress, FollowedLease) else _always(progress)
        origin = SharedOrigin(get_part, look, self._shared.events, self._shared.parts_in_memory, is_public=is_public)
        self._origins.append(origin)
        return origin

    async def _drop_record(self) -> None:
        """The parts that the record names are not there, or wrong. The download replaces it."""
        self._shared.events.emit(ContentDamaged(str(self._download.digest)))
        await self._store.drop(self._download.digest)

    async def discard(self) -> None:
        """The bytes of the download are wrong. Nothing of them must be used again."""
        if self._publisher:
            self._publisher.discard()
        if self._record and self.is_used:
            with suppress(SharedUnavailable):
                await self._drop_record()

    def end(self) -> None:
        """The download is over. Give up what is still being fetched from the shared store."""
        for origin in self._origins:
            origin.close()


SharesDownloads = SharedDownloads | NoSharing


def _always(value: T) -> Callable[..., Awaitable[T]]:
    async def get(*_: object) -> T:
        return value

    return get
