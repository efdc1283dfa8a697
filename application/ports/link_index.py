"""The port to what is known to be where."""

from typing import Protocol

from domain.records import CallerClass, Item, Link
from domain.upstreams import Source


class LinkIndex(Protocol):
    """Links, kept across restarts and shared by all workers; a bounded number for each upstream."""

    async def find(self, item: Item) -> Link | None:
        """The link with all classes of callers that the item was given to, by the newest word of the upstream."""
        ...

    async def keep(self, link: Link, now: float) -> None:
        """Adds the link's classes to those that are known; `now` in seconds since 1970. Where an upstream has too
        many links, those without stored content go first, then the oldest.
        """
        ...

    async def forget(self, item: Item, from_class: CallerClass | None = None) -> None:
        """For this class of callers, to which the upstream refused it; None is for all. Nothing happens where there is
        none.
        """
        ...

    async def of(self, source: Source) -> list[Link]:
        """All links of a repository."""
        ...
