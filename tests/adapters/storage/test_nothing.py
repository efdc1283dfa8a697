import asyncio

from adapters.storage import nothing
from application.ports.epoch import Epoch
from application.ports.grant_book import GrantBook
from application.ports.link_index import LinkIndex
from application.ports.stance_book import StanceBook
from application.ports.storage_keeper import Space, StorageKeeper
from application.ports.tag_index import TagIndex
from application.ports.token_book import CallerIdentity, TokenBook
from application.ports.usage_index import UsageIndex, Used
from domain.digest import Digest
from domain.names import Tag
from domain.records import ANONYMOUS_CALLER, ANONYMOUS_CLASS, ContentKind, Grant, Item, Link, TagKey, TagMark
from domain.trust import Stance
from tests.contracts.storage import HUB, NGINX

DIGEST = Digest.of(b"content")


def test_no_index_keeps_anything() -> None:
    asyncio.run(_links(nothing.NoLinkIndex()))
    asyncio.run(_tags(nothing.NoTagIndex()))
    asyncio.run(_grants(nothing.NoGrantBook()))
    asyncio.run(_books(nothing.NoTokenBook(), nothing.NoStanceBook()))
    asyncio.run(_upkeep(nothing.NoUsageIndex(), nothing.NoStorageKeeper(), nothing.NoEpoch()))


async def _links(links: LinkIndex) -> None:
    item = Item(NGINX, ContentKind.BLOB, DIGEST)
    await links.keep(Link(item, "text/plain", 7, frozenset({ANONYMOUS_CLASS})), 1.0)
    await links.forget(item)
    assert await links.find(item) is None
    assert await links.of(NGINX) == []


async def _tags(tags: TagIndex) -> None:
    key = TagKey(NGINX, Tag("latest"), "")
    await tags.keep(TagMark(key, DIGEST, "text/plain", 1.0, ANONYMOUS_CLASS))
    await tags.forget(NGINX, None)
    assert await tags.variants(NGINX, key.tag) == []
    assert await tags.of(HUB) == []


async def _grants(grants: GrantBook) -> None:
    await grants.keep(Grant(ANONYMOUS_CALLER, NGINX, 1.0, 2.0), 2.0)
    await grants.forget(ANONYMOUS_CALLER, NGINX)
    assert await grants.find(ANONYMOUS_CALLER, NGINX) is None


async def _books(tokens: TokenBook, stances: StanceBook) -> None:
    await tokens.keep("fingerprint", CallerIdentity(ANONYMOUS_CALLER, 1.0))
    await stances.keep(HUB, Stance())
    assert await tokens.find("fingerprint") is None
    assert await stances.find(HUB) is None


async def _upkeep(usage: UsageIndex, keeper: StorageKeeper, epoch: Epoch) -> None:
    await usage.keep([Used(DIGEST, 7, 1.0)])
    await usage.touch({DIGEST: 2.0})
    await usage.forget([DIGEST])
    assert await usage.all() == []
    assert await keeper.space() == Space(0, 0, 0)
    assert await keeper.contents() == {}
    assert await keeper.sweep_drafts() == 0
    await epoch.advance()
    assert await epoch.read() == 0
