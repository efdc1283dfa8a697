"""The contract of KnowledgeIndex."""

from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from pathlib import Path

import pytest

from adapters.storage.sqlite_database import SqliteDatabase
from adapters.storage.sqlite_index import SqliteKnowledgeIndex, SqliteUsageIndex
from adapters.storage.sqlite_pins import SqlitePinIndex
from application.ports.index import CallerIdentity, KnowledgeIndex, Used
from domain.challenge import Challenge
from domain.digest import Digest
from domain.names import Reference, Tag
from domain.pins import Pin, PinnedImage
from domain.records import (
    ANONYMOUS_CALLER,
    ANONYMOUS_CLASS,
    PERSONAL_CLASS,
    CachedTag,
    CallerClass,
    CallerId,
    ContentKind,
    ContentLocation,
    Grant,
    Link,
    TagKey,
    mirror_caller,
)
from domain.trust import UpstreamAuth
from domain.upstreams import Source
from tests.contracts.indexes import (
    FORGETTING_KINDS,
    INDEX_KINDS,
    IndexWorker,
    by_two_workers_of,
    index_of,
    server_for,
)
from tests.contracts.storage import HUB, NGINX, NGINX_AT_QUAY, QUAY, REDIS
from tests.fakes.clock import StoppedClock

by_two_workers = by_two_workers_of(INDEX_KINDS)

# --- links ---

DIGEST, OTHER_DIGEST = Digest.of(b"content"), Digest.of(b"other")
NOW = 1_800_000_000.0
ANONYMOUS_ONLY = frozenset({ANONYMOUS_CLASS})
BLOB = Link(ContentLocation(NGINX, ContentKind.BLOB, DIGEST), "application/octet-stream", 7, ANONYMOUS_ONLY)
MANIFEST = Link(
    ContentLocation(NGINX, ContentKind.MANIFEST, DIGEST),
    "application/vnd.oci.image.index.v1+json",
    None,
    ANONYMOUS_ONLY,
)
ELSEWHERE = [replace(BLOB, location=replace(BLOB.location, source=source)) for source in (REDIS, NGINX_AT_QUAY)]


@by_two_workers
async def test_a_stored_link_is_found_by_all_workers(one: IndexWorker, other: IndexWorker) -> None:
    for link in (BLOB, MANIFEST):
        assert await one.index.find_link(link.location) is None
        await one.index.keep_link(link, NOW)
        assert await one.index.find_link(link.location) == await other.index.find_link(link.location) == link


@by_two_workers
async def test_a_link_belongs_to_one_repository_one_kind_and_one_digest(one: IndexWorker, other: IndexWorker) -> None:
    await one.index.keep_link(BLOB, NOW)
    others = [
        MANIFEST.location,
        *(link.location for link in ELSEWHERE),
        replace(BLOB.location, digest=Digest.of(b"other")),
    ]
    others.append(replace(BLOB.location, digest=Digest.of(b"content", "sha512")))
    assert [await one.index.find_link(location) for location in others] == [None] * len(others)


@by_two_workers
async def test_a_newer_link_replaces_the_older_one(one: IndexWorker, other: IndexWorker) -> None:
    await one.index.keep_link(BLOB, NOW)
    newer = replace(BLOB, media_type="text/plain; charset=é", size=2**40)
    await other.index.keep_link(newer, NOW)
    assert await one.index.find_link(BLOB.location) == newer
    assert await one.index.links_of(NGINX) == [newer]


@by_two_workers
async def test_a_deleted_link_is_not_found(one: IndexWorker, other: IndexWorker) -> None:
    for link in (BLOB, MANIFEST, *ELSEWHERE):
        await one.index.keep_link(link, NOW)
    for _ in range(2):
        await other.index.forget_link(BLOB.location)
    assert await one.index.find_link(BLOB.location) is None
    assert [await one.index.find_link(link.location) for link in (MANIFEST, *ELSEWHERE)] == [MANIFEST, *ELSEWHERE]


@by_two_workers
async def test_all_links_of_a_repository_are_listed(one: IndexWorker, other: IndexWorker) -> None:
    assert await one.index.links_of(NGINX) == []
    for link in (BLOB, MANIFEST, *ELSEWHERE):
        await one.index.keep_link(link, NOW)
    assert set(await other.index.links_of(NGINX)) == {BLOB, MANIFEST}
    assert await other.index.links_of(NGINX_AT_QUAY) == ELSEWHERE[1:]


