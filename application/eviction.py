"""Eviction: keeps the cache below its bound, and evicts the least recently used content first."""

import asyncio
from collections import Counter
from collections.abc import Coroutine
from dataclasses import replace
from typing import Any

from application.ports.content import ContentStore, Space, StorageFull, StorageMaintenance
from application.ports.index import KnowledgeIndex, UsageIndex, Used
from application.ports.telemetry import EventSink
from domain.cache_policy import CacheCapacity, content_to_evict
from domain.digest import Digest, DigestCheck
from domain.events import CacheMeasured, ContentEvicted
from domain.ports import Clock
from domain.upstreams import Upstream

_MARGIN = 64 * 1024 * 1024
"""Bytes that are left free on the disk for other programs."""
_ABANDONED_SECONDS = 3600.0
_COUNTS = 5
"""How often the used space is measured before space is refused. A measurement counts bytes twice that are written at
the same time, so it may be too high."""
_RECOUNT_SECONDS = 0.05
"""The time between two measurements."""
_READ_BYTES = 1024 * 1024
"""Hashed at a time: reads for clients, which use the same threads, wait no longer than that takes."""


class Eviction:
    """Keeps content and partial blobs below the bound. Removed content stays readable through files that are already
    open. Content of pinned images is not evicted, so it alone may be above the bound: then nothing else is stored.
    """

    def __init__(
        self,
        store: ContentStore,
        maintenance: StorageMaintenance,
        usage: UsageIndex,
        index: KnowledgeIndex,
        capacity: CacheCapacity,
        clock: Clock,
        events: EventSink,
    ) -> None:
        self._store = store
        self._maintenance = maintenance
        self._usage = usage
        self._index = index
        self._capacity = capacity
        self._clock = clock
        self._events = events
        self._touched: dict[Digest, float] = {}
        self._reserved: dict[tuple[Upstream, Digest], int] = {}
        self._recording: dict[Digest, int] = {}
        self._evicting = asyncio.Lock()

    def used(self, digest: Digest) -> None:
        """Record the use in memory. `flush` stores it."""
        self._touched[digest] = self._clock.now()

    def added(self, digest: Digest, size: int) -> Coroutine[Any, Any, None]:
        """Record new content of `size` bytes in the index. It counts from this call on, and not only when the coroutine
        runs.
        """
        self._recording[digest] = size
        return self._record(digest, size)

    async def _record(self, digest: Digest, size: int) -> None:
        try:
            await self._usage.keep([Used(digest, size, self._clock.now())])
        finally:
            self._recording.pop(digest, None)
        await self.make_space(0)

    async def holds(self, digest: Digest) -> bool:
        """Whether the content is stored, whatever the index says."""
        stored = await self._store.open(digest)
        if stored is None:
            return False
        stored.file.close()
        return True

    async def is_right(self, digest: Digest) -> bool | None:
        """Whether the stored content matches its digest. Hashes all of it. None if it is not stored."""
        stored = await self._store.open(digest)
        if stored is None:
            return None
        check = DigestCheck(digest)
        try:
            for start in range(0, stored.size, _READ_BYTES):
                await stored.file.hash(check, start, min(start + _READ_BYTES, stored.size))
        finally:
            stored.file.close()
        return check.holds

    async def drop(self, digest: Digest) -> None:
        """Remove content that must not be served again, and all index entries that refer to it."""
        await self._store.drop(digest)
        await self._forget([digest])

    async def make_space(self, wanted: int) -> None:
        """Make space for `wanted` more bytes. Raises StorageFull if they do not fit, whatever is evicted."""
        if not self._capacity.can_store(wanted):
            raise StorageFull
        async with self._evicting:
            space, used, count = await self._state()
            if (bytes_to_free := self._bytes_to_free(space, used, wanted)) > 0:
                if not await self._evict(bytes_to_free, wanted):
                    raise StorageFull
            else:
                self._events.emit(CacheMeasured(used, self._capacity.max_bytes, space.free, space.total, count))

    @property
    def reservation(self) -> int:
        """Bytes for which a running download makes space at a time: a small part of the cache."""
        return self._capacity.reservation

    def can_store(self, size: int) -> bool:
        """Whether a blob of `size` bytes can be stored at all, whatever is evicted."""
        return size <= self._capacity.max_partial_blobs_of_upstream

    async def make_space_in_partial_blob(
        self, upstream: Upstream, digest: Digest, needed: int, most: int | None
    ) -> int:
        """Make space for at least `needed` and at most `most` more bytes in the partial blob of a download from this
        upstream. Returns the number of bytes there is space for. `most`: None if the length of the blob is unknown.

        If the bytes do not fit, removes the partial blobs that have no running download. Raises StorageFull if they
        still do not fit.
        """
        wanted = max(needed, self._capacity.reservation if most is None else min(most, self._capacity.reservation))
        share = self._capacity.max_partial_blobs_beside_unmeasured if most is None else self._capacity.max_partial_blobs
        for count in range(_COUNTS):
            if count:
                await asyncio.sleep(_RECOUNT_SECONDS)
            async with self._evicting:
                space, used, _ = await self._state()
                own = space.partial_blobs_of.get(upstream.fingerprint, 0)
                is_in_share = space.partial_blobs + wanted <= share and self.can_store(own + wanted)
                bytes_to_free = self._bytes_to_free(space, used, wanted)
                if is_in_share and (bytes_to_free <= 0 or await self._evict(bytes_to_free, wanted)):
                    self.reserve(upstream, digest, self._reserved.get((upstream, digest), 0) + wanted)
                    return wanted
                if count == 0:
                    await self._maintenance.remove_abandoned_partial_blobs()
        raise StorageFull("the cache is full, or running downloads use their whole part of it already")

    def reserve(self, upstream: Upstream, digest: Digest, size: int) -> None:
        """Record that there is space for `size` bytes that a download of this process has not written yet; 0 removes
        the record.
        """
        if size > 0:
            self._reserved[upstream, digest] = size
        else:
            self._reserved.pop((upstream, digest), None)

    async def remove_abandoned_partial_blobs(self) -> None:
        """Remove the partial blobs that no download has continued for an hour."""
        await self._maintenance.remove_abandoned_partial_blobs(_ABANDONED_SECONDS)

    async def flush(self) -> dict[Digest, float]:
        """Store the uses since the last call, and return them."""
        touched, self._touched = self._touched, {}
        if touched:
            await self._usage.touch(touched)
        return touched

    async def _state(self) -> tuple[Space, int, int]:
        """The disk space, where partial blobs include the bytes reserved for them; the used bytes of the bound; and the
        number of manifests and blobs.
        """
        # This order counts bytes that are written or committed at the same time twice, rather than not at all.
        reserved: Counter[str] = Counter()
        for (upstream, _), size in self._reserved.items():
            reserved[upstream.fingerprint] += size
        space = await self._maintenance.space()
        recording = sum(self._recording.values())
        stored = await self._usage.total()
        partial_blobs = space.partial_blobs + reserved.total()
        size = stored.size + recording + partial_blobs
        reserved.update(space.partial_blobs_of)
        return replace(space, partial_blobs=partial_blobs, partial_blobs_of=reserved), size, stored.count

    def _bytes_to_free(self, space: Space, used: int, wanted: int) -> int:
        """The bytes to evict for `wanted` more bytes; not above 0 if there is space for them."""
        short = wanted + min(_MARGIN, space.total // 16) - space.free if wanted else 0
        return max(self._capacity.bytes_to_free(used, wanted), short)

    async def _evict(self, bytes_to_free: int, wanted: int) -> bool:
        """Evict content. Returns whether `wanted` more bytes fit now."""
        await self.flush()  # otherwise content that was just used would look old
        sizes = {str(one.digest): one.size for one in await self._usage.evictable()}
        chosen = [Digest.parse(name) for name in content_to_evict(sizes.items(), bytes_to_free)]
        # The index first: if the content is stored again during this, its new index entry remains.
        await self._forget(chosen)
        freed = [await self._store.drop(digest) for digest in chosen]
        if any(freed):
            self._events.emit(ContentEvicted(sum(size > 0 for size in freed), sum(freed)))
        # Measured again: another worker may have removed the same content. Running downloads cannot be removed, and
        # files of other programs may fill the disk.
        space, used, count = await self._state()
        self._events.emit(CacheMeasured(used, self._capacity.max_bytes, space.free, space.total, count))
        return not wanted or (used + wanted <= self._capacity.max_bytes and wanted <= space.free)

    async def reconcile(self) -> None:
        """Repair what a crash left behind: content that the index does not list, and entries of the index without
        content. Keeps the partial blobs of a worker that died, because another worker may be about to continue them.
        """
        there = await self._maintenance.contents()
        known = {one.digest for one in await self._usage.all()}
        now = self._clock.now()
        # Content that is committed while this runs may be missing in the listing of the folder. It is safe: an entry of
        # the index is removed only if its content is still missing now.
        await self._usage.keep([Used(digest, size, now) for digest, size in there.items() if digest not in known])
        gone = [digest for digest in known - there.keys() if not await self.holds(digest)]
        await self._forget(gone)
        await self.make_space(0)

    async def _forget(self, digests: list[Digest]) -> None:
        """Remove content from the index, with the links and cached tags that are useless without it. The next fetch of
        the content stores them again. Workers may use their copies in memory for a few more seconds.
        """
        await self._usage.forget(digests)
        await self._index.forget_content(digests)
