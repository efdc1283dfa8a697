"""The port to the numbers that operators watch."""

from typing import Protocol


class MetricsPage(Protocol):
    """The sums over all workers."""

    def render(self) -> tuple[bytes, str]:
        """The page, and its media type."""
        ...
