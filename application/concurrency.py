"""Helpers for concurrent requests: single flight, LRU cache, background tasks, shared fetches."""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Coroutine, Hashable, Iterable
from contextlib import asynccontextmanager, suppress
from contextvars import Context
from typing import Any, Generic, TypeVar

from application.ports.upstream import SharedWork, current_watch, watched_by

T = TypeVar("T")


class SingleFlight:
    """Runs one task for each key. If a waiting request is cancelled, the others still get the result."""

    def __init__(self) -> None:
        self._running: dict[Hashable, tuple[asyncio.Task[Any], SharedWork]] = {}

    async def do(self, key: Hashable, start: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """The result of `start`, or its error, for all calls with the same key while it runs."""
        if key not in self._running:
            work = SharedWork()
            with watched_by(work):
                task = asyncio.create_task(start())
            self._running[key] = task, work
            task.add_done_callback(lambda done: self._finished(key, done))
        running, work = self._running[key]
        with work.followed_by(current_watch()):
            found: T = await asyncio.shield(running)
            return found

    async def close(self) -> None:
        """Cancel the running tasks."""
        tasks = [task for task, _ in self._running.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _finished(self, key: Hashable, task: asyncio.Task[Any]) -> None:
        self._running.pop(key, None)
        if not task.cancelled():
            task.exception()  # if it is never retrieved, asyncio logs a warning


K = TypeVar("K")
V = TypeVar("V")


class LruCache(Generic[K, V]):
    """Removes the least recently used entries when their total weight exceeds `bound`. An entry has the weight 1 unless
    `put` gets another one.
    """

    def __init__(self, bound: int) -> None:
        self._bound = bound
        self._weight = 0
        self._entries: OrderedDict[K, tuple[V, int]] = OrderedDict()

    def get(self, key: K) -> V | None:
        entry = self._entries.get(key)
        if entry is None:
            return None
        self._entries.move_to_end(key)
        return entry[0]

    def put(self, key: K, value: V, weight: int = 1) -> None:
        self.pop(key)
        self._entries[key] = value, weight
        self._weight += weight
        while self._weight > self._bound:
            self.pop(next(iter(self._entries)))

    def pop(self, key: K) -> None:
        if entry := self._entries.pop(key, None):
            self._weight -= entry[1]

    def clear(self) -> None:
        self._entries.clear()
        self._weight = 0


class BackgroundTasks:
    """Keeps references to tasks until they end. Their exceptions are ignored, so the work must not raise any."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def start(self, work: Coroutine[Any, Any, Any]) -> None:
        # With a new context, so that the work does not write into the access log record of the current request.
        task = asyncio.create_task(work, context=Context())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Wait until the running tasks end."""
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def cancel(self) -> None:
        """End the running tasks."""
        for task in self._tasks:
            task.cancel()
        await self.close()


async def until_done(step: "asyncio.Future[Any]") -> None:
    """Wait until the step ends. Ignores cancellations of the waiting task meanwhile."""
    while not step.done():
        with suppress(asyncio.CancelledError):
            await asyncio.wait([step])


Item = TypeVar("Item")

_SLICE_SECONDS = 0.01


async def in_slices(items: Iterable[Item]) -> AsyncIterator[Item]:
    """The items, one after another. Other tasks run whenever 10 ms have been spent on them."""
    loop = asyncio.get_running_loop()
    end = loop.time() + _SLICE_SECONDS
    for item in items:
        yield item
        if loop.time() >= end:
            await asyncio.sleep(0)
            end = loop.time() + _SLICE_SECONDS


class SharedFetch(Generic[T]):
    """A running fetch. `result` is None until it has one, and if it failed."""

    def __init__(self) -> None:
        self.result: T | None = None
        self.done = asyncio.Event()
        self._work = current_watch()

    async def wait(self) -> T | None:
        """The result, when the fetch has ended."""
        with self._work.followed_by(current_watch()):
            await self.done.wait()
        return self.result


class SharedFetches(Generic[T]):
    """One request fetches, and the others wait for it. Unlike SingleFlight, it gives them no result: each must still
    prove its own permission.
    """

    def __init__(self) -> None:
        self._under_way: dict[Hashable, SharedFetch[T]] = {}

    def under_way(self, *keys: Hashable) -> SharedFetch[T] | None:
        """The first running fetch for one of these keys."""
        return next((turn for key in keys if (turn := self._under_way.get(key))), None)

    def also(self, key: Hashable, other: Hashable) -> None:
        """Requests with the key `other` wait for the running fetch of `key` too."""
        if turn := self._under_way.get(key):
            self._under_way.setdefault(other, turn)

    @asynccontextmanager
    async def lead(self, *keys: Hashable) -> AsyncIterator[SharedFetch[T]]:
        """Start the fetch of these keys, for which no fetch may be running. It ends with the context."""
        turn = SharedFetch[T]()
        self._under_way.update(dict.fromkeys(keys, turn))
        try:
            yield turn
        finally:
            for key in [key for key, known in self._under_way.items() if known is turn]:
                del self._under_way[key]
            turn.done.set()
