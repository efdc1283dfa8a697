"""The contract of SharedUses, against a real Valkey and against the fake."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from adapters.clock import SystemClock
from adapters.shared.redis_uses import RedisUses
from application.ports.shared import SharedUses
from domain.digest import Digest
from tests.contracts.replicas import connected, with_each_kind
from tests.e2e.support.valkey import Valkey
from tests.fakes.shared_uses import FakeSharedUses

FIRST, SECOND, THIRD = (Digest.of(bytes([number])) for number in range(3))


@asynccontextmanager
async def two_workers(kind: str, server: Valkey) -> AsyncIterator[tuple[SharedUses, SharedUses]]:
    if kind == "fake":
        uses = FakeSharedUses(SystemClock())
        yield uses, uses.of_another_worker()
        return
    async with connected(server) as (one, other):
        yield RedisUses(one), RedisUses(other)


@asynccontextmanager
async def one_worker(kind: str, server: Valkey) -> AsyncIterator[SharedUses]:
    async with two_workers(kind, server) as (uses, _):
        yield uses


with_uses = with_each_kind(one_worker)
with_two_workers = with_each_kind(two_workers)


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
async def test_any_number_of_old_uses_is_forgotten(uses: SharedUses) -> None:
    many = {Digest.of(str(number).encode()): float(number) for number in range(1201)}
    await uses.touch(many)
    await uses.forget_before(1199.0)
    assert sorted((await uses.last(list(many))).values()) == [1199.0, 1200.0]


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


@with_two_workers
async def test_one_worker_looks_after_the_store_at_a_time(workers: tuple[SharedUses, SharedUses]) -> None:
    one, other = workers
    assert [await uses.take_upkeep(60) for uses in (one, other, one)] == [True, False, False]


@with_two_workers
async def test_the_worker_that_looks_after_the_store_goes_on_until_another_one_begins(
    workers: tuple[SharedUses, SharedUses],
) -> None:
    one, other = workers
    began = [await one.take_upkeep(60), await one.keep_upkeep(60), await other.keep_upkeep(60)]
    assert began == [True, True, False]
    await one.keep_upkeep(0.01)
    await asyncio.sleep(0.05)
    assert [await other.take_upkeep(60), await one.keep_upkeep(60), await other.keep_upkeep(60)] == [True, False, True]
