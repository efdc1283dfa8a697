"""The port to threads for computations that would block the event loop."""

from collections.abc import Callable
from typing import Protocol, TypeVar

T = TypeVar("T")


class SlowSteps(Protocol):
    """Runs computations, a few at a time."""

    async def run(self, step: Callable[[], T]) -> T:
        """Returns or raises what the step does."""
        ...

    def close(self) -> None:
        """Steps that have begun are finished; no other step begins."""
        ...
