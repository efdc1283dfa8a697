"""ManageCache: what an operator can query and change in the cache."""

from collections.abc import AsyncIterator, Collection, Iterable, Sequence

from application.eviction import Eviction
from application.manifests.manifest_cache import ManifestCache
from application.ports.content import ContentStore, Space, StorageMaintenance
from application.ports.index import KnowledgeIndex, Stored, UsageIndex, Used
from application.ports.pins import PinIndex
from application.ports.shared import SharedKnowledge
from application.upkeep.image_tree import ReadManifest, TagEntry, image_tree, tag_entries
from domain.digest import Digest
from domain.names import Tag
from domain.pins import Pin, PinnedImage, content_of
from domain.ports import Clock
from domain.records import Link
from domain.upstreams import Source, Upstream
from domain.value import Value


class Statistics(Value, frozen=True):
    """`size`: bytes of all content. `pinned`: the content that pinned images need. `oldest` and `newest`: times of last
    use in seconds since 1970; None if there is no content.
    """

    count: int
    size: int
    pinned: Stored
    space: Space
    tags: int
    oldest: float | None
    newest: float | None


class ImagePinned(Exception):
    """The image, or an image of the repository, is pinned, and must be unpinned before it can be purged."""

    def __init__(self, source: Source, pin: Pin) -> None:
        super().__init__(f"{source.upstream.name}/{pin} is pinned and cannot be purged; unpin it first")
        self.source = source
        self.pin = pin


class Verdict(Value, frozen=True):
    """The result of hashing one piece of content again. `done`: bytes of the content that has been examined so far,
    with content that was evicted meanwhile; `total`: bytes of all content.
    """

    used: Used
    is_right: bool
    done: int
    total: int


