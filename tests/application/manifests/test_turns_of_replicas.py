"""Clients of several replicas and workers ask for a new manifest at once: the upstream counts one GET."""

import asyncio
import random
from collections.abc import Iterator
from typing import Any

import pytest

from application.ports.upstream import ForwardedCredentials, UpstreamRequest
from domain.digest import Digest
from domain.errors import Denied, UpstreamBackOff, UpstreamBroken, UpstreamThrottled
from domain.manifests import INDEX_MEDIA_TYPE
from domain.upstreams import Source
from tests.application.support.line import elapsed
from tests.application.support.replicas import Replica, Replicas
from tests.application.support.service import IMAGE_CONTENT, IMAGE_DIGEST, IMAGE_TYPE, NAME
from tests.application.support.watched import ALICES, BOBS, NOBODYS

ACCEPTS: list[tuple[str, ...]] = [(), (IMAGE_TYPE,), (f"{INDEX_MEDIA_TYPE}, {IMAGE_TYPE}",), ("application/x-new",)]
CALLERS = [ALICES, BOBS, "Bearer upstream-token-of-carol="]
"""Callers of one class: each needs a proof of its own, but none learns from it what only other classes may know."""
SEEDS = pytest.mark.parametrize("seed", range(8))


class Pulling(Replicas):
    """`latency`: seconds until the upstream answers; `spread`: the clients come within so many latencies."""

    spread = 3.0

    def __init__(self, count: int = 4, latency: float = 0.1, seed: int = 0, **settings: Any) -> None:
        super().__init__(count, **{"tag_ttl": 60, "grant_ttl": 300} | settings)
        self.latency = latency
        self.chance = random.Random(seed)  # noqa: S311 - an order of events, not a secret
        self.upstream.hold = self._hold

    async def _hold(self, _: UpstreamRequest) -> None:
        await asyncio.sleep(self.latency * (0.5 + self.chance.random()))

    async def pull(self, one: Replica, header: str = ALICES, **query: Any) -> Any:
        await asyncio.sleep(self.chance.random() * self.latency * self.spread)
        return await one.service.manifest(header, NAME, **query)

    async def pull_everywhere(self, clients: int = 6, **query: Any) -> list[Any]:
        return await self.together(
            self.pull(one, CALLERS[number % 3], **query) for one in self.all for number in range(clients)
        )

    async def together(self, pulls: Iterator[Any]) -> list[Any]:
        return await asyncio.gather(*pulls, return_exceptions=True)

    def count(self, method: str) -> int:
        return len(self.upstream.heads if method == "HEAD" else self.upstream.gets)


def source_of(one: Replica) -> Source:
    return Source(one.service.parts.upstream(), NAME)


def contents(answers: list[Any]) -> set[bytes]:
    assert not [answer for answer in answers if isinstance(answer, BaseException)], answers
    return {answer.content for answer in answers}


@SEEDS
@pytest.mark.parametrize("tag_ttl", [0, 60])
def test_a_new_tag_costs_one_get(seed: int, tag_ttl: int) -> None:
    replicas = Pulling(seed=seed, tag_ttl=tag_ttl)
    assert contents(replicas.run(replicas.pull_everywhere())) == {IMAGE_CONTENT}
    assert replicas.count("GET") == 1


@SEEDS
def test_clients_that_accept_different_types_cost_one_get(seed: int) -> None:
    replicas = Pulling(seed=seed)
    replicas.spread = 0.4  # they come during the GET: a tag is not cached for types whose answer cannot be predicted
    pulls = (replicas.pull(one, accept=accept) for one in replicas.all for accept in ACCEPTS)
    assert contents(replicas.run(replicas.together(pulls))) == {IMAGE_CONTENT}
    assert replicas.count("GET") == 1


@SEEDS
def test_a_digest_costs_one_get(seed: int) -> None:
    replicas = Pulling(seed=seed)
    assert contents(replicas.run(replicas.pull_everywhere(reference=str(IMAGE_DIGEST)))) == {IMAGE_CONTENT}
    assert replicas.count("GET") == 1


@SEEDS
def test_a_tag_that_has_changed_costs_one_get(seed: int) -> None:
    replicas = Pulling(seed=seed)
    new = b'{"schemaVersion":2,"layers":[],"annotations":{"new":"yes"}}'

    async def act() -> None:
        await replicas.pull_everywhere()
        replicas.upstream.put_manifest(str(NAME), "1", new)
        replicas.clock.advance(61)
        replicas.upstream.asked.clear()
        assert contents(await replicas.pull_everywhere()) == {new}

    replicas.run(act())
    assert replicas.count("GET") == 1


def test_a_client_that_asks_by_head_first_waits_for_the_get_of_the_tag() -> None:
    replicas = Pulling(2, latency=1)
    first, second = replicas.all

    async def by_digest() -> Any:
        await asyncio.sleep(0.2)
        head = await second.service.manifest(BOBS, NAME, head=True)
        return await second.service.manifest(BOBS, NAME, reference=str(head.digest))

    async def act() -> list[Any]:
        replicas.upstream.hold = hold
        return await asyncio.gather(first.service.manifest(ALICES, NAME), by_digest())

    async def hold(fetch: UpstreamRequest) -> None:
        await asyncio.sleep(0.1 if fetch.head else 1)

    assert contents(replicas.run(act())) == {IMAGE_CONTENT}
    assert replicas.count("GET") == 1


