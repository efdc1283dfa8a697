"""PartPublisher: writes a blob that this replica downloads to the shared store, for the other replicas."""

import asyncio

from application.blobs.download import Download
from application.ports.content import StorageRefused
from application.ports.shared import SharedLease, SharedPart, SharedRecord, SharedStore, SharedUnavailable
from application.ports.telemetry import EventSink
from domain.byte_ranges import Span
from domain.events import SharedBytesStored
from domain.part_layout import INLINE_BYTES, parts_of


class PartPublisher:
    """Reads the parts from the partial blob as they become complete, so that no client waits for an upload. The record,
    which makes the blob content of the shared store, is written after the download has verified the digest.
    """

    def __init__(
        self,
        download: Download,
        lease: SharedLease,
        store: SharedStore,
        events: EventSink,
        uploads: asyncio.Semaphore,
        older: SharedRecord | None,
    ) -> None:
        """`uploads` limits the parts that are in memory at a time. `older`: the record that the new one replaces."""
        self._download = download
        self._lease = lease
        self._store = store
        self._events = events
        self._uploads = uploads
        self._older = older
        self._parts: dict[int, SharedPart] = {}
        self._keeps_parts = True

    def took(self, parts: set[SharedPart]) -> None:
        """The download has these parts from an earlier lease of the blob, so they are not written again."""
        self._parts.update((part.offset, part) for part in parts)

    def discard(self) -> None:
        """The download failed because its bytes are wrong, so the next lease must not use the published parts."""
        self._keeps_parts = False

    async def run(self) -> None:
        """Returns when the record is written, when the download has failed, or when the lease or the store is lost.
        Ends the lease.
        """
        try:
            with self._download.holding():
                await self._publish()
                if self._download.is_verified and not self._lease.is_lost:
                    await self._store.put(self._download.digest, await self._record())
                    self._keeps_parts = False  # the record names them now
        except (SharedUnavailable, StorageRefused):
            pass  # the adapter reports it; the next replica that downloads the blob publishes it
        finally:
            await self._lease.release(keep=self._keeps_parts)

    async def _publish(self) -> None:
        """Publish each part when it is complete, the lowest first."""
        download = self._download
        while not self._lease.is_lost and not download.failure:
            is_over = download.is_over
            if span := self._next():
                async with self._uploads:
                    content = await download.file.read(span.start, span.stop)
                    part = await self._store.put_part(
                        download.upstream, download.digest, self._lease.id, span.start, content
                    )
                self._events.emit(SharedBytesStored(part.size))
                self._parts[span.start] = part
                await self._lease.publish(part, download.total)
            elif is_over:
                return
            else:
                await download.changed()

    def _next(self) -> Span | None:
        """The first part that is complete and not published."""
        download = self._download
        if download.total is None or download.total <= INLINE_BYTES:
            return None
        missing = (span for span in parts_of(download.total) if span.start not in self._parts)
        return next((span for span in missing if download.present.covers(span)), None)

    async def _record(self) -> SharedRecord:
        download, older = self._download, self._older
        size = download.present.length
        return SharedRecord(
            size=size,
            senders=frozenset({download.upstream.fingerprint}) | (older.senders if older else frozenset()),
            is_public=download.is_public or bool(older and older.is_public),
            content=await download.file.read(0, size) if size <= INLINE_BYTES else None,
            parts=tuple(self._parts[offset] for offset in sorted(self._parts)),
        )
