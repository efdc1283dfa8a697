"""Slow steps that are done where they are wanted."""

from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


class InlineSteps:
    """Implements the SlowSteps, and counts them."""

    def __init__(self) -> None:
        self.count = 0
        self.is_closed = False

    def close(self) -> None:
        self.is_closed = True

    async def run(self, step: Callable[[], T]) -> T:
        if self.is_closed:
            raise RuntimeError("no step begins any more")
        self.count += 1
        return step()


class TirelessSteps(InlineSteps):
    """The same, but there is no end of them."""

    def close(self) -> None:
        """Nothing ends."""
