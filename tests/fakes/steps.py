"""Slow steps that are done where they are wanted."""

from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


class InlineSteps:
    """Plays the SlowSteps, and counts them."""

    def __init__(self) -> None:
        self.count = 0

    async def run(self, step: Callable[[], T]) -> T:
        self.count += 1
        return step()
