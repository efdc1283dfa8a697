"""A tag that another replica has removed is in no list."""

import asyncio

from adapters.confirmed_images import ConfirmedImageIndex
from domain.digest import Digest
from domain.names import Tag
from domain.records import ANONYMOUS_CLASS, CachedTag, ContentKind, ContentLocation, Link, TagKey
from tests.contracts.storage import HUB, NGINX, REDIS
from tests.fakes.index import MemoryImageIndex, MemoryKnowledgeIndex

ANYONE = frozenset({ANONYMOUS_CLASS})
DIGEST = Digest.of(b"1")


def test_tags_are_those_that_all_replicas_know() -> None:
    async def act() -> None:
        local, shared = MemoryKnowledgeIndex(), MemoryKnowledgeIndex()
        images = ConfirmedImageIndex(MemoryImageIndex(local), shared)
        for number in range(8):
            tag = CachedTag(TagKey(NGINX, Tag(f"v{number}"), ""), DIGEST, "application/json", 1.0, ANONYMOUS_CLASS)
            await local.keep_tag(tag)
            await shared.keep_tag(tag)
        for number in (0, 1, 2, 5):
            await shared.forget_tags(NGINX, Tag(f"v{number}"))
        found = await images.tags_in(NGINX, ANYONE, "", 3)
        assert [str(one.key.tag) for one in found] == ["v3", "v4", "v6"]
        assert [str(one.key.tag) for one in await images.tags_in(NGINX, ANYONE, "v6", 3)] == ["v7"]
        assert await images.tags_in(NGINX, frozenset(), "", 3) == []
        assert await images.first_tags({NGINX: ANYONE, REDIS: ANYONE}, 3) == {
            NGINX: [Tag("v3"), Tag("v4"), Tag("v6")],
            REDIS: [],
        }
        await local.keep_link(
            Link(ContentLocation(NGINX, ContentKind.MANIFEST, DIGEST), "application/json", 1, ANYONE), 1.0
        )
        assert await images.repositories(HUB, ANYONE, "", "", 9) == [NGINX.repository]
        assert await images.manifests_in(NGINX, ANYONE, 9) == [DIGEST]
        assert len(await images.occurrences([DIGEST], 9)) == 1

    asyncio.run(act())
