"""A clock that moves only when a test advances it."""

import asyncio


class StoppedClock:
    """Implements the Clock."""

    def __init__(self, now: float = 1_800_000_000.0) -> None:
        self._now = now

    def now(self) -> float:
        return self._now

    async def pause(self, seconds: float) -> None:
        """In place of asyncio's sleep: others have had their turn, and this clock has gone on."""
        await asyncio.sleep(0)
        self.advance(seconds)

    def advance(self, seconds: float) -> None:
        self._now += seconds
