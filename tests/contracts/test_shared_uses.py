"""The contract of SharedUses, against a real Valkey and against the fake."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from adapters.shared.redis_uses import RedisUses
from application.ports.shared import SharedUses
from domain.digest import Digest
from tests.contracts.replicas import connected, with_each_kind
from tests.e2e.support.valkey import Valkey
from tests.fakes.shared_uses import FakeSharedUses

FIRST, SECOND, THIRD = (Digest.of(bytes([number])) for number in range(3))


@asynccontextmanager
async def uses_of(kind: str, server: Valkey) -> AsyncIterator[SharedUses]:
    if kind == "fake":
        yield FakeSharedUses()
        return
    async with connected(server, 1) as (connection,):
        yield RedisUses(connection)


with_uses = with_each_kind(uses_of)


@with_uses
async def test_the_last_use_of_each_content_is_known(uses: SharedUses) -> None:
    await uses.touch({FIRST: 10.5, SECOND: 20.25})
    await uses.touch({FIRST: 30.0})
    assert await uses.last([SECOND, FIRST, THIRD]) == {FIRST: 30.0, SECOND: 20.25}


@with_uses
async def test_an_earlier_use_does_not_replace_a_later_one(uses: SharedUses) -> None:
    await uses.touch({FIRST: 30.0})
    await uses.touch({FIRST: 10.0})
    assert await uses.last([FIRST]) == {FIRST: 30.0}


@with_uses
async def test_forgotten_uses_are_unknown(uses: SharedUses) -> None:
    await uses.touch({FIRST: 1.0, SECOND: 2.0})
    await uses.forget([FIRST, THIRD])
    assert await uses.last([FIRST, SECOND]) == {SECOND: 2.0}


@with_uses
async def test_old_uses_can_be_forgotten(uses: SharedUses) -> None:
    await uses.touch({FIRST: 1.0, SECOND: 2.5, THIRD: 3.0})
    await uses.forget_before(2.5)
    assert await uses.last([FIRST, SECOND, THIRD]) == {SECOND: 2.5, THIRD: 3.0}


@with_uses
async def test_any_number_of_uses_is_kept(uses: SharedUses) -> None:
    many = {Digest.of(str(number).encode()): float(number) for number in range(1201)}
    await uses.touch(many)
    found = await uses.last(list(many))
    await uses.forget(list(many)[1:])
    assert (found, await uses.last(list(many))) == (many, {Digest.of(b"0"): 0.0})


@with_uses
async def test_nothing_is_asked_for_nothing(uses: SharedUses) -> None:
    await uses.touch({})
    await uses.forget([])
    assert await uses.last([]) == {}


@with_uses
async def test_one_caller_looks_after_the_store_at_a_time(uses: SharedUses) -> None:
    assert [await uses.take_upkeep(60) for _ in range(3)] == [True, False, False]
