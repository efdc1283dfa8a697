"""PublishStored: writes a blob that this replica has in its cache to the shared store."""

import asyncio
from collections.abc import Iterator, Sequence

from application.access.provenance import Provenance
from application.eviction import Eviction
from application.ports.content import ContentStore, StorageRefused, StoredContent
from application.ports.shared import (
    FollowedLease,
    SharedLeases,
    SharedPart,
    SharedRecord,
    SharedStore,
    SharedUnavailable,
)
from application.ports.telemetry import EventSink
from domain.byte_ranges import Span
from domain.digest import Digest, DigestCheck
from domain.events import ContentDamaged, SharedBytesStored
from domain.part_layout import INLINE_BYTES, part_size
from domain.upstreams import Upstream

_AT_ONCE = 4
"""Parts of at most 16 MiB in memory at the same time."""


class NoPublishing:
    """Takes the place of PublishStored without a shared tier."""

    async def __call__(self, upstream: Upstream, digest: Digest) -> bool:  # noqa: ARG002 - as PublishStored
        return True


class PublishStored:
    """A download publishes what it receives; this is for blobs that were downloaded while the shared store did not
    answer, or that the store has lost since.
    """

    def __init__(
        self,
        content: ContentStore,
        eviction: Eviction,
        provenance: Provenance,
        store: SharedStore,
        leases: SharedLeases,
        events: EventSink,
    ) -> None:
        self._content = content
        self._eviction = eviction
        self._provenance = provenance
        self._store = store
        self._leases = leases
        self._events = events

    async def __call__(self, upstream: Upstream, digest: Digest) -> bool:
        """Write the blob to the shared store. Writes nothing if the store has it, if another process is writing it, or
        if this replica does not have it or may not serve it for this upstream. If the store fails, its adapter reports
        that. Returns False if the cached file was damaged; the file has then been removed.
        """
        try:
            record = await self._store.find(digest)
            if record and record.serves(upstream):
                return True
            # The service of this replica may have the lease, and would lose it to this process.
            if (await self._leases.progress(upstream.fingerprint, digest)).is_held:
                return True
            if not await self._provenance.serves(upstream, digest):
                return True
            stored = await self._content.open(digest)
            if stored is None:
                return True
            try:
                is_right = await self._publish(upstream, digest, stored, record)
            finally:
                stored.file.close()
        except (SharedUnavailable, StorageRefused):
            return True
        if not is_right:
            self._events.emit(ContentDamaged(str(digest)))
            await self._eviction.drop(digest)
        return is_right

    async def _publish(
        self, upstream: Upstream, digest: Digest, stored: StoredContent, older: SharedRecord | None
    ) -> bool:
        """Whether the digest is right. The record is written last, so that wrong bytes are never content of the store:
        the file may have been damaged since it was downloaded.
        """
        lease = await self._leases.lease(upstream, digest)
        if isinstance(lease, FollowedLease):
            return True
        check = DigestCheck(digest)
        inline: bytes | None = None
        parts: tuple[SharedPart, ...] = ()
        try:
            if stored.size <= INLINE_BYTES:
                inline = await stored.read()
                check.update(inline)
            else:
                parts = await self._put_parts(upstream, lease.id, stored, check)
            if check.holds and not lease.is_lost:
                senders = frozenset({upstream.fingerprint}) | (older.senders if older else frozenset())
                is_public = bool(older and older.is_public)
                await self._store.put(digest, SharedRecord(stored.size, senders, is_public, inline, parts))
                self._events.emit(SharedBytesStored(stored.size))
            return check.holds
        finally:
            await lease.release(keep=False)  # the record names the parts now, or they are useless

    async def _put_parts(
        self, upstream: Upstream, lease_id: str, stored: StoredContent, check: DigestCheck
    ) -> tuple[SharedPart, ...]:
        """Write the content in parts, and hash it."""
        parts: list[SharedPart] = []
        for spans in _batches(stored.size):
            pieces = [await stored.file.read(span.start, span.stop) for span in spans]
            for piece in pieces:
                await asyncio.to_thread(check.update, piece)  # some ten milliseconds for 16 MiB
            puts = [
                self._store.put_part(upstream, check.promised, lease_id, span.start, piece)
                for span, piece in zip(spans, pieces, strict=True)
            ]
            for part in await asyncio.gather(*puts, return_exceptions=True):  # no request outlives the lease
                if isinstance(part, BaseException):
                    raise part
                parts.append(part)
        return tuple(parts)


def _batches(size: int) -> Iterator[Sequence[Span]]:
    """The parts of a blob of `size` bytes, as many at a time as may be in memory."""
    batch: list[Span] = []
    start = 0
    while start < size:
        batch.append(Span(start, min(start + part_size(start), size)))
        start = batch[-1].stop
        if len(batch) == _AT_ONCE or start == size:
            yield batch
            batch = []
