"""ManifestCache: manifests by digest, in memory and in the content store."""

from application.access.access_request import PullAccess
from application.access.provenance import Provenance
from application.concurrency import LruCache
from application.eviction import Eviction
from application.ports.content import ContentStore, StorageFailed, StorageFull
from application.ports.telemetry import EventSink
from domain.digest import Digest
from domain.events import CacheWriteFailed, ContentDamaged
from domain.upstreams import Upstream

_MEMORY = 24 * 1024 * 1024
"""Bytes in each worker: about ten thousand manifests of the usual size."""


class ManifestCache:
    """Returns bytes only if this process has hashed them since it read or received them."""

    def __init__(self, store: ContentStore, eviction: Eviction, provenance: Provenance, events: EventSink) -> None:
        self._store = store
        self._eviction = eviction
        self._provenance = provenance
        self._events = events
        self._memory: LruCache[Digest, bytes] = LruCache(_MEMORY)

    async def get(self, upstream: Upstream, digest: Digest) -> bytes | None:
        """The manifest; None if it is not cached, does not match its digest, or is not served for this upstream."""
        content = await self.look(digest) if await self._provenance.serves(upstream, digest) else None
        if content is not None:
            self._eviction.used(digest)
        return content

    async def look(self, digest: Digest) -> bytes | None:
        """Like `get`, for any upstream, but does not count as use."""
        if (content := self._memory.get(digest)) is not None:
            return content
        stored = await self._store.open(digest)
        if stored is None:
            return None
        try:
            content = await stored.read()
        finally:
            stored.file.close()
        if not digest.matches(content):
            self._events.emit(ContentDamaged(str(digest)))
            await self._eviction.drop(digest)
            return None
        self._memory.put(digest, content, len(content))
        return content

    async def put(self, access: PullAccess, digest: Digest, content: bytes) -> None:
        """Store a manifest whose digest is verified and which the upstream has sent to this caller. If there is no
        space, it is not stored.
        """
        try:
            await self._store.put(digest, content)
        except StorageFull:
            return
        except StorageFailed as error:
            self._events.emit(CacheWriteFailed(str(digest), str(error)))
            return
        self._memory.put(digest, content, len(content))
        self._provenance.sent(access.source.upstream, digest, is_public=self._provenance.is_public(access))
        await self._eviction.added(digest, len(content))

    def forget_all(self) -> None:
        """Clear the memory. The content store is not changed."""
        self._memory.clear()
