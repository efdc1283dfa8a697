"""The lists of images on a replica: what this replica has learnt, as far as it still holds on all replicas."""

import asyncio
from collections.abc import Iterable

from application.ports.index import ImageIndex, KnowledgeIndex, Occurrence
from domain.digest import Digest
from domain.names import RepositoryName
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

    async def tags_in(self, source: Source, classes: frozenset[CallerClass], after: str, limit: int) -> list[CachedTag]:
        found: list[CachedTag] = []
        for _ in range(_ROUNDS):
            listed = await self._local.tags_in(source, classes, after, limit)
            known = await asyncio.gather(*(self._knowledge.find_tags(source, one.key.tag) for one in listed))
            for variants in known:
                given = [one for one in variants if one.caller_class in classes]
                found += [max(given, key=lambda one: one.checked_at)] if given else []
            if len(listed) < limit or len(found) >= limit:
                break
            after = str(listed[-1].key.tag)
        return found[:limit]

    async def manifests_in(self, source: Source, classes: frozenset[CallerClass], limit: int) -> list[Digest]:
        return await self._local.manifests_in(source, classes, limit)

    async def occurrences(self, digests: Iterable[Digest], limit: int) -> list[Occurrence]:
        return await self._local.occurrences(digests, limit)
