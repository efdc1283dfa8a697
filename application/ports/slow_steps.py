"""The port to where a step is done that would hold the event loop up."""

from collections.abc import Callable
from typing import Protocol, TypeVar

T = TypeVar("T")


class SlowSteps(Protocol):
    """Does steps that only compute, a few of them at a time."""

    async def run(self, step: Callable[[], T]) -> T:
        """What the step gives or raises."""
        ...

    def close(self) -> None:
        """Steps that have begun go on to their end; none begins any more."""
        ...
