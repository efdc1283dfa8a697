"""A clock that moves only when a test advances it, in the time zone UTC."""

import asyncio


class StoppedClock:
    """Implements the Clock."""

    def __init__(self, now: float = 1_800_000_000.0) -> None:
        self._now = now

    def now(self) -> float:
        return self._now

    def midnight(self) -> float:
        return self._now // 86400 * 86400

    async def pause(self, seconds: float) -> None:
        """Replaces `asyncio.sleep`: let other tasks run once, and advance this clock."""
        await asyncio.sleep(0)
        self.advance(seconds)

    def advance(self, seconds: float) -> None:
        self._now += seconds