@by_two_workers
async def test_a_link_belongs_to_the_address_of_its_upstream(one: IndexWorker, other: IndexWorker) -> None:
    await one.index.keep_link(BLOB, NOW)
    source = replace(NGINX, upstream=replace(HUB, search_url="https://search.test"))
    location = replace(BLOB.location, source=source)
    assert await one.index.find_link(location) == replace(BLOB, location=location)
    assert await one.index.links_of(source) == [replace(BLOB, location=location)]


@by_two_workers
async def test_a_link_has_all_caller_classes_that_it_was_given_to(one: IndexWorker, other: IndexWorker) -> None:
    mirror = CallerClass("mirror 1")
    await one.index.keep_link(BLOB, NOW)
    await other.index.keep_link(replace(BLOB, size=8, caller_classes=frozenset({PERSONAL_CLASS, mirror})), NOW + 1)
    assert await one.index.find_link(BLOB.location) == replace(
        BLOB, size=8, caller_classes=ANONYMOUS_ONLY | {PERSONAL_CLASS, mirror}
    )
    assert await one.index.links_of(NGINX) == [await other.index.find_link(BLOB.location)]


@by_two_workers
async def test_a_link_is_deleted_for_one_caller_class_and_stays_for_the_others(
    one: IndexWorker, other: IndexWorker
) -> None:
    await one.index.keep_link(replace(BLOB, caller_classes=ANONYMOUS_ONLY | {PERSONAL_CLASS}), NOW)
    await one.index.keep_link(MANIFEST, NOW)
    for _ in range(2):
        await other.index.forget_link(BLOB.location, ANONYMOUS_CLASS)
    assert await one.index.find_link(BLOB.location) == replace(BLOB, caller_classes=frozenset({PERSONAL_CLASS}))
    await other.index.forget_link(BLOB.location, PERSONAL_CLASS)
    assert await one.index.find_link(BLOB.location) is None
    assert await one.index.find_link(MANIFEST.location) == MANIFEST


@by_two_workers
async def test_a_link_can_be_read_as_it_was_given_since_some_time(one: IndexWorker, other: IndexWorker) -> None:
    await one.index.keep_link(BLOB, NOW)
    await one.index.keep_link(replace(BLOB, caller_classes=frozenset({PERSONAL_CLASS})), NOW + 2)
    since_then = replace(BLOB, caller_classes=frozenset({PERSONAL_CLASS}))
    assert await other.index.find_link(BLOB.location, since=NOW + 1) == since_then
    assert await other.index.find_link(BLOB.location, since=NOW + 2) is None
    await one.index.keep_link(BLOB, NOW + 3)
    both = replace(BLOB, caller_classes=ANONYMOUS_ONLY | {PERSONAL_CLASS})
    assert await other.index.find_link(BLOB.location, since=NOW + 1) == both


# --- tags ---

LATEST = Tag("latest")
KEY = TagKey(NGINX, LATEST, "a,b")
CACHED = CachedTag(KEY, Digest.of(b"one"), "application/json", 1_800_000_000.25, ANONYMOUS_CLASS)
OTHER_KEYS = [
    replace(KEY, variant=""),
    replace(KEY, tag=Tag("Latest")),
    replace(KEY, source=REDIS),
    replace(KEY, source=NGINX_AT_QUAY),
]


def cached_tag(number: int, checked_at: float) -> CachedTag:
    return replace(CACHED, key=replace(KEY, variant=str(number)), checked_at=checked_at)


async def variant(worker: IndexWorker, key: TagKey) -> CachedTag | None:
    """The cached tag with exactly this key."""
    return next((one for one in await worker.index.find_tags(key.source, key.tag) if one.key == key), None)


@by_two_workers
async def test_a_cached_tag_is_found_by_all_workers_only_under_its_key(one: IndexWorker, other: IndexWorker) -> None:
    assert await variant(one, KEY) is None
    await one.index.keep_tag(CACHED)
    assert await variant(one, KEY) == await variant(other, KEY) == CACHED
    assert [await variant(one, key) for key in OTHER_KEYS] == [None] * len(OTHER_KEYS)