def test_callers_with_the_same_rights_need_no_requests_of_their_own() -> None:
    replicas = Pulling(seed=3)
    pulls = (replicas.pull(one, NOBODYS) for one in replicas.all for _ in range(6))
    assert contents(replicas.run(replicas.together(pulls))) == {IMAGE_CONTENT}
    assert (replicas.count("GET"), replicas.count("HEAD")) == (1, 0)


def test_each_caller_proves_its_own_permission() -> None:
    replicas = Pulling(2)
    first, second = replicas.all
    bobs = ForwardedCredentials(BOBS)
    replicas.upstream.refuse = lambda fetch: Denied("not bob") if fetch.credentials == bobs else None

    async def act() -> list[Any]:
        return await asyncio.gather(
            first.service.manifest(ALICES, NAME), second.service.manifest(BOBS, NAME), return_exceptions=True
        )

    answer, refusal = replicas.run(act())
    assert answer.content == IMAGE_CONTENT
    assert isinstance(refusal, Denied)


def test_if_the_first_get_fails_one_other_replica_fetches_for_all() -> None:
    replicas = Pulling()
    failing = [UpstreamBroken("the upstream answered 503")]
    replicas.upstream.refuse = lambda fetch: None if fetch.head or not failing else failing.pop()
    answers = replicas.run(replicas.pull_everywhere())
    failed = [answer for answer in answers if isinstance(answer, UpstreamBroken)]
    assert len(failed) <= 2  # the caller may have two requests at the replica that failed
    assert contents([answer for answer in answers if answer not in failed]) == {IMAGE_CONTENT}
    assert replicas.count("GET") == 2, "one that failed, and one"


def test_a_replica_that_dies_with_the_turn_stops_the_others_for_at_most_three_seconds() -> None:
    replicas = Pulling(2, latency=0.1)
    first, second = replicas.all

    async def act() -> tuple[Any, float]:
        await replicas.turns.take(source_of(first), ["1"])  # and never ends it
        return await second.service.manifest(ALICES, NAME), elapsed()

    answer, seconds = replicas.run(act())
    assert answer.content == IMAGE_CONTENT
    assert 2.9 < seconds < 3.6
    assert replicas.count("GET") == 1


def test_an_older_answer_does_not_make_a_dead_replica_look_like_an_outage() -> None:
    replicas = Pulling(2, latency=0.1)
    first, second = replicas.all

    async def act() -> Any:
        await second.service.manifest(ALICES, NAME)
        replicas.upstream.put_manifest(str(NAME), "1", b'{"schemaVersion":2,"layers":[],"annotations":{}}')
        replicas.clock.advance(61)
        await replicas.turns.take(source_of(first), ["1"])
        return await second.service.manifest(ALICES, NAME)

    answer = replicas.run(act())
    assert answer.content != IMAGE_CONTENT
    assert answer.warnings == ()


def test_without_the_index_each_replica_fetches_at_once() -> None:
    replicas = Pulling(4)
    replicas.turns.is_away = True
    for one in replicas.all:
        one.service.parts.manifest_cache().forget_all()

    async def act() -> tuple[list[Any], float]:
        pulls = [one.service.manifest(ALICES, NAME) for one in replicas.all]
        return await asyncio.gather(*pulls), elapsed()

    answers, seconds = replicas.run(act())
    assert contents(answers) == {IMAGE_CONTENT}
    assert replicas.count("GET") == 4
    assert seconds < 0.2


def test_a_store_that_is_slow_to_write_delays_the_others_for_half_a_second() -> None:
    replicas = Pulling(2, latency=0.01)

    async def put(*_: Any) -> None:
        await asyncio.sleep(30)

    replicas.store.put = put  # type: ignore[method-assign]

    async def act() -> tuple[list[Any], float]:
        answers = await replicas.together(replicas.pull(one) for one in replicas.all)
        return answers, elapsed()

    answers, seconds = replicas.run(act())
    assert contents(answers) == {IMAGE_CONTENT}
    assert replicas.count("GET") == 2
    assert seconds < 1.0


def test_a_429_of_the_holder_ends_its_turn() -> None:
    replicas = Pulling(2, latency=0.1)
    replicas.upstream.refuse = lambda fetch: UpstreamThrottled("slow down", retry_after="30")

    async def act() -> tuple[list[Any], float]:
        answers = await replicas.together(replicas.pull(one) for one in replicas.all)
        return answers, elapsed()

    answers, seconds = replicas.run(act())
    assert all(isinstance(answer, UpstreamThrottled | UpstreamBackOff) for answer in answers)
    assert seconds < 1.5


def test_the_turn_names_tags_and_digests_only() -> None:
    replicas = Pulling(2, latency=0.1)
    taken: list[Any] = []
    take = replicas.turns.take

    async def watched(source: Any, names: Any) -> Any:
        taken.append((source, tuple(names)))
        return await take(source, names)

    replicas.turns.take = watched  # type: ignore[method-assign]

    async def act() -> None:
        first, second = replicas.all
        await first.service.manifest(ALICES, NAME)
        await second.service.manifest(BOBS, NAME, reference=str(Digest.of(IMAGE_CONTENT)))

    replicas.run(act())
    assert {name for _, names in taken for name in names} <= {"1", str(IMAGE_DIGEST)}
    assert {str(source.repository) for source, _ in taken} == {str(NAME)}
