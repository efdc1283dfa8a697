"""CachedBlobs: the blobs in the content store, as far as they are served for an upstream."""

from application.access.provenance import Provenance
from application.concurrency import LruCache, SingleFlight
from application.eviction import Eviction
from application.ports.content import ContentStore, StorageRefused, StoredContent
from application.ports.telemetry import EventSink
from domain.digest import Digest
from domain.events import ContentDamaged
from domain.upstreams import Upstream

_REMEMBERED = 4096


class CachedBlobs:
    """Opens cached blobs, records their use, and removes those that are damaged."""

    def __init__(self, store: ContentStore, provenance: Provenance, eviction: Eviction, events: EventSink) -> None:
        self._store = store
        self._provenance = provenance
        self._eviction = eviction
        self._events = events
        self._checks = SingleFlight()
        self._intact: LruCache[Digest, object] = LruCache(_REMEMBERED)

    async def open(self, upstream: Upstream, digest: Digest) -> StoredContent | None:
        """The cached blob, if it is served for this upstream. The caller of the method closes it."""
        if not await self._provenance.serves(upstream, digest):
            return None
        return await self._store.open(digest)

    def used(self, digest: Digest) -> None:
        """A client receives the blob from the cache."""
        self._eviction.used(digest)

    async def is_intact(self, digest: Digest, stored: StoredContent, stated_size: int | None) -> bool:
        """Whether a cached file is right. `stated_size`: the size that the upstream states; None or 0 if it states
        none.

        If the sizes differ, either a power cut has shortened the file, or the stated size is wrong. Only the digest
        decides: otherwise an upstream could have any shared content removed. A file that was found right is not hashed
        again.
        """
        if stated_size in {None, 0, stored.size} or self._intact.get(digest) == stored.file.identity:
            return True
        try:
            is_right = await self._checks.do(digest, lambda: self._eviction.is_right(digest))
        except StorageRefused:
            return False  # content that cannot be read is fetched again
        if is_right:
            self._intact.put(digest, stored.file.identity)
        return bool(is_right)

    async def drop_damaged(self, digest: Digest) -> None:
        """Remove a blob whose file is damaged, so that it is fetched again."""
        self._events.emit(ContentDamaged(str(digest)))
        await self._eviction.drop(digest)
