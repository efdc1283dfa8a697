"""PartPublisher: writes a blob that this replica downloads to the shared store, for the other replicas."""

import asyncio
from collections.abc import Set as AbstractSet

from application.blobs.download import Download
from application.ports.content import StorageRefused
from application.ports.shared import SharedLease, SharedPart, SharedRecord, SharedStore, SharedUnavailable
from application.ports.telemetry import EventSink
from domain.byte_ranges import Span
from domain.events import SharedBytesStored
from domain.part_layout import INLINE_BYTES, part_size
from domain.span_set import SpanSet

_AT_ONCE = 4
"""Parts of one blob that are written at the same time."""
_PART_SECONDS = 2.0
"""After this time a part is published although it has not its usual size: others wait for it."""


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
        taken: AbstractSet[SharedPart],
    ) -> None:
        """`uploads` limits the parts that are in memory at a time. `older`: the record that the new one replaces.
        `taken`: the parts of earlier leases whose bytes the download has received; they are not written again.
        """
        self._download = download
        self._lease = lease
        self._store = store
        self._events = events
        self._uploads = uploads
        self._older = older
        self._taken = taken
        self._begun: list[Span] = []
        """The parts that this replica publishes or has published."""
        self._own: list[SharedPart] = []
        self._keeps_parts = True
        self._due = 0.0
        """The loop time at which a smaller part is published, too."""

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
                    record = await self._record()
                    await self._store.put(self._download.digest, record)
                    self._keeps_parts = False  # the record names them now
                    self._events.emit(SharedBytesStored(len(record.content or b"")))
        except (SharedUnavailable, StorageRefused):
            pass  # the adapter reports it; the next replica that downloads the blob publishes it
        finally:
            await self._lease.release(keep=self._keeps_parts)

    async def _publish(self) -> None:
        """Publish each part when it is complete, the lowest first, and several at the same time: one request does not
        fill the line to a distant store. Returns when all are published, or when the lease or the download has ended.
        """
        download, loop = self._download, asyncio.get_running_loop()
        self._due = loop.time() + _PART_SECONDS
        running: set[asyncio.Task[None]] = set()
        try:
            while not self._lease.is_lost and not download.failure:
                is_over = download.is_over
                span = self._next(loop.time()) if len(running) < _AT_ONCE else None
                if span:
                    self._due = loop.time() + _PART_SECONDS
                    self._begun.append(span)
                    running.add(asyncio.create_task(self._publish_part(span)))
                elif is_over and not running:
                    return
                else:
                    running = await self._next_event(running)
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    async def _next_event(self, running: set["asyncio.Task[None]"]) -> set["asyncio.Task[None]"]:
        """Wait until a part is published, or the download has changed, or for some time. Returns the parts that are
        still being published. Raises SharedUnavailable and StorageRefused.
        """
        change = asyncio.create_task(self._download.changed())
        try:
            await asyncio.wait({change, *running}, timeout=_PART_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        finally:
            change.cancel()
        for task in running:
            if task.done():
                task.result()
        return {task for task in running if not task.done()}

    async def _publish_part(self, span: Span) -> None:
        download = self._download
        async with self._uploads:
            content = await download.file.read(span.start, span.stop)
            part = await self._store.put_part(download.upstream, download.digest, self._lease.id, span.start, content)
        self._events.emit(SharedBytesStored(part.size))
        self._own.append(part)
        await self._lease.publish(part, download.total)

    def _next(self, now: float) -> Span | None:
        """The next part: the first bytes that are present and that no part has, if they are enough."""
        total, present = self._download.total, self._download.present
        if total is None or total <= INLINE_BYTES:
            return None
        begun = SpanSet.of((*self._begun, *(Span(part.offset, part.stop) for part in self._taken)))
        missing = next(iter(begun.missing(Span(0, total))), None)
        if missing is None:
            return None
        most = min(missing.stop, missing.start + part_size(missing.start))
        stop = min(present.end_of(missing.start), most)
        is_enough = stop == most or (stop > missing.start and now >= self._due)
        return Span(missing.start, stop) if is_enough else None

    def _parts(self) -> list[SharedPart]:
        """The published parts in the order of their offsets, without those that repeat bytes of others."""
        parts: list[SharedPart] = []
        for part in sorted((*self._taken, *self._own), key=lambda part: part.offset):
            if not parts or part.offset >= parts[-1].stop:
                parts.append(part)
        return parts

    async def _record(self) -> SharedRecord:
        download, older = self._download, self._older
        size = download.present.length
        return SharedRecord(
            size=size,
            senders=frozenset({download.upstream.fingerprint}) | (older.senders if older else frozenset()),
            is_public=download.is_public or bool(older and older.is_public),
            content=await download.file.read(0, size) if size <= INLINE_BYTES else None,
            parts=tuple(self._parts()),
        )
