"""Many clients ask for a new tag at once, in many orders: the upstream counts one GET of a manifest."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest

from application.ports.upstream import UpstreamRequest
from domain.errors import RegistryError, UpstreamBroken, UpstreamUnreachable
from domain.manifests import INDEX_MEDIA_TYPE
from tests.application.support.pulls import Pulls
from tests.application.support.service import IMAGE_CONTENT, IMAGE_DIGEST, IMAGE_TYPE
from tests.fakes.upstream import FakeAnswer

CLIENTS = 50
ACCEPTS = [
    (),
    (IMAGE_TYPE,),
    (f"{INDEX_MEDIA_TYPE}, {IMAGE_TYPE}",),
    ("*/*",),
    ("application/x-unheard-of", IMAGE_TYPE),
]
SEEDS = pytest.mark.parametrize("seed", range(12))


class Scattered(Pulls):
    """Everything outside takes a while, never the same: the upstream, the content store, and the index of tags."""

    def __init__(self, seed: int, **settings: Any) -> None:
        super().__init__(**settings)
        self.chance = random.Random(seed)  # noqa: S311 - an order of events, not a secret
        self.upstream.hold = self._hold
        storage = self.service.parts.storage()
        for port, names in (
            (storage.index, ("find_tags", "keep_tag", "find_link")),
            (storage.store, ("put", "open")),
        ):
            for name in names:
                setattr(port, name, self._late(getattr(port, name)))

    async def pause(self, most: int = 6) -> None:
        for _ in range(self.chance.randrange(most)):
            await asyncio.sleep(0)

    async def _hold(self, _: UpstreamRequest) -> None:
        await self.pause(30)

    def _late(self, call: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def late(*values: Any, **options: Any) -> Any:
            await self.pause()
            result = await call(*values, **options)
            await self.pause()
            return result

        return late

    async def client(self, number: int, *, same: bool = False, **query: Any) -> Any:
        """It comes while the first GET is under way, or just after."""
        await self.pause(60)
        header = f"Bearer upstream-token-of-user{0 if same else number}="
        return await self.pull(header, **query)

    async def all(self, *clients: Awaitable[Any]) -> list[Any]:
        return await asyncio.gather(*clients, return_exceptions=True)

    def gets(self) -> int:
        return self.asked().count("GET")


def contents(answers: list[Any]) -> set[bytes]:
    return {answer.content for answer in answers}


@SEEDS
@pytest.mark.parametrize("tag_ttl", [0, 60])
@pytest.mark.parametrize("same", [False, True])
def test_a_tag_costs_one_get(seed: int, tag_ttl: int, *, same: bool) -> None:
    pulls = Scattered(seed, tag_ttl=tag_ttl)

    async def act() -> None:
        answers = await pulls.all(*(pulls.client(number, same=same) for number in range(CLIENTS)))
        assert contents(answers) == {IMAGE_CONTENT}
        assert pulls.gets() == 1

    pulls.run(act())


@SEEDS
def test_clients_that_accept_different_types_cost_one_get(seed: int) -> None:
    pulls = Scattered(seed)

    async def act() -> None:
        answers = await pulls.all(
            *(pulls.client(number, accept=ACCEPTS[number % len(ACCEPTS)]) for number in range(CLIENTS))
        )
        assert contents(answers) == {IMAGE_CONTENT}
        assert pulls.gets() == 1

    pulls.run(act())


@SEEDS
def test_clients_that_ask_by_head_first_cost_one_get_with_the_others(seed: int) -> None:
    pulls = Scattered(seed)

    async def by_head(number: int) -> Any:
        head = await pulls.client(number, head=True)
        return await pulls.client(number, reference=str(head.digest))

    async def act() -> None:
        answers = await pulls.all(
            *(by_head(number) if number % 2 else pulls.client(number) for number in range(CLIENTS))
        )
        assert contents(answers) == {IMAGE_CONTENT}
        assert pulls.gets() == 1

    pulls.run(act())


@SEEDS
def test_a_digest_costs_one_get(seed: int) -> None:
    pulls = Scattered(seed)

    async def act() -> None:
        digest = str(IMAGE_DIGEST)
        answers = await pulls.all(*(pulls.client(number, reference=digest) for number in range(CLIENTS)))
        assert contents(answers) == {IMAGE_CONTENT}
        assert pulls.gets() == 1

    pulls.run(act())


@SEEDS
@pytest.mark.parametrize("fault", [UpstreamUnreachable("gone"), UpstreamBroken("the upstream answered 503")])
def test_if_the_first_fails_one_other_request_fetches_for_all(seed: int, fault: RegistryError) -> None:
    pulls = Scattered(seed)
    failing = [fault]
    pulls.upstream.refuse = lambda fetch: None if fetch.head or not failing else failing.pop()

    async def act() -> None:
        answers = await pulls.all(*(pulls.client(number) for number in range(CLIENTS)))
        assert sum(answer is fault for answer in answers) == 1
        assert contents([answer for answer in answers if answer is not fault]) == {IMAGE_CONTENT}
        assert pulls.gets() == 2, "one that failed, and one"

    pulls.run(act())


@SEEDS
def test_a_tag_that_has_changed_costs_one_get(seed: int) -> None:
    pulls = Scattered(seed)
    new = b'{"schemaVersion":2,"layers":[],"annotations":{"new":"yes"}}'

    async def act() -> None:
        await pulls.all(*(pulls.client(number) for number in range(CLIENTS)))
        pulls.upstream.put_manifest("private/app", "1", new)
        pulls.service.clock.advance(61)
        pulls.asked()
        answers = await pulls.all(*(pulls.client(number) for number in range(CLIENTS)))
        assert contents(answers) == {new}
        assert pulls.gets() == 1

    pulls.run(act())


@SEEDS
def test_the_get_of_a_client_that_leaves_continues_for_the_others(seed: int) -> None:
    pulls = Scattered(seed)

    async def act() -> None:
        clients = [asyncio.create_task(pulls.client(number)) for number in range(CLIENTS)]
        await pulls.pause(60)
        for client in clients[::2]:
            client.cancel()
        answers = await asyncio.gather(*clients, return_exceptions=True)
        assert contents([one for one in answers if not isinstance(one, BaseException)]) == {IMAGE_CONTENT}
        assert pulls.gets() == 1

    pulls.run(act())


def test_without_a_cache_waiting_requests_get_the_result_of_the_first() -> None:
    pulls = Pulls(cache_dir="off")

    async def hold(fetch: UpstreamRequest) -> None:
        for _ in range(50):
            await asyncio.sleep(0)

    pulls.upstream.hold = hold

    async def act() -> None:
        headers = [f"Bearer upstream-token-of-user{number}=" for number in range(CLIENTS)]
        answers = await asyncio.gather(*(pulls.pull(header) for header in headers))
        assert contents(answers) == {IMAGE_CONTENT}
        assert sorted(pulls.asked()) == ["GET"] + ["HEAD"] * (CLIENTS - 1)

    pulls.run(act())


def test_without_a_digest_in_head_each_caller_costs_one_get() -> None:
    """Old registries: only a GET shows that the manifest is the same."""
    pulls = Pulls()

    def alter(answer: FakeAnswer) -> FakeAnswer:
        head = pulls.upstream.asked[-1].head
        return replace(answer, metadata=replace(answer.metadata, digest=None)) if head else answer

    async def hold(fetch: UpstreamRequest) -> None:
        for _ in range(50):
            await asyncio.sleep(0)

    pulls.upstream.alter, pulls.upstream.hold = alter, hold

    async def act() -> None:
        answers = await asyncio.gather(*(pulls.pull() for _ in range(CLIENTS)))
        assert contents(answers) == {IMAGE_CONTENT}
        assert pulls.asked().count("GET") == 1

    pulls.run(act())
