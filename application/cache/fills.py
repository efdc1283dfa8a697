"""Fills: the blobs that this process is fetching, each once from each upstream, for however many want it."""

import asyncio
from contextvars import copy_context

from application.cache.callers import Ask
from application.cache.fill import Fill
from application.cache.fill_parts import FillParts
from application.cache.fill_task import FillTask
from application.cache.remembered import Remembered
from application.ports.content_store import StorageFull, StorageRefused
from application.ports.upstream_queue import QueueWatch, watched_by
from domain.cache_policy import Room, is_worth_a_download
from domain.digest import Digest
from domain.events import StorageBroke, StorageRanFull
from domain.ports import Clock
from domain.upstreams import Upstream

_ABANDONED_SECONDS = 300.0
"""So long a download goes on that nobody reads any more; what there is by then is kept for the next one."""
_UNREAD_AT_ONCE = 4
"""So many downloads run in this process at a time without a reader."""
_LOOK_SECONDS = 5.0
_UNFIT_SECONDS = 60.0
_UNFIT_REMEMBERED = 1024
_ASKED_REMEMBERED = 4096

_Key = tuple[Upstream, Digest]


class Fills:
    """Across processes the store's lease sees to it that only one fills; here, that there is one fill to join.

    Fills belong to an upstream and a digest. Fills of the same blob from two upstreams run beside each other: a client
    of the faster upstream does not wait for the slower one, and a wrong byte of one upstream does not spoil the other.
    """

    def __init__(self, parts: FillParts, room: Room, clock: Clock) -> None:
        self._parts = parts
        self._room = room
        self._clock = clock
        self._running: dict[_Key, Fill] = {}
        self._tasks: dict[Fill, asyncio.Task[None]] = {}
        self._unread: dict[Fill, float] = {}
        self._unfit: Remembered[_Key, float] = Remembered(_UNFIT_REMEMBERED)
        self._asked_in_part: Remembered[_Key, tuple[int, int]] = Remembered(_ASKED_REMEMBERED)
        """How many requests for parts there were, and for how many bytes."""

    def running(self, upstream: Upstream, digest: Digest) -> Fill | None:
        """The fill to join, None where there is none."""
        fill = self._running.get((upstream, digest))
        return fill if fill and not fill.is_over else None

    def join(self, ask: Ask, digest: Digest) -> Fill:
        """The fill that is under way; else a new one, begun with this ask's right."""
        return self.running(ask.source.upstream, digest) or self._start(Fill(digest, ask))

    def asked_in_part(self, ask: Ask, digest: Digest, size: int, total: int | None) -> None:
        """A client was given `size` bytes of a blob of `total` bytes past the cache. Where requests for parts show
        enough interest in the whole, its download is begun, unless too many run without a reader already.
        """
        key = ask.source.upstream, digest
        count, asked = self._asked_in_part.get(key) or (0, 0)
        count, asked = count + 1, asked + size
        self._asked_in_part.put(key, (count, asked))
        if total is None or not is_worth_a_download(count, asked, total):
            return
        if len(self._all_unread()) < _UNREAD_AT_ONCE:
            self.join(ask, digest)

    def is_unfit(self, upstream: Upstream, digest: Digest) -> bool:
        """Whether there is no cache, or there was no room a moment ago for this upstream's blob: then it is not even
        begun.
        """
        if not self._room.bound:
            return True
        until = self._unfit.get((upstream, digest))
        return until is not None and self._clock.now() < until

    def end_abandoned(self) -> None:
        """Called now and then."""
        now = self._clock.now()
        self._unread = {fill: self._unread.get(fill, now) for fill in self._all_unread()}
        for fill, since in self._unread.items():
            if now >= since + _ABANDONED_SECONDS:
                self._end(fill)

    def _all_unread(self) -> list[Fill]:
        return [fill for fill in self._running.values() if not fill.readers and not fill.is_over]

    def _left_unread(self, fill: Fill) -> None:
        """Where too many go on without a reader, those end first that nobody has read for longest; what they have by
        then is kept.
        """
        now = self._clock.now()
        self._unread.pop(fill, None)
        self._unread = {one: self._unread.get(one, now) for one in self._all_unread()}
        by_time = sorted(self._unread, key=lambda one: self._unread[one])
        for one in by_time[: max(0, len(by_time) - _UNREAD_AT_ONCE)]:
            self._end(one)

    def _end(self, fill: Fill) -> None:
        # Once: a second time would break off the orderly end that the first began.
        if (task := self._tasks.get(fill)) and not task.cancelling():
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
        self._running[fill.upstream, fill.digest] = fill
        # The context of the request that began it: the access log tells what the upstream answered to it.
        with watched_by(QueueWatch(lambda: fill.readers > 0)):
            task = asyncio.create_task(self._run(fill), context=copy_context())
        self._tasks[fill] = task
        fill.left_unread = self._left_unread
        return fill

    async def _run(self, fill: Fill) -> None:
        key = fill.upstream, fill.digest
        try:
            begin_anew = await FillTask(fill, self._parts).run()
        finally:
            self._tasks.pop(fill, None)
            if self._running.get(key) is fill:
                del self._running[key]
        if isinstance(fill.failure, StorageRefused):
            self._parts.events.emit(
                StorageRanFull(str(fill.digest))
                if isinstance(fill.failure, StorageFull)
                else StorageBroke(str(fill.digest), str(fill.failure))
            )
            self._unfit.put(key, self._clock.now() + _UNFIT_SECONDS)
        # Once: an upstream whose answers never go together would be asked for ever.
        if begin_anew and not fill.is_anew and not self.running(*key):
            self._start(Fill(fill.digest, fill.asks[0], is_anew=True))