@by_two_workers
async def test_a_newer_cached_tag_replaces_the_older_one(one: IndexWorker, other: IndexWorker) -> None:
    await one.index.keep_tag(CACHED)
    newer = CachedTag(KEY, Digest.of(b"two", "sha512"), "text/plain", CACHED.checked_at + 1, ANONYMOUS_CLASS)
    await other.index.keep_tag(newer)
    assert await variant(one, KEY) == newer


@by_two_workers
async def test_a_tag_is_deleted_with_all_variants(one: IndexWorker, other: IndexWorker) -> None:
    for key in (KEY, *OTHER_KEYS):
        await one.index.keep_tag(replace(CACHED, key=key))
    for _ in range(2):
        await other.index.forget_tags(NGINX, LATEST)
    found = [await variant(one, key) for key in (KEY, *OTHER_KEYS)]
    assert [each is None for each in found] == [True, True, False, False, False]


@by_two_workers
async def test_all_tags_of_a_repository_are_deleted(one: IndexWorker, other: IndexWorker) -> None:
    for key in (KEY, *OTHER_KEYS):
        await one.index.keep_tag(replace(CACHED, key=key))
    await other.index.forget_tags(NGINX, None)
    found = [await variant(one, key) for key in (KEY, *OTHER_KEYS)]
    assert [each is None for each in found] == [True, True, True, False, False]


@by_two_workers
async def test_all_cached_tags_of_an_upstream_are_listed(one: IndexWorker, other: IndexWorker) -> None:
    assert await one.index.tags_of(HUB) == []
    for key in (KEY, *OTHER_KEYS):
        await one.index.keep_tag(replace(CACHED, key=key))
    assert {each.key for each in await other.index.tags_of(HUB)} == {KEY, *OTHER_KEYS[:3]}
    assert await other.index.tags_of(QUAY) == [replace(CACHED, key=OTHER_KEYS[3])]


@by_two_workers
async def test_of_many_variants_the_oldest_are_removed(one: IndexWorker, other: IndexWorker) -> None:
    await one.index.keep_tag(replace(CACHED, key=OTHER_KEYS[1]))
    for number in range(16):
        await one.index.keep_tag(cached_tag(number, 1000.0 + (number - 5) % 16))  # the sixth is the oldest
    await one.index.keep_tag(cached_tag(16, 2000.0))
    found = [await variant(one, cached_tag(number, 0).key) for number in range(17)]
    assert [number for number, each in enumerate(found) if each is None] == [5]
    assert await variant(one, OTHER_KEYS[1])


@by_two_workers
async def test_the_newest_variant_is_kept_even_if_all_have_the_same_time(one: IndexWorker, other: IndexWorker) -> None:
    for number in range(40):
        await one.index.keep_tag(cached_tag(number, 1000.0))
        assert await variant(one, cached_tag(number, 0).key)
    assert len(await one.index.find_tags(NGINX, LATEST)) == 16


@by_two_workers
async def test_a_cached_tag_belongs_to_the_address_of_its_upstream(one: IndexWorker, other: IndexWorker) -> None:
    await one.index.keep_tag(CACHED)
    upstream = replace(HUB, search_url="https://search.test")
    key = replace(KEY, source=replace(NGINX, upstream=upstream))
    assert await variant(one, key) == replace(CACHED, key=key)
    assert await one.index.tags_of(upstream) == [replace(CACHED, key=key)]


@by_two_workers
async def test_each_caller_class_has_its_own_cached_tag(one: IndexWorker, other: IndexWorker) -> None:
    personal = replace(CACHED, digest=Digest.of(b"two"), caller_class=PERSONAL_CLASS)
    await one.index.keep_tag(CACHED)
    await other.index.keep_tag(personal)
    assert set(await one.index.find_tags(NGINX, LATEST)) == {CACHED, personal}
    await one.index.forget_tags(NGINX, LATEST, ANONYMOUS_CLASS)
    assert await other.index.find_tags(NGINX, LATEST) == [personal]


