"""The lists of images on a replica: what this replica has learnt, as far as it still holds on all replicas."""

import asyncio
from collections.abc import Iterable, Mapping

from application.ports.index import ImageIndex, KnowledgeIndex, Occurrence
from domain.digest import Digest
from domain.names import RepositoryName, Tag
from domain.records import CachedTag, CallerClass
from domain.upstreams import Source, Upstream

_ROUNDS = 4
"""Reads of the local list for one call. More than one are needed only if other replicas have removed tags."""


class ConfirmedImageIndex:
    """Implements ImageIndex."""

    def __init__(self, local: ImageIndex, knowledge: KnowledgeIndex) -> None:
        """`knowledge`: what all replicas know."""
        self._local = local
        self._knowledge = knowledge

    async def repositories(
        self, upstream: Upstream, classes: frozenset[CallerClass], containing: str, after: str, limit: int
    ) -> list[RepositoryName]:
        return await self._local.repositories(upstream, classes, containing, after, limit)

    async def first_tags(
        self, repositories: Mapping[Source, frozenset[CallerClass]], limit: int
    ) -> dict[Source, list[Tag]]:
        listed = await self._local.first_tags(repositories, limit)
        confirmed = await asyncio.gather(
            *(self._first_tags(source, repositories[source], tags, limit) for source, tags in listed.items())
        )
        return dict(zip(listed, confirmed, strict=True))

    async def _first_tags(
        self, source: Source, classes: frozenset[CallerClass], listed: list[Tag], limit: int
    ) -> list[Tag]:
        """The listed tags, or others if other replicas have removed some of them."""
        if all(await asyncio.gather(*(self._newest(source, tag, classes) for tag in listed))):
            return listed
        return [one.key.tag for one in await self.tags_in(source, classes, "", limit)]

    async def tags_in(self, source: Source, classes: frozenset[CallerClass], after: str, limit: int) -> list[CachedTag]:
        found: list[CachedTag] = []
        for _ in range(_ROUNDS):
            listed = await self._local.tags_in(source, classes, after, limit)
            known = await asyncio.gather(*(self._newest(source, one.key.tag, classes) for one in listed))
            found += filter(None, known)
            if len(listed) < limit or len(found) >= limit:
                break
            after = str(listed[-1].key.tag)
        return found[:limit]

    async def _newest(self, source: Source, tag: Tag, classes: frozenset[CallerClass]) -> CachedTag | None:
        """What all replicas know of the tag now; None if nothing that was given to one of these classes."""
        variants = await self._knowledge.find_tags(source, tag)
        given = [one for one in variants if one.caller_class in classes]
        return max(given, key=lambda one: one.checked_at, default=None)

    async def manifests_in(self, source: Source, classes: frozenset[CallerClass], limit: int) -> list[Digest]:
        return await self._local.manifests_in(source, classes, limit)

    async def occurrences(self, digests: Iterable[Digest], limit: int) -> list[Occurrence]:
        return await self._local.occurrences(digests, limit)
