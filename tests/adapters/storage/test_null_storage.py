import pytest

from adapters.storage.null_storage import NullPinIndex, NullStorageMaintenance
from adapters.storage.sqlite_database import NoDatabase
from adapters.storage.sqlite_index import SqliteKnowledgeIndex, SqliteUsageIndex
from application.ports.content import Space, StorageFailed
from application.ports.index import CallerIdentity, Stored, Used
from domain.digest import Digest
from domain.names import Tag
from domain.records import (
    ANONYMOUS_CALLER,
    ANONYMOUS_CLASS,
    CachedTag,
    ContentKind,
    ContentLocation,
    Grant,
    Link,
    TagKey,
)
from domain.trust import UpstreamAuth
from tests.contracts.storage import HUB, NGINX
from tests.contracts.test_pin_index import PINNED
from tests.fakes.clock import StoppedClock

DIGEST = Digest.of(b"content")


async def test_an_index_without_a_database_keeps_nothing() -> None:
    index = SqliteKnowledgeIndex(NoDatabase(), StoppedClock())
    location, key = ContentLocation(NGINX, ContentKind.BLOB, DIGEST), TagKey(NGINX, Tag("latest"), "")
    await index.keep_link(Link(location, "text/plain", 7, frozenset({ANONYMOUS_CLASS})), 1.0)
    await index.keep_tag(CachedTag(key, DIGEST, "text/plain", 1.0, ANONYMOUS_CLASS))
    await index.keep_sent(HUB, DIGEST, is_public=True)
    await index.keep_grant(Grant(ANONYMOUS_CALLER, NGINX, 1.0, 2.0), 2.0)
    await index.keep_token("fingerprint", CallerIdentity(ANONYMOUS_CALLER, 1.0))
    await index.keep_upstream_auth(HUB, UpstreamAuth())
    assert await index.find_link(location) is None
    assert await index.links_of(NGINX) == []
    assert await index.find_tags(NGINX, key.tag) == []
    assert await index.tags_of(HUB) == []
    assert not await index.was_sent(HUB, DIGEST)
    assert await index.find_grant(ANONYMOUS_CALLER, NGINX) is None
    assert await index.find_token("fingerprint") is None
    assert await index.find_upstream_auth(HUB) is None
    await index.forget_link(location)
    await index.forget_tags(NGINX, None)
    await index.forget_content([DIGEST])
    await index.forget_grant(ANONYMOUS_CALLER, NGINX)
    await index.advance_epoch()
    assert await index.epoch() == 0


async def test_usage_without_a_database_keeps_nothing() -> None:
    usage = SqliteUsageIndex(NoDatabase())
    await usage.keep([Used(DIGEST, 7, 1.0)])
    await usage.touch({DIGEST: 2.0})
    await usage.forget([DIGEST])
    assert await usage.all() == []
    assert await usage.total() == Stored()


async def test_null_maintenance_finds_nothing() -> None:
    maintenance = NullStorageMaintenance()
    assert await maintenance.space() == Space(0, 0, 0)
    assert await maintenance.contents() == {}
    assert await maintenance.remove_abandoned_partial_blobs() == 0


async def test_no_image_is_pinned_without_a_cache() -> None:
    pins = NullPinIndex()
    with pytest.raises(StorageFailed, match="the cache is off"):
        await pins.keep(PINNED)
    await pins.update(PINNED)
    assert list(await pins.all()) == []
    assert not await pins.forget(PINNED.pin)
    assert not await pins.lead(60.0)
