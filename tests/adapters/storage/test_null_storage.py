import asyncio

from adapters.storage import null_storage as nothing
from application.ports.content import Space, StorageMaintenance
from application.ports.index import (
    CallerIdentity,
    Epoch,
    GrantStore,
    LinkIndex,
    TagIndex,
    TokenStore,
    UpstreamAuthStore,
    UsageIndex,
    Used,
)
from domain.digest import Digest
from domain.names import Tag
from domain.records import ANONYMOUS_CALLER, ANONYMOUS_CLASS, CachedTag, ContentKind, Grant, Item, Link, TagKey
from domain.trust import UpstreamAuth
from tests.contracts.storage import HUB, NGINX

DIGEST = Digest.of(b"content")


def test_no_index_keeps_anything() -> None:
    asyncio.run(_links(nothing.NullLinkIndex()))
    asyncio.run(_tags(nothing.NullTagIndex()))
    asyncio.run(_grants(nothing.NullGrantStore()))
    asyncio.run(_books(nothing.NullTokenStore(), nothing.NullUpstreamAuthStore()))
    asyncio.run(_upkeep(nothing.NullUsageIndex(), nothing.NullStorageMaintenance(), nothing.NullEpoch()))


async def _links(links: LinkIndex) -> None:
    item = Item(NGINX, ContentKind.BLOB, DIGEST)
    await links.keep(Link(item, "text/plain", 7, frozenset({ANONYMOUS_CLASS})), 1.0)
    await links.forget(item)
    assert await links.find(item) is None
    assert await links.of(NGINX) == []


async def _tags(tags: TagIndex) -> None:
    key = TagKey(NGINX, Tag("latest"), "")
    await tags.keep(CachedTag(key, DIGEST, "text/plain", 1.0, ANONYMOUS_CLASS))
    await tags.forget(NGINX, None)
    assert await tags.variants(NGINX, key.tag) == []
    assert await tags.of(HUB) == []


async def _grants(grants: GrantStore) -> None:
    await grants.keep(Grant(ANONYMOUS_CALLER, NGINX, 1.0, 2.0), 2.0)
    await grants.forget(ANONYMOUS_CALLER, NGINX)
    assert await grants.find(ANONYMOUS_CALLER, NGINX) is None


async def _books(tokens: TokenStore, upstream_auth: UpstreamAuthStore) -> None:
    await tokens.keep("fingerprint", CallerIdentity(ANONYMOUS_CALLER, 1.0))
    await upstream_auth.keep(HUB, UpstreamAuth())
    assert await tokens.find("fingerprint") is None
    assert await upstream_auth.find(HUB) is None


async def _upkeep(usage: UsageIndex, maintenance: StorageMaintenance, epoch: Epoch) -> None:
    await usage.keep([Used(DIGEST, 7, 1.0)])
    await usage.touch({DIGEST: 2.0})
    await usage.forget([DIGEST])
    assert await usage.all() == []
    assert await maintenance.space() == Space(0, 0, 0)
    assert await maintenance.contents() == {}
    assert await maintenance.remove_abandoned_partial_blobs() == 0
    await epoch.advance()
    assert await epoch.read() == 0
