"""ManifestCache: manifests by digest, in memory, in the content store, and in the store that replicas share."""

import asyncio
from contextlib import suppress
from dataclasses import replace

from application.access.access_request import PullAccess
from application.access.provenance import Provenance
from application.concurrency import BackgroundTasks, LruCache
from application.eviction import Eviction
from application.ports.content import ContentStore, StorageFailed, StorageFull
from application.ports.shared import SharedRecord, SharedStore, SharedUnavailable
from application.ports.telemetry import EventSink
from domain.digest import Digest
from domain.events import CacheWriteFailed, ContentDamaged, SharedBytesReceived, SharedBytesStored
from domain.upstreams import Upstream

_MEMORY = 24 * 1024 * 1024
"""Bytes in each worker: about ten thousand manifests of the usual size."""
_UPLOAD_SECONDS = 60.0
"""How long `share` waits for a running upload; the adapter of the store gives up before."""


class ManifestCache:
    """Returns bytes only if this process has hashed them since it read or received them."""

    def __init__(
        self,
        store: ContentStore,
        eviction: Eviction,
        provenance: Provenance,
        events: EventSink,
        background: BackgroundTasks,
        shared: SharedStore | None = None,
    ) -> None:
        """`shared`: None if this replica shares nothing."""
        self._store = store
        self._eviction = eviction
        self._provenance = provenance
        self._events = events
        self._background = background
        self._shared = shared
        self._memory: LruCache[Digest, bytes] = LruCache(_MEMORY)
        self._uploads: dict[Digest, asyncio.Event] = {}

    async def get(self, upstream: Upstream, digest: Digest) -> bytes | None:
        """The manifest; None if it is not cached, does not match its digest, or is not served for this upstream."""
        is_served = await self._provenance.serves(upstream, digest)
        content = await self.look(digest) if is_served else None
        if content is None:
            content = await self._from_shared(upstream, digest, is_served=is_served)
        if content is not None:
            self._eviction.used(digest)
        return content

    async def look(self, digest: Digest) -> bytes | None:
        """The manifest that this replica has, for any upstream. Does not count as use."""
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
        is_public = self._provenance.is_public(access)
        if self._shared:
            # Not awaited: a client waits for the manifest.
            ended = self._uploads[digest] = asyncio.Event()
            self._background.start(
                self._upload(self._shared, access.source.upstream, digest, content, ended, is_public=is_public)
            )
        await self._keep(access.source.upstream, digest, content, is_public=is_public)

    async def _keep(self, upstream: Upstream, digest: Digest, content: bytes, *, is_public: bool) -> None:
        try:
            await self._store.put(digest, content)
        except StorageFull:
            return
        except StorageFailed as error:
            self._events.emit(CacheWriteFailed(str(digest), str(error)))
            return
        self._memory.put(digest, content, len(content))
        self._provenance.sent(upstream, digest, is_public=is_public)
        await self._eviction.added(digest, len(content))

    # --- the store that replicas share ---

    async def _from_shared(self, upstream: Upstream, digest: Digest, *, is_served: bool) -> bytes | None:
        """The manifest that another replica has stored. `is_served`: the index knows that it is served for this
        upstream; otherwise the record in the shared store decides.
        """
        if self._shared is None:
            return None
        try:
            record = await self._shared.find(digest)
            if record is None or record.content is None or not (is_served or record.serves(upstream)):
                return None
            self._events.emit(SharedBytesReceived(len(record.content)))
            if not digest.matches(record.content):
                self._events.emit(ContentDamaged(str(digest)))
                await self._shared.drop(digest)
                return None
        except SharedUnavailable:
            return None
        await self._keep(upstream, digest, record.content, is_public=record.is_public)
        return record.content

    async def share(self, upstream: Upstream, digest: Digest) -> None:
        """Returns when the shared store has the manifest, if this replica has it and serves it for this upstream. A
        store that fails is reported by its adapter.
        """
        if self._shared is None or not await self._provenance.serves(upstream, digest):
            return
        await self.when_shared(digest, _UPLOAD_SECONDS)  # that record also says whether the manifest is public
        if (content := await self.look(digest)) is not None:
            await self._share(self._shared, upstream, digest, content, is_public=False)

    async def when_shared(self, digest: Digest, at_most: float) -> None:
        """Return when the other replicas can get the manifest, or when its upload has failed or has taken `at_most`
        seconds. Returns at once if no upload runs.
        """
        if ended := self._uploads.get(digest):
            with suppress(TimeoutError):
                await asyncio.wait_for(ended.wait(), at_most)

    async def _upload(
        self,
        shared: SharedStore,
        upstream: Upstream,
        digest: Digest,
        content: bytes,
        ended: asyncio.Event,
        *,
        is_public: bool,
    ) -> None:
        try:
            await self._share(shared, upstream, digest, content, is_public=is_public)
        finally:
            ended.set()
            if self._uploads.get(digest) is ended:
                del self._uploads[digest]

    async def _share(
        self,
        shared: SharedStore,
        upstream: Upstream,
        digest: Digest,
        content: bytes,
        *,
        is_public: bool,
    ) -> None:
        """Write the manifest to the shared store, unless it is there with all that is known of it."""
        try:
            record = SharedRecord(len(content), frozenset({upstream.fingerprint}), is_public, content)
            if older := await shared.find(digest):
                record = replace(record, senders=record.senders | older.senders, is_public=is_public or older.is_public)
            if record != older:
                await shared.put(digest, record)
                self._events.emit(SharedBytesStored(len(content)))
        except SharedUnavailable:
            pass  # the adapter reports it; the replica that fetches the manifest next stores it

    def forget_all(self) -> None:
        """Clear the memory. The content store is not changed."""
        self._memory.clear()
