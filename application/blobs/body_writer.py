"""Writes the bodies of a transfer into its partial blob, and makes space for them in the cache."""

import asyncio
from collections.abc import Coroutine
from typing import Any

from application.blobs.download import Download
from application.blobs.write_batches import WriteBatches
from application.eviction import Eviction
from application.ports.content import PartialBlob, StorageFull
from domain.byte_ranges import Span
from domain.digest import Bytes
from domain.errors import UpstreamContentChanged
from domain.span_set import SpanSet

CHANGED = "the upstream sent a different beginning of the blob than before"
_FIRST_BYTES = 256 * 1024


class SpaceForBlob:
    """The space in the cache for one partial blob. It is made as bytes arrive, so a declared length alone evicts
    nothing.
    """

    def __init__(self, download: Download, partial_blob: PartialBlob, eviction: Eviction) -> None:
        self.download = download
        self.partial_blob = partial_blob
        self._eviction = eviction
        self._arrived = self._made = partial_blob.present.length
        """Bytes that are present or wait to be written, and bytes for which there is space."""
        self._small = min(_FIRST_BYTES, eviction.reservation)
        self._lock = asyncio.Lock()

    def require(self, total: int | None) -> None:
        """Raises StorageFull if a blob of `total` bytes cannot be stored, whatever is evicted."""
        if total is not None and not self._eviction.can_store(total):
            raise StorageFull("the blob is larger than the part of the cache for running downloads")

    async def take(self, size: int) -> None:
        """Make space for the bytes that have arrived, if there is none yet. Raises StorageFull. The first bytes do not
        wait: a client waits for them, and there is always space for so few.
        """
        self._arrived += size
        if self._arrived <= max(self._made, self._small):
            return
        download = self.download
        async with self._lock:
            if (missing := self._arrived - self._made) > 0:
                most = None if download.total is None else download.total - self._made
                self._made += await self._eviction.make_space_in_partial_blob(
                    download.upstream, download.digest, missing, most
                )

    async def make(self, size: int) -> None:
        """Free bytes on a full disk. Raises StorageFull."""
        await self._eviction.make_space(size)

    def grown(self) -> None:
        """The partial blob may have grown. Tell the readers, and how much of the space is still free."""
        present = self.partial_blob.present
        if present is not self.download.present:
            self._eviction.reserve(self.download.upstream, self.download.digest, self._made - present.length)
            self.download.grow(present)


class BodyWriter:
    """Writes the bytes of one body that are not present yet. Compares the others: old and new bytes that do not belong
    together would not match the digest, and readers have received the old ones.
    """

    def __init__(self, space: SpaceForBlob) -> None:
        self._space = space
        self._batches = WriteBatches(space.partial_blob, 0, space.make, space.grown)

    async def add(self, offset: int, piece: Bytes) -> None:
        """Add the piece of the body that begins at this offset in the blob. Raises UpstreamContentChanged and
        StorageRefused.
        """
        span = Span(offset, offset + len(piece))
        fresh = self._space.partial_blob.present.missing(span)
        for repeated in SpanSet(fresh).missing(span) if fresh != (span,) else ():
            if not await self._space.partial_blob.holds(
                repeated.start, piece[repeated.start - offset : repeated.stop - offset]
            ):
                raise UpstreamContentChanged(CHANGED)
        for part in fresh:
            await self._space.take(part.length)
            if part.start != self._batches.end:
                await self._batches.finish()
                self._batches = WriteBatches(self._space.partial_blob, part.start, self._space.make, self._space.grown)
            await self._batches.add(piece[part.start - offset : part.stop - offset])

    def finish(self) -> Coroutine[Any, Any, None]:
        """Returns when everything has been written."""
        return self._batches.finish()
