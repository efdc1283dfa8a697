"""The port to what tags meant when they were last asked for."""

from typing import Protocol

from domain.names import Tag
from domain.records import TagMark
from domain.upstreams import Source, Upstream


class TagIndex(Protocol):
    """Marks, kept across restarts and shared by all workers; a bounded number of variants for each tag."""

    async def variants(self, source: Source, tag: Tag) -> list[TagMark]:
        """All marks of one tag, in any order."""
        ...

    async def keep(self, mark: TagMark) -> None:
        """Replaces the mark of the same key; the tag's oldest variants make room."""
        ...

    async def forget(self, source: Source, tag: Tag | None) -> None:
        """All variants of the tag, or of all tags of the repository."""
        ...

    async def of(self, upstream: Upstream) -> list[TagMark]:
        """All marks of all its repositories."""
        ...
