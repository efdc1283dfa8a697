"""Eviction: what is used stays, what was not used for longest makes room."""

import asyncio

from application.ports.content import ContentStore, Space, StorageFull, StorageMaintenance
from application.ports.index import KnowledgeIndex, UsageIndex, Used
from application.ports.telemetry import EventSink
from domain.cache_policy import CacheCapacity, victims
from domain.digest import Digest, DigestCheck
from domain.events import ContentEvicted
from domain.ports import Clock
from domain.upstreams import Upstream

_MARGIN = 64 * 1024 * 1024
"""Bytes that are left free on the disk for everybody else."""


_DRAFT_SECONDS = 3600.0
_PORTION = 1024 * 1024


class Eviction:
    """Keeps content and drafts below the bound. What is removed stays readable to whoever has it open."""

    def __init__(
        self,
        store: ContentStore,
        maintenance: StorageMaintenance,
        usage: UsageIndex,
        index: KnowledgeIndex,
        room: CacheCapacity,
        clock: Clock,
        events: EventSink,
    ) -> None:
        self._store = store
        self._maintenance = maintenance
        self._usage = usage
        self._index = index
        self._room = room
        self._clock = clock
        self._events = events
        self._touched: dict[Digest, float] = {}
        self._promised: dict[tuple[Upstream, Digest], int] = {}
        self._evicting = asyncio.Lock()

    def used(self, digest: Digest) -> None:
        """Remembered, and written down with others now and then."""
        self._touched[digest] = self._clock.now()

    async def added(self, digest: Digest, size: int) -> None:
        """New content of so many bytes is there."""
        await self._usage.keep([Used(digest, size, self._clock.now())])
        await self.make_room(0)

    async def holds(self, digest: Digest) -> bool:
        """Whether the content is there, whatever the index says."""
        stored = await self._store.open(digest)
        if stored is None:
            return False
        stored.file.close()
        return True

    async def is_right(self, digest: Digest) -> bool | None:
        """Whether the stored content has this digest, by hashing all of it; None where it is not there."""
        stored = await self._store.open(digest)
        if stored is None:
            return None
        check = DigestCheck(digest)
        try:
            for start in range(0, stored.size, _PORTION):
                check.update(await stored.file.read(start, min(start + _PORTION, stored.size)))
        finally:
            stored.file.close()
        return check.holds

    async def drop(self, digest: Digest) -> None:
        """Content that is not to be had any more, and all that leads to it."""
        await self._store.drop(digest)
        await self._forget([digest])

    async def make_room(self, wanted: int) -> None:
        """See that so many bytes more fit. Raises StorageFull where they do not, however much is removed."""
        if not self._room.is_for(wanted):
            raise StorageFull
        async with self._evicting:
            await self._make_room(wanted)

    def has_room_for_all_of(self, size: int) -> bool:
        """Whether a blob of so many bytes can be kept at all, whatever is removed."""
        return size <= self._room.for_partial_blobs_of_one

    async def make_room_in_partial_blob(self, upstream: Upstream, digest: Digest, needed: int, most: int | None) -> int:
        """See that at least `needed` bytes more fit, and `most` at most, into the draft of what is arriving from this
        upstream; for how many there is room now. `most` is None where the length of the blob is not known. Raises
        StorageFull where they do not fit, or where drafts would take more than their share of the cache: then drafts
        that nobody fills go first.
        """
        wanted = max(needed, self._room.step if most is None else min(most, self._room.step))
        share = self._room.for_partial_blobs_beside_unmeasured if most is None else self._room.for_partial_blobs
        async with self._evicting:
            if not await self._partial_blobs_may_grow(upstream, wanted, share):
                await self._maintenance.remove_abandoned_partial_blobs()
                if not await self._partial_blobs_may_grow(upstream, wanted, share):
                    raise StorageFull("running downloads use their whole part of the cache already")
            await self._make_room(wanted)
            self.promise(upstream, digest, self._promised.get((upstream, digest), 0) + wanted)
        return wanted

    async def _partial_blobs_may_grow(self, upstream: Upstream, wanted: int, share: int) -> bool:
        """`share`: bytes that all drafts may take together afterwards."""
        # In this order: what is written meanwhile is counted twice rather than not at all.
        promised = sum(self._promised.values())
        own = sum(size for (one, _), size in self._promised.items() if one == upstream)
        space = await self._maintenance.space()
        together = space.partial_blobs + promised
        own += space.partial_blobs_of.get(upstream.fingerprint, 0)
        return together + wanted <= share and own + wanted <= self._room.for_partial_blobs_of_one

    async def _make_room(self, wanted: int) -> None:
        space, used = await self._state()
        short = wanted + min(_MARGIN, space.total // 16) - space.free if wanted else 0
        bytes_to_free = max(self._room.bytes_to_free(used, wanted), short)
        if bytes_to_free <= 0:
            return
        await self._evict(bytes_to_free)
        # Counted anew: another worker may have removed the same. What is being fetched cannot be removed, and the
        # disk may be full of somebody else's files.
        space, used = await self._state()
        if wanted and (used + wanted > self._room.bound or space.free < wanted):
            raise StorageFull

    def promise(self, upstream: Upstream, digest: Digest, size: int) -> None:
        """There is room for so many bytes that this process has not yet written of what it is fetching from the
        upstream; 0 ends that.
        """
        if size > 0:
            self._promised[upstream, digest] = size
        else:
            self._promised.pop((upstream, digest), None)

    async def remove_abandoned_partial_blobs(self) -> None:
        """What broke off and nobody has asked for since is not gone on with any more."""
        await self._maintenance.remove_abandoned_partial_blobs(_DRAFT_SECONDS)

    async def flush(self) -> None:
        """Write down what was used since the last time."""
        touched, self._touched = self._touched, {}
        if touched:
            await self._usage.touch(touched)

    async def _state(self) -> tuple[Space, int]:
        """The space, and how many bytes of the bound are taken."""
        # In this order: what is written or becomes content meanwhile is counted twice rather than not at all.
        promised = sum(self._promised.values())
        space = await self._maintenance.space()
        total = await self._usage.total()
        return space, total + space.partial_blobs + promised

    async def _evict(self, bytes_to_free: int) -> int:
        """How many bytes were really freed."""
        await self.flush()  # or what was used a moment ago would look old
        sizes = {str(one.digest): one.size for one in await self._usage.all()}
        chosen = [Digest.parse(name) for name in victims(sizes.items(), bytes_to_free)]
        # First out of the index: content that comes back meanwhile is written there after this.
        await self._forget(chosen)
        freed = [await self._store.drop(digest) for digest in chosen]
        if any(freed):
            self._events.emit(ContentEvicted(sum(size > 0 for size in freed), sum(freed)))
        return sum(freed)

    async def reconcile(self) -> None:
        """Put right what a crash left behind: content that the index does not know, and entries of the index without
        content. Not the drafts of a worker that died: another one may be about to go on with them.
        """
        there = await self._maintenance.contents()
        known = {one.digest for one in await self._usage.all()}
        now = self._clock.now()
        # What was committed while the folder was being read is in neither, and safe: it is only forgotten if it is
        # not to be found even now.
        await self._usage.keep([Used(digest, size, now) for digest, size in there.items() if digest not in known])
        gone = [digest for digest in known - there.keys() if not await self.holds(digest)]
        await self._forget(gone)
        await self.make_room(0)

    async def _forget(self, digests: list[Digest]) -> None:
        """Content, and the links and cached tags that are of no use without it. Whoever fetches it again is given them
        again; what a worker remembers of them it believes for seconds only.
        """
        await self._usage.forget(digests)
        await self._index.forget_content(digests)
