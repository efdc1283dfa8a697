"""Slow steps that run at once in the calling task."""

from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


class InlineSteps:
    """Implements SlowSteps, and counts the steps."""

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
    """Slow steps that still run after `close`."""

    def close(self) -> None:
        """Does nothing."""