@by_two_workers
async def test_variants_of_one_caller_class_do_not_displace_those_of_another(
    one: IndexWorker, other: IndexWorker
) -> None:
    await one.index.keep_tag(replace(CACHED, checked_at=1.0))
    for number in range(17):
        await other.index.keep_tag(replace(cached_tag(number, 1000.0 + number), caller_class=PERSONAL_CLASS))
    found = await one.index.find_tags(NGINX, LATEST)
    assert sum(each.caller_class == PERSONAL_CLASS for each in found) == 16
    assert sum(each.caller_class == ANONYMOUS_CLASS for each in found) == 1


# --- which upstream sent the content ---


@by_two_workers
async def test_unknown_content_counts_as_not_sent(one: IndexWorker, other: IndexWorker) -> None:
    assert not await one.index.was_sent(HUB, DIGEST)


@by_two_workers
async def test_private_content_counts_as_sent_only_by_its_upstream(one: IndexWorker, other: IndexWorker) -> None:
    await one.index.keep_sent(HUB, DIGEST, is_public=False)
    assert await other.index.was_sent(HUB, DIGEST)
    assert not await other.index.was_sent(QUAY, DIGEST)
    assert not await other.index.was_sent(HUB, Digest.of(b"other content"))


@by_two_workers
async def test_public_content_counts_as_sent_by_every_upstream_and_stays_public(
    one: IndexWorker, other: IndexWorker
) -> None:
    await one.index.keep_sent(HUB, DIGEST, is_public=True)
    await other.index.keep_sent(HUB, DIGEST, is_public=False)
    assert await other.index.was_sent(QUAY, DIGEST)


@by_two_workers_of(FORGETTING_KINDS)
async def test_the_record_of_the_sender_is_removed_with_the_content(one: IndexWorker, other: IndexWorker) -> None:
    await one.index.keep_sent(HUB, DIGEST, is_public=True)
    await other.index.forget_content([DIGEST])
    assert not await one.index.was_sent(HUB, DIGEST)
    assert not await one.index.was_sent(QUAY, DIGEST)


@by_two_workers_of(FORGETTING_KINDS)
async def test_no_link_leads_to_forgotten_content(one: IndexWorker, other: IndexWorker) -> None:
    for source in (NGINX, REDIS, NGINX_AT_QUAY):
        for digest in (DIGEST, OTHER_DIGEST):
            for kind in ContentKind:
                await one.index.keep_link(replace(MANIFEST, location=ContentLocation(source, kind, digest)), NOW)
            key = TagKey(source, Tag(digest.encoded[:8]), "")
            await one.index.keep_tag(CachedTag(key, digest, "application/json", NOW, ANONYMOUS_CLASS))
    for _ in range(2):
        await other.index.forget_content([DIGEST])
    for source in (NGINX, REDIS, NGINX_AT_QUAY):
        assert {link.location.digest for link in await one.index.links_of(source)} == {OTHER_DIGEST}
    for upstream in (HUB, QUAY):
        assert {cached_tag.digest for cached_tag in await one.index.tags_of(upstream)} == {OTHER_DIGEST}


# --- grants ---

ALICE = CallerId("f1" * 32)
GRANT = Grant(ALICE, NGINX, NOW, NOW + 300)


@by_two_workers
async def test_a_grant_is_found_by_all_workers_only_for_its_caller_and_source(
    one: IndexWorker, other: IndexWorker
) -> None:
    assert await one.index.find_grant(ALICE, NGINX) is None
    await one.index.keep_grant(GRANT, NOW + 300)
    assert await one.index.find_grant(ALICE, NGINX) == await other.index.find_grant(ALICE, NGINX) == GRANT
    for caller in (ANONYMOUS_CALLER, mirror_caller("a"), mirror_caller("b"), CallerId("f2" * 32)):
        assert await one.index.find_grant(caller, NGINX) is None
    for source in (REDIS, NGINX_AT_QUAY):
        assert await one.index.find_grant(ALICE, source) is None


@by_two_workers
async def test_a_newer_grant_replaces_the_older_one(one: IndexWorker, other: IndexWorker) -> None:
    await one.index.keep_grant(GRANT, NOW + 300)
    newer = replace(GRANT, given_at=NOW + 100.5, ends_at=NOW + 400.5)
    await other.index.keep_grant(newer, NOW + 400)
    assert await one.index.find_grant(ALICE, NGINX) == newer


