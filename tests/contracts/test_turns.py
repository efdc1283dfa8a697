"""The contract of Turns, against a real Valkey and against the fake."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial

from adapters.shared.redis_turns import RedisTurns
from application.ports.turns import Turn, Turns
from tests.contracts.replicas import connected, let_expire, silence, with_each_kind
from tests.contracts.storage import NGINX, NGINX_AT_QUAY, REDIS
from tests.e2e.support.valkey import Valkey
from tests.fakes.turns import FakeTurns

_SECONDS = 60.0
"""Much longer than a test: only `let_turns_end` ends a turn that nobody ends."""


@dataclass(frozen=True)
class TwoReplicas:
    one: Turns
    other: Turns
    stop: Callable[[], None]
    """The index does not answer any more."""
    let_turns_end: Callable[[], None]
    """The time of all turns passes."""


@asynccontextmanager
async def two_replicas(kind: str, server: Valkey) -> AsyncIterator[TwoReplicas]:
    if kind == "fake":
        turns = FakeTurns(_SECONDS)
        yield TwoReplicas(turns, turns, lambda: setattr(turns, "is_away", True), turns.running.clear)
        return

    def let_turns_end() -> None:
        names = server.command("KEYS", "*")
        assert isinstance(names, list)
        assert names
        let_expire(server, *(name.decode() for name in names), within=_SECONDS)

    async with connected(server) as connections:
        turns_of_each = [RedisTurns(one, _SECONDS) for one in connections]
        yield TwoReplicas(*turns_of_each, partial(silence, server, connections), let_turns_end)


by_two_replicas = with_each_kind(two_replicas)


async def taken(turns: Turns, *names: str) -> Turn:
    turn = await turns.take(NGINX, names)
    assert turn
    return turn


@by_two_replicas
async def test_one_of_many_requests_gets_the_turn(replicas: TwoReplicas) -> None:
    turns = await asyncio.gather(*(one.take(NGINX, ["1"]) for one in (replicas.one, replicas.other) * 20))
    assert len([turn for turn in turns if turn]) == 1
    assert not await replicas.one.is_over(NGINX, ["1"])
    assert not await replicas.other.is_over(NGINX, ["1"])


@by_two_replicas
async def test_the_turn_is_free_after_its_end(replicas: TwoReplicas) -> None:
    turn = await taken(replicas.one, "1")
    await replicas.one.end(turn)
    assert await replicas.other.is_over(NGINX, ["1"])
    assert await taken(replicas.other, "1")


@by_two_replicas
async def test_a_turn_for_several_names_needs_all_of_them(replicas: TwoReplicas) -> None:
    first = await taken(replicas.one, "1", "sha256:ab")
    assert await replicas.other.take(NGINX, ["2", "sha256:ab"]) is None
    assert await replicas.other.is_over(NGINX, ["2"])
    assert not await replicas.other.is_over(NGINX, ["2", "sha256:ab"])
    await replicas.one.end(first)
    assert await taken(replicas.other, "2", "sha256:ab")
    assert await replicas.one.is_over(NGINX, ["1"])


@by_two_replicas
async def test_turns_of_other_repositories_and_upstreams_are_independent(replicas: TwoReplicas) -> None:
    await taken(replicas.one, "1")
    for source in (REDIS, NGINX_AT_QUAY):
        assert await replicas.other.take(source, ["1"])


@by_two_replicas
async def test_a_turn_that_is_not_ended_ends_by_itself(replicas: TwoReplicas) -> None:
    await taken(replicas.one, "1")
    assert await replicas.other.take(NGINX, ["1"]) is None
    replicas.let_turns_end()
    assert await replicas.other.is_over(NGINX, ["1"])
    assert await taken(replicas.other, "1")


@by_two_replicas
async def test_a_late_end_does_not_end_the_turn_of_another_request(replicas: TwoReplicas) -> None:
    late = await taken(replicas.one, "1")
    replicas.let_turns_end()
    await taken(replicas.other, "1")
    await replicas.one.end(late)
    assert not await replicas.one.is_over(NGINX, ["1"])


@by_two_replicas
async def test_a_name_can_be_added_to_a_running_turn(replicas: TwoReplicas) -> None:
    turn = await taken(replicas.one, "1")
    await replicas.other.add(NGINX, "1", "sha256:ab")
    assert await replicas.other.take(NGINX, ["sha256:ab"]) is None
    await replicas.one.end(turn, added=["sha256:ab"])
    assert await replicas.other.is_over(NGINX, ["1", "sha256:ab"])


@by_two_replicas
async def test_an_added_name_ends_with_the_turn_by_itself(replicas: TwoReplicas) -> None:
    await taken(replicas.one, "1")
    await replicas.other.add(NGINX, "1", "sha256:ab")
    replicas.let_turns_end()
    assert await replicas.other.is_over(NGINX, ["sha256:ab"])


@by_two_replicas
async def test_a_name_with_a_turn_of_its_own_keeps_it(replicas: TwoReplicas) -> None:
    first = await taken(replicas.one, "1")
    await taken(replicas.other, "sha256:ab")
    await replicas.other.add(NGINX, "1", "sha256:ab")
    await replicas.one.end(first, added=["sha256:ab"])
    assert not await replicas.one.is_over(NGINX, ["sha256:ab"])


@by_two_replicas
async def test_a_name_is_not_added_if_no_turn_runs(replicas: TwoReplicas) -> None:
    await replicas.one.add(NGINX, "1", "sha256:ab")
    assert await replicas.other.is_over(NGINX, ["sha256:ab"])


@by_two_replicas
async def test_without_the_index_all_have_the_turn_at_once(replicas: TwoReplicas) -> None:
    before = await taken(replicas.one, "1")
    replicas.stop()
    for turns in (replicas.one, replicas.other):
        assert await turns.is_over(NGINX, ["1"])
        turn = await turns.take(NGINX, ["1"])
        assert turn
        await turns.add(NGINX, "1", "sha256:ab")
        await turns.end(turn)
    await replicas.one.end(before)
