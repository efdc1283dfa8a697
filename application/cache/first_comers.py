"""FirstComers: what several need is fetched by the first; the others find it, and ask only whether they may."""

import asyncio
from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager

from application.ports.upstream_queue import QueueWatch, current_watch


class FirstComers:
    """Joined gives one answer to all who ask the same with the same right. Here each looks for himself, because what
    one was given is no proof of another's right.
    """

    def __init__(self) -> None:
        self._under_way: dict[Hashable, tuple[asyncio.Event, QueueWatch]] = {}

    @asynccontextmanager
    async def turn(self, key: Hashable) -> AsyncIterator[bool]:
        """Enter at once as the first (False), or when the first has left (True). Nobody waits twice: what the first
        did not get, all others try at once.
        """
        if under_way := self._under_way.get(key):
            ended, work = under_way
            with work.followed_by(current_watch()):
                await ended.wait()
            yield True
            return
        done = asyncio.Event()
        self._under_way[key] = done, current_watch()
        try:
            yield False
        finally:
            del self._under_way[key]
            done.set()
