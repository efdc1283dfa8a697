"""What every ContentPlaces does."""

from dataclasses import replace

from domain.digest import Digest
from domain.names import Tag
from domain.records import ANONYMOUS_CLASS, CachedTag, ContentKind, Item, Link, TagKey
from tests.contracts.storage import HUB, NGINX, NGINX_AT_QUAY, QUAY, REDIS, Worker, by_two_workers

DIGEST, OTHER = Digest.of(b"content"), Digest.of(b"other")
NOW = 1_800_000_000.0
LINK = Link(Item(NGINX, ContentKind.MANIFEST, DIGEST), "application/json", 7, frozenset({ANONYMOUS_CLASS}))
PLACES = (NGINX, REDIS, NGINX_AT_QUAY)


@by_two_workers
async def test_nothing_leads_any_more_to_content_that_is_forgotten(one: Worker, other: Worker) -> None:
    for source in PLACES:
        for digest in (DIGEST, OTHER):
            for kind in ContentKind:
                await one.links.keep(replace(LINK, item=Item(source, kind, digest)), NOW)
            key = TagKey(source, Tag(digest.encoded[:8]), "")
            await one.tags.keep(CachedTag(key, digest, "application/json", NOW, ANONYMOUS_CLASS))
    for _ in range(2):
        await other.places.forget([DIGEST])
    for source in PLACES:
        assert {link.item.digest for link in await one.links.of(source)} == {OTHER}
    for upstream in (HUB, QUAY):
        assert {cached_tag.digest for cached_tag in await one.tags.of(upstream)} == {OTHER}
