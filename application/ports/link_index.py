"""The port to what is known to be where."""

from typing import Protocol

from domain.records import Item, Link
from domain.upstreams import Source


class LinkIndex(Protocol):
    """Links, kept across restarts and shared by all workers."""

    async def find(self, item: Item) -> Link | None: ...

    async def keep(self, link: Link) -> None:
        """Replaces the link of the same item."""
        ...

    async def forget(self, item: Item) -> None:
        """Nothing happens where there is none."""
        ...

    async def of(self, source: Source) -> list[Link]:
        """All links of a repository."""
        ...
