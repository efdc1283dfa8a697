"""WarmCache: pulls an image ahead of time, in the same way as a client."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from itertools import chain

from application.access.access_request import Caller
from application.blobs.blob_query import BlobQuery
from application.blobs.pull_blob import PullBlob
from application.manifests.manifest_query import ManifestQuery
from application.manifests.pull_manifest import PullManifest
from application.ports.content import ContentPart
from domain.digest import Digest
from domain.errors import UpstreamBroken
from domain.manifests import MANIFEST_MEDIA_TYPES, Descriptor, ManifestWalk, descriptors_of
from domain.names import Reference, RepositoryName
from domain.upstream_table import NO_HINT, RegistryHint

_ACCEPT = (", ".join(MANIFEST_MEDIA_TYPES),)
_AT_ONCE = 3
"""Concurrent blob downloads; the same number as docker."""


@dataclass(frozen=True)
class Image:
    """The image as a client names it at the mirror. `platform`: `os/architecture[/variant]`; None: all platforms."""

    name: RepositoryName
    reference: Reference
    platform: str | None = None
    hint: RegistryHint = NO_HINT


@dataclass(frozen=True)
class Progress:
    """`total`: known bytes so far; `done`: bytes that are cached. Both only grow."""

    total: int
    done: int


class WarmCache:
    """Reads the whole image through the cache, and discards the bytes."""

    def __init__(self, manifests: PullManifest, blobs: PullBlob) -> None:
        self._manifests = manifests
        self._blobs = blobs

    async def __call__(self, caller: Caller, image: Image) -> AsyncIterator[Progress]:
        """Yields the progress. Raises the same errors as a pull, and NoSuchPlatform if the index has no image for the
        platform.
        """
        layers = await self._layers(caller, image)
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

    async def _layers(self, caller: Caller, image: Image) -> list[Descriptor]:
        """The blobs of all wanted manifests, each once. Pulls the manifests, which are cached afterwards. Raises the
        same errors as a pull; NoSuchPlatform; UpstreamBroken if the image exceeds the limits of ManifestWalk.
        """
        found: dict[Digest, Descriptor] = {}
        is_matched = False
        walk = ManifestWalk()
        for reference in chain([image.reference], (Reference(digest) for digest in walk)):
            query = ManifestQuery(image.name, reference, _ACCEPT, hint=image.hint)
            answer = await self._manifests(caller, query)
            named = descriptors_of(answer.content or b"")
            children = [one for one in named if one.is_manifest and _is_wanted(one, image.platform)]
            is_matched = is_matched or bool(children)
            if any(one.is_manifest for one in named) and not is_matched:
                offered = ", ".join(sorted({one.platform or "unknown" for one in named if one.is_manifest}))
                raise NoSuchPlatform(f"the image does not support {image.platform}; it supports {offered}")
            walk.add(children)
            if walk.is_cut:
                raise UpstreamBroken("the image has more manifests, or more levels of indexes, than can be warmed")
            found |= {one.digest: one for one in named if not one.is_manifest}
        return list(found.values())


class NoSuchPlatform(Exception):
    """The image does not exist for the wanted platform. The message names the platforms that it exists for."""


def _is_wanted(one: Descriptor, platform: str | None) -> bool:
    """`linux/arm64` includes `linux/arm64/v8`."""
    return platform is None or one.platform == platform or (one.platform or "").startswith(f"{platform}/")
