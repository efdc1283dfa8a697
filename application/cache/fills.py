"""Fills: the blobs that this process is fetching, each once, for however many want it."""

import asyncio
from contextvars import copy_context

from application.cache.callers import Ask
from application.cache.fill import Fill
from application.cache.fill_parts import FillParts
from application.cache.fill_task import FillTask
from application.cache.remembered import Remembered
from application.ports.content_store import StorageFull
from domain.cache_policy import Room
from domain.digest import Digest
from domain.events import StorageRanFull
from domain.ports import Clock

_ABANDONED_SECONDS = 300.0
"""So long a download goes on that nobody reads any more; what there is by then is kept for the next one."""
_LOOK_SECONDS = 5.0
_UNFIT_SECONDS = 60.0
_UNFIT_REMEMBERED = 1024


class Fills:
    """Across processes the store's lease sees to it that only one fills; here, that there is one fill to join."""

    def __init__(self, parts: FillParts, room: Room, clock: Clock) -> None:
        self._parts = parts
        self._room = room
        self._clock = clock
        self._running: dict[Digest, Fill] = {}
        self._tasks: dict[Fill, asyncio.Task[None]] = {}
        self._unread: dict[Fill, float] = {}
        self._unfit: Remembered[Digest, float] = Remembered(_UNFIT_REMEMBERED)

    def running(self, digest: Digest) -> Fill | None:
        """The fill to join, None where there is none."""
        fill = self._running.get(digest)
        return fill if fill and not fill.is_over else None

    def join(self, ask: Ask, digest: Digest) -> Fill:
        """The fill that is under way; else a new one, begun with this ask's right."""
        return self.running(digest) or self._start(Fill(digest, ask))

    def is_unfit(self, digest: Digest) -> bool:
        """Whether there is no cache, or was no room for it a moment ago: then it is not even begun."""
        if not self._room.bound:
            return True
        until = self._unfit.get(digest)
        return until is not None and self._clock.now() < until

    def end_abandoned(self) -> None:
        """Called now and then."""
        now = self._clock.now()
        unread = [fill for fill in self._running.values() if not fill.readers]
        self._unread = {fill: self._unread.get(fill, now) for fill in unread}
        for fill, since in self._unread.items():
            # Once: a second time would break off the orderly end that the first began.
            if now >= since + _ABANDONED_SECONDS and (task := self._tasks.get(fill)) and not task.cancelling():
                task.cancel()

    async def finished(self) -> None:
        """Returns when nothing is being fetched any more. What nobody reads ends as it does otherwise."""
        while self._tasks:
            await asyncio.wait(list(self._tasks.values()), timeout=_LOOK_SECONDS)
            self.end_abandoned()

    async def close(self) -> None:
        """End all."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _start(self, fill: Fill) -> Fill:
        self._running[fill.digest] = fill
        # The context of the request that began it: the access log tells what the upstream answered to it.
        task = asyncio.create_task(self._run(fill), context=copy_context())
        self._tasks[fill] = task
        return fill

    async def _run(self, fill: Fill) -> None:
        try:
            begin_anew = await FillTask(fill, self._parts).run()
        finally:
            self._tasks.pop(fill, None)
            if self._running.get(fill.digest) is fill:
                del self._running[fill.digest]
        if isinstance(fill.failure, StorageFull):
            self._parts.events.emit(StorageRanFull(str(fill.digest)))
            self._unfit.put(fill.digest, self._clock.now() + _UNFIT_SECONDS)
        # Once: an upstream whose answers never go together would be asked for ever.
        if begin_anew and not fill.is_anew and not self.running(fill.digest):
            self._start(Fill(fill.digest, fill.asks[0], is_anew=True))
