"""What several want at the same time is done once."""

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from typing import Any, TypeVar

from application.ports.upstream_queue import SharedWork, current_watch, watched_by

T = TypeVar("T")


class Joined:
    """Runs one task for each key. Whoever waits may leave: the others still get what they wait for."""

    def __init__(self) -> None:
        self._running: dict[Hashable, tuple[asyncio.Task[Any], SharedWork]] = {}

    async def do(self, key: Hashable, start: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """What `start` gives or raises, to all who ask with the same key while it runs."""
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

    def _finished(self, key: Hashable, task: asyncio.Task[Any]) -> None:
        self._running.pop(key, None)
        if not task.cancelled():
            task.exception()  # looked at, so that nobody complains where all who waited have left
