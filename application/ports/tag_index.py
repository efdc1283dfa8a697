"""The port to what tags meant when they were last asked for."""

from typing import Protocol

from domain.names import Tag
from domain.records import CachedTag, CallerClass
from domain.upstreams import Source, Upstream


class TagIndex(Protocol):
    """Marks, kept across restarts and shared by all workers. Their number is bounded: of variants for each tag and
    class of callers, and of marks for each upstream.
    """

    async def variants(self, source: Source, tag: Tag) -> list[CachedTag]:
        """All marks of one tag, in any order."""
        ...

    async def keep(self, cached_tag: CachedTag) -> None:
        """Replaces the mark of the same key and class. The oldest variants of the tag make room, and where an upstream
        has too many marks, those without stored content, then the oldest.
        """
        ...

    async def forget(self, source: Source, tag: Tag | None, from_class: CallerClass | None = None) -> None:
        """All variants of the tag, or of all tags of the repository; of this class of callers, or of all for None."""
        ...

    async def of(self, upstream: Upstream) -> list[CachedTag]:
        """All marks of all its repositories."""
        ...
