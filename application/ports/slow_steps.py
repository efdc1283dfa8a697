"""The port to threads for computations that would block the event loop."""

from collections.abc import Callable
from typing import Protocol, TypeVar

T = TypeVar("T")


class SlowSteps(Protocol):
    """Runs computations in a few threads."""

    async def run(self, step: Callable[[], T]) -> T:
        """The result of the step. Raises what the step raises."""

    def close(self) -> None:
        """Finish the running steps, and start no further ones."""
