"""FirstComers: what several need is fetched by the first; the others find it, and ask only whether they may."""

import asyncio
from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager


class FirstComers:
    """Joined gives one answer to all who ask the same with the same right. Here each looks for himself, because what
    one was given is no proof of another's right.
    """

    def __init__(self) -> None:
        self._under_way: dict[Hashable, asyncio.Event] = {}

    @asynccontextmanager
    async def turn(self, key: Hashable) -> AsyncIterator[bool]:
        """Enter at once as the first (False), or when the first has left (True). Nobody waits twice: what the first
        did not get, all others try at once.
        """
        if under_way := self._under_way.get(key):
            await under_way.wait()
            yield True
            return
        done = self._under_way[key] = asyncio.Event()
        try:
            yield False
        finally:
            del self._under_way[key]
            done.set()
