"""Links and cached tags are pruned together with the content that they lead to."""

import asyncio
import os
from collections.abc import Awaitable, Callable

import pytest

from domain.digest import Digest
from domain.records import ContentKind, ContentLocation
from tests.application.support.pulls import Pulls
from tests.application.support.service import IMAGE_DIGEST, LAYER, LAYER_DIGEST, NAME
from tests.application.support.watched import NOBODYS


class Cached(Pulls):
    """An image that an anonymous caller pulled."""

    async def begin(self) -> None:
        await self.pull(NOBODYS, name=NAME)
        await self.service.blob(NOBODYS)
        await asyncio.sleep(0)
        await self.service.parts.background().close()
        assert await self.leads() == (True, True, True)

    async def leads(self) -> tuple[bool, bool, bool]:
        """Whether there is a link to the layer, one to the manifest, and a cached tag."""
        storage, source = self.service.parts.storage(), self.service.parts.upstreams().source_of(NAME)
        locations = [
            ContentLocation(source, ContentKind.BLOB, LAYER_DIGEST),
            ContentLocation(source, ContentKind.MANIFEST, IMAGE_DIGEST),
        ]
        links = [await storage.index.find_link(location) is not None for location in locations]
        return links[0], links[1], bool(await storage.index.tags_of(source.upstream))


async def evicted(cached: Cached) -> None:
    sweep = cached.service.parts.eviction()
    await sweep._evict(1 << 40, 0)


async def purged(cached: Cached) -> None:
    inspect = cached.service.parts.manage_cache()
    await inspect.purge(cached.service.parts.upstreams().source_of(NAME), None)


async def pruned(cached: Cached) -> None:
    cached.service.clock.advance(10)
    await cached.service.parts.manage_cache().prune(5)


async def lost(cached: Cached) -> None:
    """As content is that somebody removed from the disk."""
    cached.service.parts.storage().store.disk.inodes.clear()  # type: ignore[attr-defined]
    await cached.service.parts.eviction().reconcile()


async def damaged(cached: Cached) -> None:
    for digest in (LAYER_DIGEST, IMAGE_DIGEST):
        _spoil(cached, digest)
    async for verdict in cached.service.parts.manage_cache().verify():
        assert not verdict.is_right


def _spoil(cached: Cached, digest: Digest) -> None:
    inode = cached.service.parts.storage().store.disk.inodes[digest]  # type: ignore[attr-defined]
    os.pwrite(inode.descriptor, b"!", 0)


@pytest.mark.parametrize("remove", [evicted, purged, pruned, lost, damaged])
def test_nothing_leads_to_content_that_was_removed(remove: Callable[[Cached], Awaitable[None]]) -> None:
    cached = Cached()

    async def act() -> None:
        await cached.begin()
        await remove(cached)
        assert await cached.leads() == (False, False, False)

    cached.run(act())


def test_content_that_turns_out_to_be_damaged_at_a_hit_is_removed_with_what_leads_to_it() -> None:
    cached = Cached()

    async def act() -> None:
        await cached.begin()
        cached.service.parts.manifest_cache().forget_all()
        _spoil(cached, IMAGE_DIGEST)
        assert await cached.service.parts.manifest_cache().get(cached.service.parts.upstream(), IMAGE_DIGEST) is None
        assert await cached.leads() == (True, False, False)

    cached.run(act())


def test_content_that_comes_back_is_led_to_again() -> None:
    cached = Cached()

    async def act() -> None:
        await cached.begin()
        await evicted(cached)
        cached.service.clock.advance(6)  # so long the link is remembered
        assert await cached.service.blob(NOBODYS) == LAYER
        await cached.service.parts.background().close()
        assert (await cached.leads())[0]

    cached.run(act())
