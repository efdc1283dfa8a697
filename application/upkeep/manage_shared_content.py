"""ManageSharedContent: what an operator can query and change in the store that all replicas share."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from collections.abc import Set as AbstractSet
from enum import Enum
from functools import partial
from typing import TypeVar

from application.manifests.manifest_cache import ManifestCache
from application.ports.pins import PinIndex
from application.ports.shared import (
    SHARDS,
    SharedContentDamaged,
    SharedKnowledge,
    SharedPins,
    SharedRecord,
    SharedStore,
    SharedUnavailable,
)
from application.upkeep.image_tree import TagEntry, tag_entries
from application.upkeep.manage_cache import ManageCache, content_to_purge
from application.upkeep.shared_content import SharedContent
from domain.digest import Digest, DigestCheck
from domain.names import Tag
from domain.pins import content_of
from domain.ports import Clock
from domain.upstreams import Source, Upstream
from domain.value import Value

T = TypeVar("T")

_AT_ONCE = 16
"""Requests to the store at the same time."""
_PAUSES = (6.0, 30.0)
"""Seconds after which `verify` asks a silent store again: it reads for hours, and a store may restart meanwhile."""


class SharedStatistics(Value, frozen=True):
    """`count`: records; `size`: their bytes with all parts; `unfinished`: bytes of the parts of blobs without a record.
    `oldest` and `newest`: times of last use in seconds since 1970; None if there is no content.
    """

    count: int
    size: int
    unfinished: int
    tags: int
    oldest: float | None
    newest: float | None


class State(Enum):
    """The result of hashing shared content again."""

    RIGHT = "right"
    DAMAGED = "damaged"
    UNREADABLE = "unreadable"
    """Its record is of another release, or damaged so that nobody uses it."""


class Removed(Value, frozen=True):
    """What a purge has removed from the shared store, and from the cache of this machine."""

    shared: list[Digest]
    local: list[Digest]


class ManageSharedContent:
    """Works at the same time as the replicas, on any machine that has their settings. All methods raise
    SharedUnavailable.
    """

    def __init__(
        self,
        content: SharedContent,
        store: SharedStore,
        knowledge: SharedKnowledge,
        local: ManageCache,
        manifest_cache: ManifestCache,
        pins: PinIndex,
        protection: SharedPins,
        clock: Clock,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """`local`: the cache of this machine, if it is a replica. `protection`: the content of pinned images; while it
        may not be complete, nothing is removed.
        """
        self._content = content
        self._store = store
        self._knowledge = knowledge
        self._local = local
        self._manifest_cache = manifest_cache
        self._pins = pins
        self._protection = protection
        self._clock = clock
        self._pause = pause

    async def statistics(self, upstreams: Sequence[Upstream]) -> SharedStatistics:
        """Lists the whole store."""
        tags = {
            (cached_tag.key.source, cached_tag.key.tag)
            for upstream in upstreams
            for cached_tag in await self._knowledge.tags_of(upstream)
        }
        count = size = unfinished = 0
        times: list[float] = []
        for shard in SHARDS:
            found = (await self._content.stored(shard)).values()
            whole = [one for one in found if one.recorded_at is not None]
            count += len(whole)
            size += sum(one.size for one in whole)
            unfinished += sum(one.size for one in found if one.recorded_at is None)
            used_at = [*times, *(one.used_at for one in whole)]
            times = [min(used_at), max(used_at)] if used_at else []
        oldest, newest = times or (None, None)
        return SharedStatistics(count, size, unfinished, len(tags), oldest, newest)

    async def tags(self, upstream: Upstream) -> list[TagEntry]:
        """Every tag that clients of any replica requested, and how much of its image is in the shared store."""
        images = _StoredImages(self._store)
        return await tag_entries(await self._knowledge.tags_of(upstream), images.manifest, images.find)

    async def verify(self) -> AsyncIterator[tuple[Digest, State]]:
        """Hash all content again. Damaged content is removed, and will be fetched again."""
        damaged: list[Digest] = []
        for shard in SHARDS:
            pauses = _PAUSES if shard != SHARDS[0] else ()
            unreadable: list[Digest] = []
            for digest in await self._patiently(partial(self._recorded, shard), pauses):
                is_right = await self._patiently(partial(self._is_right, digest))
                if is_right is None:
                    unreadable.append(digest)
                    continue
                if not is_right:
                    await self._drop(digest)
                    damaged.append(digest)
                yield digest, State.RIGHT if is_right else State.DAMAGED
            still_there = set(await self._recorded(shard)) if unreadable else set()
            for digest in unreadable:
                if digest in still_there and await self._store.find(digest) is None:
                    yield digest, State.UNREADABLE
        await self._content.forget(damaged)

    async def to_purge(self, source: Source, target: Tag | Digest | None) -> dict[Digest, int]:
        """The content that `purge` would remove from the shared store, with its bytes; without the parts of unfinished
        downloads. Raises ImagePinned; StorageFailed if the pins cannot be read.
        """
        images = _StoredImages(self._store)
        digests = await self._content_to_purge(source, target, images)
        await images.find(digests)
        return {digest: images.sizes[digest] for digest in digests if digest in images.sizes}

    async def purge(self, source: Source, target: Tag | Digest | None) -> Removed:
        """Remove an image, or all content of a repository, from the shared store and from the cache of this machine,
        and forget its tags and links on all replicas. Other replicas keep what is in their folders. What a pinned image
        shares stays. Raises ImagePinned; StorageFailed if their workers cannot be told.
        """
        digests = await self._content_to_purge(source, target, _StoredImages(self._store))
        # The tags go last: if this fails, the next purge still finds the content.
        shared = [digest for digest in digests if await self._drop(digest)]
        local = await self._local.purge(source, target, digests)
        await self._content.forget(shared)
        return Removed(shared, local)

    async def prune(self, older_than: float) -> tuple[int, int]:
        """Remove the content that no replica used for `older_than` seconds and no pinned image needs, and parts that no
        content needs. Returns the number of digests that were removed, and the removed bytes.
        """
        limit = self._clock.now() - older_than
        pruned: list[Digest] = []
        size = 0
        for shard in SHARDS:
            kept = await self._protection.protected()  # again for each shard: operators pin images meanwhile
            for digest, stored in (await self._content.stored(shard)).items():
                if stored.recorded_at is None or stored.used_at >= limit or digest in kept:
                    size += await self._content.sweep(digest, stored)
                else:
                    size += await self._content.drop(digest, stored)
                    pruned.append(digest)
        await self._content.forget(pruned)
        return len(pruned), size

    # --- images ---

    async def _content_to_purge(
        self, source: Source, target: Tag | Digest | None, images: "_StoredImages"
    ) -> list[Digest]:
        """The content of the image or of the repository that no pinned image needs. Raises ImagePinned."""
        pinned = await self._pins.all()
        kept = content_of(pinned) | await self._protection.protected()

        async def read(digest: Digest) -> bytes | None:
            return await self._manifest_cache.look(digest) or await images.manifest(digest)

        links = await self._knowledge.links_of(source)
        found = await content_to_purge(source, target, links, pinned, self._knowledge, read)
        return [digest for digest in found if digest not in kept]

    async def _drop(self, digest: Digest) -> bool:
        """Whether the store had something of it."""
        if stored := await self._content.of(digest):
            await self._content.drop(digest, stored)
        return stored is not None

    # --- digests ---

    async def _recorded(self, shard: str) -> list[Digest]:
        return [digest async for digest, _ in self._store.records(shard)]

    async def _is_right(self, digest: Digest) -> bool | None:
        """Whether the stored content matches its digest. True if another replica has just replaced it; None if it is
        not stored any more, or cannot be read.
        """
        record = await self._store.find(digest)
        if record is None:
            return None
        if await self._matches(digest, record):
            return True
        # Whoever removes content removes the record before the parts.
        again = await self._store.find(digest)
        return None if again is None else again != record

    async def _matches(self, digest: Digest, record: SharedRecord) -> bool:
        """Hashes the content, of which one part is in memory at a time."""
        check = DigestCheck(digest)
        check.update(record.content or b"")
        try:
            for part in record.parts:
                # In a thread: the hash of 16 MiB takes some ten milliseconds.
                await asyncio.to_thread(check.update, await self._store.get_part(part))
        except SharedContentDamaged:
            return False
        return check.holds

    async def _patiently(self, ask: Callable[[], Awaitable[T]], pauses: Sequence[float] = _PAUSES) -> T:
        """The answer of the store, which is asked again after each of the pauses. Raises SharedUnavailable."""
        for seconds in pauses:
            try:
                return await ask()
            except SharedUnavailable:
                await self._pause(seconds)
        return await ask()


class _StoredImages:
    """Manifests in the store, and which content it has. Asks for each digest once."""

    def __init__(self, store: SharedStore) -> None:
        self._store = store
        self.sizes: dict[Digest, int] = {}
        """The bytes of the content that the store has."""
        self._asked: set[Digest] = set()
        self._turns = asyncio.Semaphore(_AT_ONCE)

    async def manifest(self, digest: Digest) -> bytes | None:
        """See ReadManifest."""
        record = await self._record(digest)
        content = record.content if record else None
        return content if content is not None and digest.matches(content) else None

    async def find(self, digests: Collection[Digest]) -> AbstractSet[Digest]:
        """See FindStored."""
        asking = [self._record(digest) for digest in digests if digest not in self._asked]
        for answer in await asyncio.gather(*asking, return_exceptions=True):  # no request outlives the call
            if isinstance(answer, BaseException):
                raise answer
        return self.sizes.keys()

    async def _record(self, digest: Digest) -> SharedRecord | None:
        async with self._turns:
            record = await self._store.find(digest)
        self._asked.add(digest)
        if record:
            self.sizes[digest] = record.size
        return record