@by_two_workers
async def test_an_expired_grant_is_found_until_it_may_be_removed(one: IndexWorker, other: IndexWorker) -> None:
    ended = replace(GRANT, given_at=NOW - 600, ends_at=NOW - 300)
    await one.index.keep_grant(ended, NOW + 1)
    await one.index.keep_grant(replace(GRANT, source=REDIS), NOW + 300)
    assert await one.index.find_grant(ALICE, NGINX) == ended


@by_two_workers
async def test_a_deleted_grant_is_not_found(one: IndexWorker, other: IndexWorker) -> None:
    kept = [replace(GRANT, source=REDIS), replace(GRANT, caller=ANONYMOUS_CALLER)]
    for grant in (GRANT, *kept):
        await one.index.keep_grant(grant, NOW + 300)
    for _ in range(2):
        await other.index.forget_grant(ALICE, NGINX)
    assert await one.index.find_grant(ALICE, NGINX) is None
    assert [await one.index.find_grant(grant.caller, grant.source) for grant in kept] == kept


@by_two_workers
async def test_a_grant_belongs_to_the_address_of_its_upstream(one: IndexWorker, other: IndexWorker) -> None:
    await one.index.keep_grant(GRANT, NOW + 300)
    source = replace(NGINX, upstream=replace(HUB, search_url="https://search.test"))
    assert await one.index.find_grant(ALICE, source) == replace(GRANT, source=source)


# --- tokens ---

IDENTITY = CallerIdentity(ALICE, 1_800_000_300.5)
ANONYMOUS = CallerIdentity(ANONYMOUS_CALLER, 1_800_000_100.0)


@by_two_workers
async def test_a_stored_token_is_found_by_all_workers(one: IndexWorker, other: IndexWorker) -> None:
    assert await one.index.find_token("first") is None
    await one.index.keep_token("first", IDENTITY)
    await other.index.keep_token("second", ANONYMOUS)
    assert await one.index.find_token("first") == await other.index.find_token("first") == IDENTITY
    assert await one.index.find_token("second") == ANONYMOUS
    assert await one.index.find_token("First") is await one.index.find_token("") is None


@by_two_workers
async def test_a_newer_identity_of_a_token_replaces_the_older_one(one: IndexWorker, other: IndexWorker) -> None:
    await one.index.keep_token("first", IDENTITY)
    await other.index.keep_token("first", ANONYMOUS)
    assert await one.index.find_token("first") == ANONYMOUS


# --- upstream authentication ---

OPEN = UpstreamAuth()
ASKED = UpstreamAuth(
    (
        Challenge("Bearer", (("realm", "https://auth.test/token?a=\"b\"&c='d'"), ("service", "hub\udcff é"))),
        Challenge("Basic"),
        Challenge("Basic", (("realm", ""), ("realm", "twice"))),
    )
)


@by_two_workers
async def test_upstream_auth_is_found_by_all_workers_only_for_its_upstream(
    one: IndexWorker, other: IndexWorker
) -> None:
    assert await one.index.find_upstream_auth(HUB) is None
    for auth in (ASKED, OPEN):
        await one.index.keep_upstream_auth(HUB, auth)
        assert await one.index.find_upstream_auth(HUB) == await other.index.find_upstream_auth(HUB) == auth
        assert await one.index.find_upstream_auth(QUAY) is None
    await other.index.keep_upstream_auth(QUAY, ASKED)
    assert [await one.index.find_upstream_auth(HUB), await one.index.find_upstream_auth(QUAY)] == [OPEN, ASKED]


@by_two_workers
async def test_upstream_auth_belongs_to_the_address_of_its_upstream(one: IndexWorker, other: IndexWorker) -> None:
    await one.index.keep_upstream_auth(HUB, ASKED)
    assert await one.index.find_upstream_auth(replace(HUB, search_url="https://search.test")) == ASKED


# --- the epoch ---


@by_two_workers
async def test_the_epoch_changes_only_when_it_is_advanced(one: IndexWorker, other: IndexWorker) -> None:
    seen = [await one.index.epoch()]
    for worker in (one, other, one):
        assert await one.index.epoch() == await other.index.epoch() == seen[-1]
        await worker.index.advance_epoch()
        assert await one.index.epoch() not in seen
        seen.append(await other.index.epoch())


