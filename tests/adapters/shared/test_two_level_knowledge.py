"""Knowledge of two replicas while Valkey is dead, silent, empty and back."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from adapters.shared.redis_connection import RedisConnection
from adapters.shared.redis_knowledge import RedisKnowledgeIndex
from adapters.shared.two_level_knowledge import TwoLevelKnowledgeIndex
from adapters.storage.sqlite_database import SqliteDatabase
from adapters.storage.sqlite_index import SqliteKnowledgeIndex
from application.ports.content import StorageFailed
from application.ports.index import CallerIdentity
from application.ports.shared import SharedUnavailable
from domain.cache_policy import CachePolicy, CacheTimes
from domain.digest import Digest
from domain.names import Tag
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
from domain.redis_address import RedisAddress
from domain.trust import UpstreamAuth
from tests.contracts.storage import HUB, NGINX, QUAY
from tests.e2e.support.valkey import Valkey
from tests.fakes.clock import StoppedClock
from tests.fakes.events import RecordingEventSink

WAIT, TRIAL_AFTER = 0.1, 0.05
DIGEST, OTHER_DIGEST = Digest.of(b"content"), Digest.of(b"other")
LOCATION = ContentLocation(NGINX, ContentKind.BLOB, DIGEST)
BOTH = frozenset({ANONYMOUS_CLASS, PERSONAL_CLASS})
LINK = Link(LOCATION, "text/plain", 7, BOTH)
LATEST = Tag("latest")
PUBLIC_TAG = CachedTag(TagKey(NGINX, LATEST, ""), DIGEST, "application/json", 1_800_000_000.0, ANONYMOUS_CLASS)
PERSONAL_TAG = replace(PUBLIC_TAG, digest=OTHER_DIGEST, caller_class=PERSONAL_CLASS)
ALICE, MIRROR = CallerId("login 1"), mirror_caller("1")
NOW = 1_800_000_000.0
LATER = NOW + 86400


@dataclass
class Replica:
    index: TwoLevelKnowledgeIndex
    shared: RedisKnowledgeIndex
    local: SqliteKnowledgeIndex
    clock: StoppedClock

    def grant(self, caller: CallerId) -> Grant:
        return Grant(caller, NGINX, self.clock.now(), self.clock.now() + 300)

    async def keep_grant(self, caller: CallerId) -> Grant:
        grant = self.grant(caller)
        await self.index.keep_grant(grant, LATER)
        return grant

    async def learn(self) -> None:
        """Everything that an upstream gave to anonymous callers and to others."""
        await self.index.keep_link(LINK, NOW)
        await self.index.keep_tag(PUBLIC_TAG)
        await self.index.keep_tag(PERSONAL_TAG)
        for caller in (ANONYMOUS_CALLER, ALICE, MIRROR):
            await self.keep_grant(caller)
            await self.index.keep_token(f"token of {caller}", CallerIdentity(caller, LATER))


@asynccontextmanager
async def replica_of(server: Valkey, folder: Path, clock: StoppedClock) -> AsyncIterator[Replica]:
    connection = RedisConnection(RedisAddress.parse(server.url), RecordingEventSink(), WAIT, TRIAL_AFTER)
    database = SqliteDatabase(folder / "index.sqlite3")
    local = SqliteKnowledgeIndex(database, clock)
    shared = RedisKnowledgeIndex(connection, (HUB, QUAY), clock)
    try:
        yield Replica(TwoLevelKnowledgeIndex(shared, local, clock), shared, local, clock)
    finally:
        await connection.close()
        await database.close()


def by_two_replicas(
    test: Callable[[Valkey, Replica, Replica], Awaitable[None]],
) -> Callable[[Valkey, Path], None]:
    """Runs the test with two replicas that have different folders, and with an empty Valkey."""

    def run(valkey_server: Valkey, tmp_path: Path) -> None:
        async def go() -> None:
            valkey_server.flush()
            clock = StoppedClock()
            folders = [tmp_path / "a", tmp_path / "b"]
            for folder in folders:
                folder.mkdir()
            async with (
                replica_of(valkey_server, folders[0], clock) as one,
                replica_of(valkey_server, folders[1], clock) as other,
            ):
                await test(valkey_server, one, other)

        asyncio.run(go())

    run.__name__ = getattr(test, "__name__", "")
    return run


async def lost(server: Valkey, *replicas: Replica) -> None:
    """Valkey stops, and the replicas notice it."""
    server.pause()
    for replica in replicas:
        with pytest.raises(SharedUnavailable):
            await replica.shared.epoch()


async def back(server: Valkey) -> None:
    server.resume()
    await asyncio.sleep(2 * TRIAL_AFTER)


@by_two_replicas
async def test_what_one_replica_learns_the_other_one_knows(server: Valkey, one: Replica, other: Replica) -> None:
    await one.learn()
    assert await other.index.find_link(LOCATION) == LINK
    assert set(await other.index.find_tags(NGINX, LATEST)) == {PUBLIC_TAG, PERSONAL_TAG}
    for caller in (ANONYMOUS_CALLER, ALICE, MIRROR):
        assert await other.index.find_grant(caller, NGINX) == one.grant(caller)
        assert await other.index.find_token(f"token of {caller}") == CallerIdentity(caller, LATER)


@by_two_replicas
async def test_what_one_replica_removes_is_gone_on_the_other_one(server: Valkey, one: Replica, other: Replica) -> None:
    for replica in (one, other):
        await replica.learn()
    await one.index.forget_link(LOCATION, PERSONAL_CLASS)
    await one.index.forget_tags(NGINX, LATEST, ANONYMOUS_CLASS)
    await one.index.forget_grant(ALICE, NGINX)
    link = await other.index.find_link(LOCATION)
    assert link
    assert link.caller_classes == {ANONYMOUS_CLASS}
    assert await other.index.find_tags(NGINX, LATEST) == [PERSONAL_TAG]
    assert await other.index.find_grant(ALICE, NGINX) is None


@by_two_replicas
async def test_without_valkey_a_replica_knows_what_anonymous_callers_were_given(
    server: Valkey, one: Replica, other: Replica
) -> None:
    await one.learn()
    await lost(server, one)
    try:
        assert await one.index.find_link(LOCATION) == replace(LINK, caller_classes=frozenset({ANONYMOUS_CLASS}))
        assert PUBLIC_TAG in await one.index.find_tags(NGINX, LATEST)
        assert await one.index.find_grant(ANONYMOUS_CALLER, NGINX)
        found = await one.index.find_token(f"token of {ANONYMOUS_CALLER}")
        assert found == CallerIdentity(ANONYMOUS_CALLER, LATER)
    finally:
        await back(server)


@by_two_replicas
async def test_without_valkey_nothing_that_other_callers_were_given_is_used(
    server: Valkey, one: Replica, other: Replica
) -> None:
    await one.learn()
    personal = replace(LOCATION, digest=OTHER_DIGEST)
    await one.index.keep_link(Link(personal, "text/plain", 7, frozenset({PERSONAL_CLASS, CallerClass(MIRROR)})), NOW)
    await lost(server, one, other)
    try:
        for caller in (ALICE, MIRROR):
            await one.keep_grant(caller)
            for replica in (one, other):
                assert await replica.index.find_grant(caller, NGINX) is None
                assert await replica.index.find_token(f"token of {caller}") is None
        assert await one.index.find_link(personal) is None
        policy = CachePolicy(CacheTimes(tag_ttl=600, grant_ttl=600, stale_ttl=10 * 365 * 86400))
        found = [tag for tag in await one.index.find_tags(NGINX, LATEST) if tag.caller_class != ANONYMOUS_CLASS]
        assert [max(policy.fresh_until(tag), policy.stale_until(tag)) < NOW for tag in found] == [True]
    finally:
        await back(server)


@by_two_replicas
async def test_grants_of_callers_with_a_login_are_not_on_the_disk_of_a_replica(
    server: Valkey, one: Replica, other: Replica
) -> None:
    await one.learn()
    assert await one.local.find_grant(ANONYMOUS_CALLER, NGINX)
    assert await one.local.find_grant(ALICE, NGINX) is None
    assert await one.local.find_grant(MIRROR, NGINX) is None


@by_two_replicas
async def test_without_valkey_a_grant_from_before_serves_only_while_the_upstream_is_unavailable(
    server: Valkey, one: Replica, other: Replica
) -> None:
    """Another replica may have met a refusal just before Valkey was lost."""
    before = await one.keep_grant(ANONYMOUS_CALLER)
    one.clock.advance(1)
    assert await one.index.find_grant(ANONYMOUS_CALLER, NGINX) == before
    await other.index.forget_grant(ANONYMOUS_CALLER, NGINX)
    await lost(server, one)
    try:
        assert await one.index.find_grant(ANONYMOUS_CALLER, NGINX) == replace(before, ends_at=before.given_at)
        one.clock.advance(1)
        after = await one.keep_grant(ANONYMOUS_CALLER)
        assert await one.index.find_grant(ANONYMOUS_CALLER, NGINX) == after
    finally:
        await back(server)


@by_two_replicas
async def test_when_valkey_is_back_its_state_wins(server: Valkey, one: Replica, other: Replica) -> None:
    await lost(server, one)
    try:
        await one.learn()
        assert await one.index.find_link(LOCATION)
    finally:
        await back(server)
    assert await one.index.find_link(LOCATION) is None
    assert await one.index.find_tags(NGINX, LATEST) == []
    assert await one.index.find_grant(ANONYMOUS_CALLER, NGINX) is None


@by_two_replicas
async def test_a_refusal_that_valkey_has_missed_holds_when_it_is_back(
    server: Valkey, one: Replica, other: Replica
) -> None:
    await one.learn()
    await lost(server, one)
    try:
        await one.index.forget_grant(ALICE, NGINX)
        await one.index.forget_link(LOCATION, ANONYMOUS_CLASS)
        await one.index.forget_tags(NGINX, LATEST)
    finally:
        await back(server)
    assert await one.index.find_grant(ALICE, NGINX) is None
    assert await other.index.find_grant(ALICE, NGINX) is None
    link = await other.index.find_link(LOCATION)
    assert link
    assert link.caller_classes == {PERSONAL_CLASS}
    assert await other.index.find_tags(NGINX, LATEST) == []


@by_two_replicas
async def test_what_is_given_again_after_a_missed_refusal_is_kept(server: Valkey, one: Replica, other: Replica) -> None:
    await one.learn()
    await lost(server, one)
    try:
        await one.index.forget_grant(ALICE, NGINX)
    finally:
        await back(server)
    again = await one.keep_grant(ALICE)
    assert await one.index.find_grant(ALICE, NGINX) == await other.index.find_grant(ALICE, NGINX) == again


@by_two_replicas
async def test_until_valkey_has_all_missed_refusals_nothing_is_read_from_it(
    server: Valkey, one: Replica, other: Replica
) -> None:
    await one.learn()
    callers = [CallerId(f"token {number}") for number in range(250)]
    for caller in callers:
        await other.keep_grant(caller)
    await lost(server, one)
    try:
        for caller in callers:
            await one.index.forget_grant(caller, NGINX)
    finally:
        await back(server)
    found = [await one.index.find_grant(caller, NGINX) for caller in reversed(callers)]
    assert found == [None] * len(callers)
    assert await one.index.find_grant(ALICE, NGINX) == one.grant(ALICE)
    assert [await other.index.find_grant(caller, NGINX) for caller in callers] == [None] * len(callers)


@by_two_replicas
async def test_an_emptied_valkey_knows_nothing_and_learns_again(server: Valkey, one: Replica, other: Replica) -> None:
    await one.learn()
    server.flush()
    for replica in (one, other):
        assert await replica.index.find_link(LOCATION) is None
        assert await replica.index.find_grant(ANONYMOUS_CALLER, NGINX) is None
        assert await replica.index.find_grant(ALICE, NGINX) is None
    await other.learn()
    assert await one.index.find_link(LOCATION) == LINK


@by_two_replicas
async def test_what_an_upstream_has_sent_is_known_without_valkey(server: Valkey, one: Replica, other: Replica) -> None:
    await one.index.keep_sent(HUB, DIGEST, is_public=False)
    assert await other.index.was_sent(HUB, DIGEST)
    server.flush()
    assert await one.index.was_sent(HUB, DIGEST)
    assert not await one.index.was_sent(QUAY, DIGEST)
    assert not await other.index.was_sent(HUB, DIGEST)
    await lost(server, one, other)
    try:
        assert await one.index.was_sent(HUB, DIGEST)
        assert not await other.index.was_sent(HUB, DIGEST)
    finally:
        await back(server)


@by_two_replicas
async def test_upstream_auth_is_known_without_valkey(server: Valkey, one: Replica, other: Replica) -> None:
    await one.index.keep_upstream_auth(HUB, UpstreamAuth())
    await lost(server, one, other)
    try:
        assert await one.index.find_upstream_auth(HUB) == UpstreamAuth()
        assert await other.index.find_upstream_auth(HUB) is None
    finally:
        await back(server)
    assert await other.index.find_upstream_auth(HUB) == UpstreamAuth()


@by_two_replicas
async def test_content_that_one_replica_evicts_stays_known_to_all(server: Valkey, one: Replica, other: Replica) -> None:
    await one.learn()
    await one.index.keep_sent(HUB, DIGEST, is_public=True)
    await one.index.forget_content([DIGEST])
    assert await one.local.find_link(LOCATION) is None
    assert await other.index.find_link(LOCATION) == await one.index.find_link(LOCATION) == LINK
    assert await other.index.was_sent(QUAY, DIGEST)


@by_two_replicas
async def test_content_that_left_the_shared_store_is_removed_for_all(
    server: Valkey, one: Replica, other: Replica
) -> None:
    await one.learn()
    for digest in (DIGEST, OTHER_DIGEST):
        await one.index.keep_sent(HUB, digest, is_public=True)
    await one.shared.forget_content([DIGEST])
    assert await other.index.find_link(LOCATION) is None
    assert await other.index.find_tags(NGINX, LATEST) == [PERSONAL_TAG]
    assert not await other.index.was_sent(HUB, DIGEST)
    assert await other.index.was_sent(HUB, OTHER_DIGEST)


@by_two_replicas
async def test_an_operators_command_reaches_all_replicas(server: Valkey, one: Replica, other: Replica) -> None:
    before = await one.index.epoch(), await other.index.epoch()
    await one.index.advance_epoch()
    after = await one.index.epoch(), await other.index.epoch()
    assert all(now != then for now, then in zip(after, before, strict=True))


@by_two_replicas
async def test_an_operators_command_without_valkey_fails_and_reaches_its_own_replica(
    server: Valkey, one: Replica, other: Replica
) -> None:
    before = await one.index.epoch()
    await lost(server, one)
    try:
        assert await one.index.epoch() == before
        with pytest.raises(StorageFailed):
            await one.index.advance_epoch()
        assert await one.index.epoch() != before
    finally:
        await back(server)


@by_two_replicas
async def test_the_epoch_changes_when_valkey_has_lost_its_data(server: Valkey, one: Replica, other: Replica) -> None:
    before = await one.index.epoch()
    server.flush()
    assert await one.index.epoch() != before


@by_two_replicas
async def test_an_operator_sees_and_removes_what_either_level_knows(
    server: Valkey, one: Replica, other: Replica
) -> None:
    await one.learn()
    server.flush()
    tag = replace(PUBLIC_TAG, key=replace(PUBLIC_TAG.key, tag=Tag("other")))
    await other.index.keep_tag(tag)
    assert set(await one.index.tags_of(HUB)) == {PUBLIC_TAG, PERSONAL_TAG, tag}
    assert await one.index.links_of(NGINX) == [LINK]
    await one.index.forget_link(LOCATION)
    for name in (LATEST, Tag("other")):
        await one.index.forget_tags(NGINX, name)
    assert await one.index.tags_of(HUB) == await one.index.links_of(NGINX) == []
    assert await other.index.tags_of(HUB) == [tag], "known on its own disk only"


@by_two_replicas
async def test_every_key_but_those_of_upstreams_expires(server: Valkey, one: Replica, other: Replica) -> None:
    await one.learn()
    await one.index.keep_sent(HUB, DIGEST, is_public=True)
    await one.index.keep_upstream_auth(HUB, UpstreamAuth())
    await one.index.epoch()
    keys = server.command("KEYS", "*")
    assert isinstance(keys, list)
    kinds = {name.split(b":")[2] for name in keys}
    assert kinds >= {b"links", b"links-by-time", b"tags", b"tags-by-time", b"sent", b"grant", b"token"}
    lasting = {name.split(b":")[2] for name in keys if server.command("TTL", name) == -1}
    assert lasting == {b"upstream-auth", b"epoch"}


@by_two_replicas
async def test_what_cannot_be_read_counts_as_missing(server: Valkey, one: Replica, other: Replica) -> None:
    await one.learn()
    await one.index.keep_upstream_auth(QUAY, UpstreamAuth())
    keys = server.command("KEYS", "*")
    assert isinstance(keys, list)
    for name in keys:
        kind = server.command("TYPE", name)
        if kind == b"string":
            server.command("SET", name, "[1, ")
        elif kind == b"hash":
            fields = server.command("HKEYS", name)
            assert isinstance(fields, list)
            for field in fields:
                server.command("HSET", name, field, '"anonymous"\t""\tno number')
    assert await other.index.find_link(LOCATION) is None
    assert await other.index.find_tags(NGINX, LATEST) == []
    assert await other.index.links_of(NGINX) == await other.index.tags_of(HUB) == []
    assert await other.index.find_grant(ALICE, NGINX) is None
    assert await other.index.find_token(f"token of {ALICE}") is None
    assert await other.index.find_upstream_auth(QUAY) is None
    await other.learn()
    assert await one.index.find_link(LOCATION) == LINK
    assert set(await one.index.find_tags(NGINX, LATEST)) == {PUBLIC_TAG, PERSONAL_TAG}


@by_two_replicas
async def test_without_valkey_a_replica_knows_what_it_has_learnt_since(
    server: Valkey, one: Replica, other: Replica
) -> None:
    """Otherwise each request of a caller with a login would cost a GET."""
    await one.index.keep_link(LINK, one.clock.now())
    await lost(server, one, other)
    try:
        one.clock.advance(1)
        personal = replace(LINK, caller_classes=frozenset({PERSONAL_CLASS}))
        tag = replace(PERSONAL_TAG, checked_at=one.clock.now())
        await one.index.keep_link(personal, one.clock.now())
        await one.index.keep_tag(tag)
        assert await one.index.find_link(LOCATION) == LINK
        assert await one.index.find_tags(NGINX, LATEST) == [tag]
        mirrors = replace(LOCATION, digest=OTHER_DIGEST)
        await one.index.keep_link(replace(personal, location=mirrors), one.clock.now())
        assert await one.index.find_link(mirrors) == replace(personal, location=mirrors)
    finally:
        await back(server)
    assert await one.index.find_link(LOCATION) == LINK
    assert await one.index.find_link(mirrors) is None


@by_two_replicas
async def test_without_valkey_a_replica_knows_what_it_has_read_of_public_content(
    server: Valkey, one: Replica, other: Replica
) -> None:
    await one.learn()
    await other.index.find_link(LOCATION)
    await other.index.find_tags(NGINX, LATEST)
    for caller in (ANONYMOUS_CALLER, ALICE):
        await other.index.find_grant(caller, NGINX)
    await lost(server, other)
    try:
        assert await other.index.find_link(LOCATION) == replace(LINK, caller_classes=frozenset({ANONYMOUS_CLASS}))
        assert await other.index.find_tags(NGINX, LATEST) == [PUBLIC_TAG]
        grant = await other.index.find_grant(ANONYMOUS_CALLER, NGINX)
        assert grant
        assert (grant.given_at, grant.ends_at) == (NOW, NOW), "only while the upstream is unavailable"
        assert await other.index.find_grant(ALICE, NGINX) is None
    finally:
        await back(server)
