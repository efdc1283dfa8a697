"""How much is asked of one upstream at most."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Self

from aiolimiter import AsyncLimiter


@dataclass(frozen=True)
class Bounds:
    """`max_connections`: requests under way at once, with their bodies; `max_rate`: requests a second. None: any."""

    max_connections: int | None = None
    max_rate: float | None = None

    def share(self, row: int, rows: int) -> Self:
        """The part of one of several processes that keep to the bounds together without speaking to each other.

        There must be as many connections as processes, for one without any could ask nothing.
        """
        every, more = divmod(self.max_connections or 0, rows)
        return type(self)(
            every + (row < more) if self.max_connections else None,
            self.max_rate / rows if self.max_rate else None,
        )


class Gate:
    """Lets requests through, in the order in which they came. Whoever is within must not ask to be let in again."""

    def __init__(self, bounds: Bounds) -> None:
        self._slots = asyncio.Semaphore(bounds.max_connections) if bounds.max_connections else None
        # A bucket of one: with a larger one, a burst and what follows it would be twice the rate for a second.
        self._limiter = AsyncLimiter(1, 1 / bounds.max_rate) if bounds.max_rate else None

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """One of the connections, until the context is left."""
        if self._slots is None:
            yield
            return
        async with self._slots:
            yield

    async def turn(self) -> None:
        """Wait until one more request is in time."""
        if self._limiter is not None:
            await self._limiter.acquire()
