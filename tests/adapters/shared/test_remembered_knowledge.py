"""What a worker remembers of the index in Redis: how many requests it costs, and how old an answer may be."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adapters.shared.redis_knowledge import RedisKnowledgeIndex
from adapters.shared.remembered_knowledge import RememberedKnowledgeIndex
from application.ports.index import BELIEVED_SECONDS, CallerIdentity
from application.ports.shared import SharedUnavailable
from domain.digest import Digest
from domain.names import RepositoryName, Tag
from domain.records import (
    ANONYMOUS_CLASS,
    PERSONAL_CLASS,
    CachedTag,
    CallerId,
    ContentKind,
    ContentLocation,
    Grant,
    Link,
    TagKey,
)
from domain.upstreams import Source
from tests.contracts.replicas import connection_to
from tests.contracts.storage import HUB, NGINX, QUAY
from tests.e2e.support.valkey import Valkey
from tests.fakes.clock import StoppedClock

BUSYBOX = Source(QUAY, RepositoryName("library/busybox"))
ALICE, BOB = CallerId("login 1"), CallerId("login 2")
LATEST = Tag("latest")
NOW = StoppedClock().now()
LATER = NOW + 86400
DIGESTS = [Digest.of(bytes([number])) for number in range(10)]


def link(source: Source, digest: Digest, *classes: Any) -> Link:
    location = ContentLocation(source, ContentKind.BLOB, digest)
    return Link(location, "text/plain", 7, frozenset(classes or (PERSONAL_CLASS,)))


def cached_tag(source: Source, digest: Digest, checked_at: float = NOW) -> CachedTag:
    return CachedTag(TagKey(source, LATEST, ""), digest, "application/json", checked_at, PERSONAL_CLASS)


LINK = link(NGINX, DIGESTS[0])


@dataclass
class Workers:
    """Two workers of different replicas, and what Redis has. `asked`: the number of requests of `one`."""

    server: Valkey
    one: RememberedKnowledgeIndex
    other: RememberedKnowledgeIndex
    truth: RedisKnowledgeIndex
    clock: StoppedClock
    asked: int = 0

    async def learn(self) -> None:
        for source in (NGINX, BUSYBOX):
            for digest in DIGESTS:
                await self.other.keep_link(link(source, digest), NOW)
            await self.other.keep_tag(cached_tag(source, DIGESTS[0]))
            for caller in (ALICE, BOB):
                await self.other.keep_grant(Grant(caller, source, NOW, LATER), LATER)
        for caller in (ALICE, BOB):
            await self.other.keep_token(f"token of {caller}", CallerIdentity(caller, LATER))

    async def pull(self) -> None:
        """`one` answers the requests of all callers for all content."""
        for caller in (ALICE, BOB):
            assert await self.one.find_token(f"token of {caller}") == CallerIdentity(caller, LATER)
            for source in (NGINX, BUSYBOX):
                assert await self.one.find_grant(caller, source) == Grant(caller, source, NOW, LATER)
                assert await self.one.find_tags(source, LATEST) == [cached_tag(source, DIGESTS[0])]
                for digest in DIGESTS:
                    assert await self.one.find_link(link(source, digest).location) == link(source, digest)


@asynccontextmanager
async def workers(server: Valkey) -> AsyncIterator[Workers]:
    server.flush()
    clock, connections = StoppedClock(), [connection_to(server) for _ in range(3)]
    one, other = (RememberedKnowledgeIndex(each, (HUB, QUAY), clock) for each in connections[:2])
    found = Workers(server, one, other, RedisKnowledgeIndex(connections[2], (HUB, QUAY), clock), clock)
    run = connections[0].run

    async def counted(*values: Any, **options: Any) -> Any:
        found.asked += 1
        return await run(*values, **options)

    connections[0].run = counted  # type: ignore[method-assign]
    try:
        yield found
    finally:
        server.resume()
        for connection in connections:
            await connection.close()


def with_workers(test: Callable[[Workers], Awaitable[None]]) -> Callable[[Valkey], None]:
    def run(valkey_server: Valkey) -> None:
        async def go() -> None:
            async with workers(valkey_server) as found:
                await test(found)

        asyncio.run(go())

    return run


@with_workers
async def test_whatever_is_pulled_one_request_is_sent_in_five_seconds(found: Workers) -> None:
    await found.learn()
    await found.pull()
    for _ in range(3):
        found.clock.advance(BELIEVED_SECONDS)
        found.asked = 0
        for _ in range(5):
            await found.pull()
            found.clock.advance(BELIEVED_SECONDS / 6)
        assert found.asked == 1


@with_workers
async def test_requests_that_come_at_once_share_the_comparison(found: Workers) -> None:
    await found.learn()
    await found.pull()
    found.clock.advance(BELIEVED_SECONDS)
    found.asked = 0
    await asyncio.gather(*(found.pull() for _ in range(5)))
    assert found.asked == 1


@with_workers
async def test_what_was_not_used_for_a_while_is_still_right(found: Workers) -> None:
    await found.learn()
    await found.pull()
    for _ in range(3):
        found.clock.advance(BELIEVED_SECONDS)
        assert await found.one.find_grant(ALICE, NGINX)
    await found.other.forget_link(link(BUSYBOX, DIGESTS[3]).location)
    assert await found.one.find_link(link(BUSYBOX, DIGESTS[3]).location) is None
    found.asked = 0
    await found.one.find_link(LINK.location)
    assert found.asked == 0


CHANGES: dict[str, Callable[[RememberedKnowledgeIndex], Awaitable[None]]] = {
    "a link is removed": lambda index: index.forget_link(LINK.location),
    "a class of a link is removed": lambda index: index.forget_link(LINK.location, PERSONAL_CLASS),
    "a link is given to more callers": lambda index: index.keep_link(link(NGINX, DIGESTS[0], ANONYMOUS_CLASS), NOW),
    "a tag moves": lambda index: index.keep_tag(cached_tag(NGINX, DIGESTS[1], NOW + 1)),
    "a tag is removed": lambda index: index.forget_tags(NGINX, LATEST),
    "all tags are removed": lambda index: index.forget_tags(NGINX, None),
    "a grant ends": lambda index: index.forget_grant(ALICE, NGINX),
    "a token belongs to nobody": lambda index: index.keep_token(f"token of {ALICE}", CallerIdentity(BOB, LATER)),
    "content is removed": lambda index: index.forget_content(DIGESTS),
}
CHANGED = pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())


async def known(index: RedisKnowledgeIndex) -> list[object]:
    return [
        await index.find_link(LINK.location),
        await index.find_tags(NGINX, LATEST),
        await index.find_grant(ALICE, NGINX),
        await index.find_token(f"token of {ALICE}"),
    ]


@CHANGED
@pytest.mark.parametrize("is_flushed", [False, True])
def test_a_change_is_known_after_five_seconds(
    valkey_server: Valkey,
    change: Callable[[RememberedKnowledgeIndex], Awaitable[None]],
    is_flushed: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    """`is_flushed`: Redis lost everything before the change, so there is nothing to remove."""

    async def go() -> None:
        async with workers(valkey_server) as found:
            await found.learn()
            before = await known(found.one)
            if is_flushed:
                valkey_server.flush()
            await change(found.other)
            found.clock.advance(BELIEVED_SECONDS)
            after = await known(found.one)
            changed = [now for then, now in zip(before, after, strict=True) if then != now]
            truth = await known(found.truth)
            assert changed
            assert all(now in truth for now in changed)
            assert is_flushed or after == truth

    asyncio.run(go())


@CHANGED
def test_the_worker_that_changes_something_knows_it_at_once(
    valkey_server: Valkey, change: Callable[[RememberedKnowledgeIndex], Awaitable[None]]
) -> None:
    async def go() -> None:
        async with workers(valkey_server) as found:
            await found.learn()
            before = await known(found.one)
            await change(found.one)
            assert before != await known(found.one) == await known(found.truth)

    asyncio.run(go())


@with_workers
async def test_a_removal_that_redis_does_not_answer_is_known_to_its_worker(found: Workers) -> None:
    await found.learn()
    await found.pull()
    found.server.pause()
    with pytest.raises(SharedUnavailable):
        await found.one.forget_grant(ALICE, NGINX)
    with pytest.raises(SharedUnavailable):
        await found.one.find_grant(ALICE, NGINX)


@with_workers
async def test_without_redis_what_is_remembered_ends_after_five_seconds(found: Workers) -> None:
    await found.learn()
    await found.pull()
    found.server.pause()
    found.clock.advance(0.9 * BELIEVED_SECONDS)
    await found.pull()
    found.clock.advance(0.1 * BELIEVED_SECONDS)
    for question in (found.one.find_link(LINK.location), found.one.find_grant(ALICE, NGINX)):
        with pytest.raises(SharedUnavailable):
            await question


@with_workers
async def test_the_latest_tag_is_read_from_redis(found: Workers) -> None:
    await found.learn()
    await found.pull()
    await found.other.keep_tag(moved := cached_tag(NGINX, DIGESTS[1], NOW + 1))
    assert await found.one.find_tags(NGINX, LATEST) == [cached_tag(NGINX, DIGESTS[0])]
    assert await found.one.find_tags(NGINX, LATEST, latest=True) == [moved]
    assert await found.one.find_tags(NGINX, LATEST) == [moved]


@with_workers
async def test_an_ended_grant_is_read_again(found: Workers) -> None:
    """Another replica may have got a new one."""
    ended = Grant(ALICE, NGINX, NOW - 300, NOW + 1)
    await found.other.keep_grant(ended, LATER)
    assert await found.one.find_grant(ALICE, NGINX) == ended
    renewed = replace(ended, ends_at=LATER)
    await found.other.keep_grant(renewed, LATER)
    assert await found.one.find_grant(ALICE, NGINX) == ended
    found.clock.advance(1)
    assert await found.one.find_grant(ALICE, NGINX) == renewed


@with_workers
async def test_what_an_operator_removes_is_gone_with_the_next_epoch(found: Workers) -> None:
    await found.one.epoch()
    await found.learn()
    await found.pull()
    await found.other.forget_link(LINK.location)
    await found.other.advance_epoch()
    await found.one.epoch()
    assert await found.one.find_link(LINK.location) is None


@with_workers
async def test_the_age_of_an_answer_is_counted_from_the_question(found: Workers) -> None:
    await found.learn()
    read = found.one._read_link

    async def slow(*values: Any) -> Any:
        answer = await read(*values)
        found.clock.advance(1)
        return answer

    found.one._read_link = slow  # type: ignore[method-assign]
    for _ in range(2):
        await found.one.find_link(LINK.location)
        assert found.one.age(NGINX) == 1
        found.one._forget(NGINX, LINK.location)


@with_workers
async def test_an_answer_that_a_change_overtakes_is_not_believed_for_longer(found: Workers) -> None:
    """The answer was read before the change, and arrives after an answer that was read later."""
    await found.learn()
    arrives, read = asyncio.Event(), found.one._read_link

    async def late(*values: Any) -> Any:
        answer = await read(*values)
        await arrives.wait()
        return answer

    found.one._read_link = late  # type: ignore[method-assign]
    overtaken = asyncio.create_task(found.one.find_link(LINK.location))
    await asyncio.sleep(0.1)
    found.one._read_link = read  # type: ignore[method-assign]
    await found.other.forget_grant(BOB, NGINX)
    await found.other.forget_link(LINK.location)
    found.clock.advance(1)
    assert await found.one.find_grant(ALICE, NGINX)
    arrives.set()
    assert await overtaken == LINK
    found.clock.advance(BELIEVED_SECONDS - 1)
    assert await found.one.find_link(LINK.location) is None


# --- in any order ---


@dataclass
class History:
    """The answers that were right, each with the time from which on it was."""

    answers: list[tuple[float, object]] = field(default_factory=list)

    def since(self, time: float) -> list[object]:
        before = [answer for at, answer in self.answers if at <= time]
        return before[-1:] + [answer for at, answer in self.answers if at > time]


QUESTIONS: dict[str, tuple[Source | str, Callable[[RedisKnowledgeIndex], Awaitable[object]]]] = {
    "link": (NGINX, lambda index: index.find_link(LINK.location)),
    "tags": (NGINX, lambda index: index.find_tags(NGINX, LATEST)),
    "grant": (NGINX, lambda index: index.find_grant(ALICE, NGINX)),
    "other grant": (BUSYBOX, lambda index: index.find_grant(ALICE, BUSYBOX)),
    "token": ("t", lambda index: index.find_token("t")),
}
STEPS: dict[str, Callable[[RedisKnowledgeIndex, float], Awaitable[None]]] = {
    "give the link": lambda index, now: index.keep_link(LINK, now),
    "give the link to all": lambda index, now: index.keep_link(link(NGINX, DIGESTS[0], ANONYMOUS_CLASS), now),
    "remove a class": lambda index, _: index.forget_link(LINK.location, PERSONAL_CLASS),
    "remove the link": lambda index, _: index.forget_link(LINK.location),
    "move the tag": lambda index, now: index.keep_tag(cached_tag(NGINX, DIGESTS[int(now) % 3], now)),
    "remove the tag": lambda index, _: index.forget_tags(NGINX, LATEST),
    "grant": lambda index, now: index.keep_grant(Grant(ALICE, NGINX, now, LATER), LATER),
    "grant the other": lambda index, now: index.keep_grant(Grant(ALICE, BUSYBOX, now, LATER), LATER),
    "end the grant": lambda index, _: index.forget_grant(ALICE, NGINX),
    "end the other grant": lambda index, _: index.forget_grant(ALICE, BUSYBOX),
    "token of alice": lambda index, _: index.keep_token("t", CallerIdentity(ALICE, LATER)),
    "token of bob": lambda index, _: index.keep_token("t", CallerIdentity(BOB, LATER)),
}


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    steps=st.lists(
        st.one_of(
            st.tuples(st.just("do"), st.sampled_from(sorted(STEPS)), st.sampled_from(["one", "other"])),
            st.tuples(st.just("ask"), st.sampled_from(sorted(QUESTIONS)), st.just("one")),
            st.tuples(st.just("wait"), st.sampled_from([0.5, 2.0, BELIEVED_SECONDS]), st.just("")),
        ),
        max_size=50,
    )
)
def test_no_answer_is_older_than_its_age(valkey_server: Valkey, steps: list[tuple[str, Any, str]]) -> None:
    """What others give may be learnt later, because then only the upstream is asked once more."""

    async def go() -> None:
        async with workers(valkey_server) as found:
            history = {name: History() for name in QUESTIONS}

            async def record() -> None:
                for name, (_, ask) in QUESTIONS.items():
                    history[name].answers.append((found.clock.now(), await ask(found.truth)))

            await record()
            for kind, what, who in steps:
                found.clock.advance(0.001)
                if kind == "wait":
                    found.clock.advance(what)
                elif kind == "do":
                    await STEPS[what](getattr(found, who), found.clock.now())
                    await record()
                else:
                    subject, ask = QUESTIONS[what]
                    age = found.one.age(subject)
                    assert 0 <= age < BELIEVED_SECONDS
                    assert await ask(found.one) in history[what].since(found.clock.now() - age)

    asyncio.run(go())
