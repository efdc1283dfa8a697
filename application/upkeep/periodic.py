"""Upkeep: the periodic work of each worker on the cache, independent of requests."""

import asyncio
from collections.abc import Awaitable, Callable

from application.access.read_permission import ReadPermissions
from application.blobs.running_downloads import RunningDownloads
from application.eviction import Eviction
from application.manifests.cached_tags import CachedTags
from application.manifests.manifest_cache import ManifestCache
from application.ports.index import KnowledgeIndex
from application.ports.telemetry import EventSink
from application.upkeep.measure_by_upstream import MeasureByUpstream
from application.upkeep.pinned_images import PinnedImages
from application.upkeep.record_history import RecordHistory
from application.upkeep.shared_upkeep import SharedUpkeep
from application.upstreams.shared_rate_limits import SharedRateLimits
from domain.events import UpkeepFailed

_PAUSE_SECONDS = 5.0
_SHARED_PAUSE_SECONDS = 60.0
_MEASURING_PART = 0.01
"""The part of the time for which the cache may be measured. So a large cache is measured less often."""
_PINS_PAUSE_SECONDS = 5.0


class Upkeep:
    """Removes what an earlier run left behind, stores the times of last use, clears the memory after an operator has
    purged content, exchanges rate limits with the other replicas, looks after the shared store and the pinned images,
    measures how much of the cache each upstream has sent, and records the history that the page shows.
    """

    def __init__(
        self,
        eviction: Eviction,
        downloads: RunningDownloads,
        permissions: ReadPermissions,
        cached_tags: CachedTags,
        manifest_cache: ManifestCache,
        index: KnowledgeIndex,
        rate_limits: SharedRateLimits,
        events: EventSink,
        shared: SharedUpkeep | None = None,
        history: RecordHistory | None = None,
        by_upstream: MeasureByUpstream | None = None,
        pins: PinnedImages | None = None,
    ) -> None:
        """`shared`: None if this replica shares nothing; `history`: None if another worker records it, or none does;
        `by_upstream`: None if another worker measures it; `pins`: None if another worker looks after them.
        """
        self._eviction = eviction
        self._downloads = downloads
        self._permissions = permissions
        self._cached_tags = cached_tags
        self._manifest_cache = manifest_cache
        self._index = index
        self._rate_limits = rate_limits
        self._events = events
        self._shared = shared
        self._history = history
        self._by_upstream = by_upstream
        self._pins = pins
        self._seen = 0
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Start the periodic work, which runs until `close`."""
        self._tasks.append(asyncio.create_task(self._run()))
        if self._shared:
            self._tasks.append(asyncio.create_task(self._run_shared(self._shared)))
        if self._history:
            self._tasks.append(asyncio.create_task(self._record(self._history)))
        if self._by_upstream:
            self._tasks.append(asyncio.create_task(self._measure(self._by_upstream)))
        if self._pins:
            self._tasks.append(asyncio.create_task(self._run_pins(self._pins)))
        self._rate_limits.start()

    async def close(self) -> None:
        await self._rate_limits.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._flush()
        if self._history:
            await self._try(self._history.record)

    async def _run(self) -> None:
        self._seen = await self._index.epoch()  # before anything is kept in memory
        await self._try(self._eviction.reconcile)
        while True:
            await asyncio.sleep(_PAUSE_SECONDS)
            await self._try(self._look_after)

    async def _run_shared(self, shared: SharedUpkeep) -> None:
        while True:
            await asyncio.sleep(_SHARED_PAUSE_SECONDS)
            await self._try(shared.run_if_due)

    async def _run_pins(self, pins: PinnedImages) -> None:
        while True:
            await asyncio.sleep(_PINS_PAUSE_SECONDS)
            await self._try(pins.look_after)

    async def _record(self, history: RecordHistory) -> None:
        await self._try(history.begin)
        while True:
            await asyncio.sleep(history.pause)
            await self._try(history.record)

    async def _measure(self, measure: MeasureByUpstream) -> None:
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            await self._try(measure)
            await asyncio.sleep(max(_PAUSE_SECONDS, (loop.time() - began) / _MEASURING_PART))

    async def _flush(self) -> None:
        """Store the uses of content, for this replica and for all."""
        used = await self._eviction.flush()
        if self._shared:
            await self._shared.used(used)

    async def _look_after(self) -> None:
        await self._flush()
        await self._eviction.remove_abandoned_partial_blobs()
        await self._eviction.make_space(0)  # content that other workers have added counts too
        self._downloads.end_abandoned()
        now = await self._index.epoch()
        if now != self._seen:
            self._seen = now
            self._permissions.forget_all()
            self._cached_tags.forget_all()
            self._manifest_cache.forget_all()

    async def _try(self, work: Callable[[], Awaitable[None]]) -> None:
        try:
            await work()
        except Exception as error:  # noqa: BLE001 - the next run may succeed, and only this event tells of the failure
            self._events.emit(UpkeepFailed(f"{type(error).__name__}: {error}"))
