"""FirstComers: what several need is fetched by the first; the others find it, and ask only whether they may."""

import asyncio
from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager
from typing import Generic, TypeVar

from application.ports.upstream_queue import current_watch

T = TypeVar("T")


class Turn(Generic[T]):
    """One fetch under way. `result` is what it got, None as long as it has nothing and where it failed."""

    def __init__(self) -> None:
        self.result: T | None = None
        self.done = asyncio.Event()
        self._work = current_watch()

    async def wait(self) -> T | None:
        """The result, when the fetch has ended."""
        with self._work.followed_by(current_watch()):
            await self.done.wait()
        return self.result


class FirstComers(Generic[T]):
    """Joined gives one answer to all who ask the same with the same right. Here each looks for himself, because what
    one was given is no proof of another's right.
    """

    def __init__(self) -> None:
        self._under_way: dict[Hashable, Turn[T]] = {}

    def under_way(self, *keys: Hashable) -> Turn[T] | None:
        """The first turn that is under way for one of these keys."""
        return next((turn for key in keys if (turn := self._under_way.get(key))), None)

    def also(self, key: Hashable, other: Hashable) -> None:
        """Who asks by the `other` key waits for the turn of `key` too, where that is under way."""
        if turn := self._under_way.get(key):
            self._under_way.setdefault(other, turn)

    @asynccontextmanager
    async def lead(self, *keys: Hashable) -> AsyncIterator[Turn[T]]:
        """The turn of these keys, none of which may be under way. It ends with the context."""
        turn = Turn[T]()
        self._under_way.update(dict.fromkeys(keys, turn))
        try:
            yield turn
        finally:
            for key in [key for key, known in self._under_way.items() if known is turn]:
                del self._under_way[key]
            turn.done.set()