class ManageCache:
    """Works on the same folder and index as a running service, at the same time."""

    def __init__(
        self,
        store: ContentStore,
        maintenance: StorageMaintenance,
        usage: UsageIndex,
        index: KnowledgeIndex,
        eviction: Eviction,
        manifest_cache: ManifestCache,
        pins: PinIndex,
        clock: Clock,
    ) -> None:
        self._store = store
        self._maintenance = maintenance
        self._usage = usage
        self._index = index
        self._eviction = eviction
        self._manifest_cache = manifest_cache
        self._pins = pins
        self._clock = clock

    async def statistics(self, upstreams: Sequence[Upstream]) -> Statistics:
        used = await self._usage.all()
        return Statistics(
            len(used),
            sum(one.size for one in used),
            await self._usage.pinned(),
            await self._maintenance.space(),
            len(
                {
                    (cached_tag.key.source, cached_tag.key.tag)
                    for one in upstreams
                    for cached_tag in await self._index.tags_of(one)
                }
            ),
            used[0].used_at if used else None,
            used[-1].used_at if used else None,
        )

    async def tags(self, upstream: Upstream) -> list[TagEntry]:
        """The output of `ls`: every tag that was requested, and how much of its image is cached."""
        held = {one.digest for one in await self._usage.all()}

        async def find(_: Collection[Digest]) -> set[Digest]:
            return held

        return await tag_entries(await self._index.tags_of(upstream), self._manifest_cache.look, find)

    async def verify(self) -> AsyncIterator[Verdict]:
        """Hash all content again. Wrong content is dropped, also that of pinned images, and will be fetched again.
        Raises StorageFailed.
        """
        everything = await self._usage.all()
        done, total, has_dropped = 0, sum(one.size for one in everything), False
        try:
            for used in everything:
                is_right = await self._eviction.is_right(used.digest)
                done += used.size
                if is_right is None:
                    continue  # it has been evicted since
                if not is_right:
                    has_dropped = True
                    await self._eviction.drop(used.digest)
                yield Verdict(used, is_right, done, total)
        finally:
            # Workers must forget what was dropped, also if the task was cancelled meanwhile.
            if has_dropped:
                await self._index.advance_epoch()

    async def to_purge(self, source: Source, target: Tag | Digest | None) -> list[Used]:
        """The stored content that `purge` would drop, the least recently used first. Raises the same errors."""
        pinned = await self._pins.all()
        links = await self._index.links_of(source)
        digests = await content_to_purge(source, target, links, pinned, self._index, self._manifest_cache.look)
        found = await self._usage.find(digests.keys() - content_of(pinned))
        return sorted(found.values(), key=lambda one: (one.used_at, str(one.digest)))

    async def purge(self, source: Source, target: Tag | Digest | None, known: Iterable[Digest] = ()) -> list[Digest]:
        """Remove an image by its tag or by the digest of its manifest, or all content of a repository; returns the
        digests that were dropped. A layer that another image shares is dropped too, and is fetched again at its next
        request, unless a pinned image needs it. `known`: content of the image, in case its manifests are not cached
        here. Raises ImagePinned; StorageFailed if the pins cannot be read or workers cannot be told.
        """
        pinned = await self._pins.all()
        links = await self._index.links_of(source)
        own = await content_to_purge(source, target, links, pinned, self._index, self._manifest_cache.look)
        digests = own | dict.fromkeys(known)
        if not isinstance(target, Digest):
            await self._index.forget_tags(source, target)
        kept = content_of(image for image in pinned if image.pin.is_in(source))
        for link in links:
            if link.location.digest in digests.keys() - kept:
                await self._index.forget_link(link.location)
        kept = content_of(pinned)
        dropped = [digest for digest in digests if digest not in kept and await self._eviction.holds(digest)]
        for digest in dropped:
            await self._eviction.drop(digest)
        await self._index.advance_epoch()
        return dropped

    async def to_prune(self, older_than: float) -> list[Used]:
        """The content that `prune` would drop."""
        limit = self._clock.now() - older_than
        return [one for one in await self._usage.evictable() if one.used_at < limit]

    async def prune(self, older_than: float) -> list[Used]:
        """Drop the content that was not used for `older_than` seconds and that no pinned image needs, and repair what a
        crash left behind. Returns the dropped content.
        """
        await self._maintenance.remove_abandoned_partial_blobs()
        await self._eviction.reconcile()
        dropped = await self.to_prune(older_than)
        for one in dropped:
            await self._eviction.drop(one.digest)
        await self._index.advance_epoch()
        return dropped


async def content_to_purge(
    source: Source,
    target: Tag | Digest | None,
    links: Iterable[Link],
    pinned: Iterable[PinnedImage],
    index: KnowledgeIndex | SharedKnowledge,
    read: ReadManifest,
) -> dict[Digest, None]:
    """The content of the image with this tag or digest, as far as its manifests are stored, or all content of the
    repository; also what a pinned image shares. Empty for a digest that the repository does not contain: others may
    contain it. `links`: all those of the repository in the index. Raises ImagePinned.
    """
    linked = dict.fromkeys(link.location.digest for link in links)
    if isinstance(target, Digest):
        roots = [target] if target in linked else []
    else:
        roots = [
            one.digest
            for one in await index.tags_of(source.upstream)
            if one.key.source == source and target in {None, one.key.tag}
        ]
    _require_unpinned(source, target, roots, pinned)
    digests = dict.fromkeys(roots)
    for root in roots:
        digests |= dict.fromkeys(await image_tree(root, read))
    return digests | linked if target is None else digests


def _require_unpinned(
    source: Source, target: Tag | Digest | None, roots: Collection[Digest], pinned: Iterable[PinnedImage]
) -> None:
    """Raises ImagePinned if the tag or the digest is pinned, or names content of a pinned image of this repository. For
    a repository: if one of its images is pinned. `roots`: the digests that `target` names.
    """
    for image in pinned:
        if image.pin.is_in(source) and (
            target is None or image.pin.reference.target == target or any(root in image.tree for root in roots)
        ):
            raise ImagePinned(source, image.pin)