# --- bounds ---

BOUND = 20
KIND = pytest.mark.parametrize("kind", INDEX_KINDS)


def bounded(kind: str, folder: Path, request: pytest.FixtureRequest) -> AbstractAsyncContextManager[KnowledgeIndex]:
    return index_of(kind, folder, server_for(kind, request), links=BOUND, tags=BOUND)


def new_link(number: int, source: Source = NGINX) -> Link:
    """A link to content that is not stored."""
    location = ContentLocation(source, ContentKind.BLOB, Digest.of(str(number).encode()))
    return Link(location, "text/plain", number, frozenset({ANONYMOUS_CLASS}))


def new_tag(number: int, source: Source = NGINX) -> CachedTag:
    key = TagKey(source, Tag(f"t{number}"), "")
    return CachedTag(key, Digest.of(str(number).encode()), "text/plain", 1000.0 + number, ANONYMOUS_CLASS)


@KIND
async def test_links_to_content_that_is_not_stored_are_limited(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    async with bounded(kind, tmp_path, request) as index:
        await index.keep_link(new_link(0, NGINX_AT_QUAY), 1.0)
        for number in range(10 * BOUND):
            await index.keep_link(new_link(number), 1000.0 + number)
            assert len(await index.links_of(NGINX)) <= BOUND
        assert await index.find_link(new_link(10 * BOUND - 1).location), "the newest stays"
        assert await index.find_link(new_link(0).location) is None
        assert await index.find_link(new_link(0, NGINX_AT_QUAY).location), "links of another upstream are not removed"


@KIND
async def test_each_caller_class_of_a_link_counts_towards_the_limit(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    async with bounded(kind, tmp_path, request) as index:
        for number in range(BOUND):
            both = replace(new_link(number), caller_classes=frozenset({ANONYMOUS_CLASS, PERSONAL_CLASS}))
            await index.keep_link(both, 1000.0 + number)
        assert sum(len(one.caller_classes) for one in await index.links_of(NGINX)) <= BOUND


@KIND
async def test_cached_tags_of_content_that_is_not_stored_are_limited(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    async with bounded(kind, tmp_path, request) as index:
        await index.keep_tag(new_tag(0, NGINX_AT_QUAY))
        for number in range(10 * BOUND):
            await index.keep_tag(new_tag(number))
            assert len(await index.tags_of(HUB)) <= BOUND
        assert new_tag(10 * BOUND - 1) in await index.tags_of(HUB), "the newest stays"
        assert await index.tags_of(QUAY) == [new_tag(0, NGINX_AT_QUAY)]


async def test_links_to_stored_content_are_removed_last(tmp_path: Path) -> None:
    database = SqliteDatabase(tmp_path / "index")
    index = SqliteKnowledgeIndex(database, StoppedClock(), links=BOUND, tags=BOUND)
    await SqliteUsageIndex(database).keep([Used(new_tag(0).digest, 1, 1.0)])
    for number in range(10 * BOUND):
        await index.keep_link(new_link(number), 1000.0 + number)
        await index.keep_tag(new_tag(number))
    assert await index.find_link(new_link(0).location)
    assert new_tag(0) in await index.tags_of(HUB)
    await database.close()


async def test_links_and_tags_of_pinned_images_are_removed_after_all_others(tmp_path: Path) -> None:
    database, clock = SqliteDatabase(tmp_path / "index"), StoppedClock()
    index = SqliteKnowledgeIndex(database, clock, links=BOUND, tags=BOUND)
    stored = [Used(new_tag(number).digest, 1, 1.0) for number in range(10 * BOUND)]
    await SqliteUsageIndex(database).keep(stored)
    pinned = PinnedImage(Pin(HUB.url, NGINX.repository, Reference(new_tag(0).key.tag)), 1.0, tree={stored[0].digest: 1})
    await SqlitePinIndex(database, clock).keep(pinned)
    for number in range(10 * BOUND):
        await index.keep_link(new_link(number), 1000.0 + number)
        await index.keep_tag(new_tag(number))
    assert await index.find_link(new_link(0).location)
    assert await index.find_link(new_link(1).location) is None
    assert new_tag(0) in await index.tags_of(HUB)
    assert new_tag(1) not in await index.tags_of(HUB)
    await database.close()
