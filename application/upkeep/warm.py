"""WarmCache: pulls an image ahead of time, in the same way as a client."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from itertools import chain

from application.access.access_request import Caller
from application.blobs.blob_query import BlobQuery
from application.blobs.publish_stored import NoPublishing, PublishStored
from application.blobs.pull_blob import PullBlob
from application.manifests.manifest_cache import ManifestCache
from application.manifests.manifest_query import ManifestQuery
from application.manifests.pull_manifest import PullManifest
from application.ports.content import ContentPart
from domain.digest import Digest
from domain.errors import UpstreamBroken
from domain.manifests import MANIFEST_MEDIA_TYPES, Descriptor, ManifestWalk, descriptors_of
from domain.names import Reference, RepositoryName
from domain.upstream_table import NO_HINT, RegistryHint, UpstreamTable
from domain.value import Value

ANY_MANIFEST = (", ".join(MANIFEST_MEDIA_TYPES),)
"""The value of Accept in a request for a manifest of any kind."""
_AT_ONCE = 3
"""Concurrent blob downloads; the same number as docker."""


@dataclass(frozen=True)
class Image:
    """The image as a client names it at the mirror. `platforms`: each `os/architecture[/variant]`; none: all."""

    name: RepositoryName
    reference: Reference
    platforms: tuple[str, ...] = ()
    hint: RegistryHint = NO_HINT


class Progress(Value, frozen=True):
    """`total`: known bytes so far; `done`: bytes that are cached. Both only grow."""

    total: int
    done: int


class WarmCache:
    """Reads the whole image through the cache, and discards the bytes. With a shared store, it also writes what only
    this replica has to that store.
    """

    def __init__(
        self,
        manifests: PullManifest,
        blobs: PullBlob,
        upstreams: UpstreamTable,
        manifest_cache: ManifestCache,
        publish: PublishStored | NoPublishing,
    ) -> None:
        self._manifests = manifests
        self._blobs = blobs
        self._upstreams = upstreams
        self._manifest_cache = manifest_cache
        self._publish = publish

    async def __call__(self, caller: Caller, image: Image) -> AsyncGenerator[Progress, None]:
        """Yields the progress, first when all manifests are cached and no blob has been fetched yet. Raises the same
        errors as a pull, and NoSuchPlatform if the index has no image for one of the platforms.
        """
        manifests, layers = await self._content(caller, image)
        total, done = sum(one.size for one in layers), 0
        yield Progress(total, done)
        queue: asyncio.Queue[int | None] = asyncio.Queue()
        gate = asyncio.Semaphore(_AT_ONCE)

        async def fetch(digest: Digest) -> None:
            async with gate, self._blobs.open(caller, BlobQuery(image.name, digest, hint=image.hint)) as answer:
                assert answer.pieces  # noqa: S101 - a GET has a body
                async for piece in answer.pieces:
                    queue.put_nowait(piece.length if isinstance(piece, ContentPart) else len(piece))

        tasks = [asyncio.create_task(fetch(one.digest)) for one in layers]
        fetching = asyncio.gather(*tasks)
        fetching.add_done_callback(lambda _: queue.put_nowait(None))
        try:
            while (count := await queue.get()) is not None:
                done += count
                yield Progress(max(total, done), done)
            await fetching
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(fetching, *tasks, return_exceptions=True)
        upstream = self._upstreams.source_of(image.name, image.hint).upstream
        for manifest in manifests:
            await self._manifest_cache.share(upstream, manifest)
        for one in layers:
            if not await self._publish(upstream, one.digest):
                await fetch(one.digest)  # the cached file was damaged; the download publishes the right bytes

    async def _content(self, caller: Caller, image: Image) -> tuple[list[Digest], list[Descriptor]]:
        """The wanted manifests and their blobs, each once. Pulls the manifests, which are cached afterwards. Raises the
        same errors as a pull; NoSuchPlatform; UpstreamBroken if the image exceeds the limits of ManifestWalk.
        """
        manifests: dict[Digest, None] = {}
        found: dict[Digest, Descriptor] = {}
        walk = ManifestWalk()
        for reference in chain([image.reference], (Reference(digest) for digest in walk)):
            query = ManifestQuery(image.name, reference, ANY_MANIFEST, hint=image.hint)
            answer = await self._manifests(caller, query)
            manifests[answer.digest] = None
            named = descriptors_of(answer.content or b"")
            if reference == image.reference:
                check_platforms(named, image.platforms)
            children = [one for one in named if one.is_manifest and one.is_for(image.platforms)]
            walk.add(children)
            if walk.is_cut:
                raise UpstreamBroken("the image has more manifests, or more levels of indexes, than can be warmed")
            found |= {one.digest: one for one in named if not one.is_manifest}
        return list(manifests), list(found.values())


class NoSuchPlatform(Exception):
    """The image does not exist for a wanted platform. The message names the platforms that it exists for."""


def check_platforms(named: Sequence[Descriptor], platforms: Sequence[str]) -> None:
    """Raises NoSuchPlatform if an index names no manifest for one of the platforms. An image of one platform is not
    checked.
    """
    offered = [one for one in named if one.is_manifest]
    missing = [platform for platform in platforms if not any(one.is_for((platform,)) for one in offered)]
    if offered and missing:
        known = ", ".join(sorted({one.platform or "unknown" for one in offered}))
        raise NoSuchPlatform(f"the image does not support {', '.join(missing)}; it supports {known}")
