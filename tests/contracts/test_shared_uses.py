"""SharedUses: the fake and Redis."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator

import pytest

from adapters.shared.redis_connection import RedisConnection
from adapters.shared.redis_uses import RedisUses
from application.ports.shared import SharedUses
from domain.digest import Digest
from domain.redis_address import RedisAddress
from tests.e2e.support.valkey import Valkey, valkey
from tests.fakes.events import RecordingEventSink
from tests.fakes.shared_uses import FakeSharedUses

FIRST, SECOND, THIRD = (Digest.of(bytes([number])) for number in range(3))
_WAIT = 1.0  # of a request to Valkey: a loaded machine is slow
Act = Callable[[SharedUses], Awaitable[object]]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    with valkey(tmp_path_factory.mktemp("valkey")) as running:
        yield running


@pytest.fixture(params=["fake", "redis"])
def run(request: pytest.FixtureRequest, server: Valkey) -> Callable[[Act], object]:
    """Runs the steps of a test with an implementation that knows nothing yet."""

    async def with_redis(act: Act) -> object:
        server.flush()
        connection = RedisConnection(RedisAddress.parse(server.url), RecordingEventSink(), _WAIT)
        try:
            return await act(RedisUses(connection))
        finally:
            await connection.close()

    async def with_fake(act: Act) -> object:
        return await act(FakeSharedUses())

    chosen = with_redis if request.param == "redis" else with_fake
    return lambda act: asyncio.run(chosen(act))


def test_the_last_use_of_each_content_is_known(run: Callable[[Act], object]) -> None:
    async def act(uses: SharedUses) -> object:
        await uses.touch({FIRST: 10.5, SECOND: 20.25})
        await uses.touch({FIRST: 30.0})
        return await uses.last([SECOND, FIRST, THIRD])

    assert run(act) == {FIRST: 30.0, SECOND: 20.25}


def test_an_earlier_use_does_not_replace_a_later_one(run: Callable[[Act], object]) -> None:
    async def act(uses: SharedUses) -> object:
        await uses.touch({FIRST: 30.0})
        await uses.touch({FIRST: 10.0})
        return await uses.last([FIRST])

    assert run(act) == {FIRST: 30.0}


def test_forgotten_uses_are_unknown(run: Callable[[Act], object]) -> None:
    async def act(uses: SharedUses) -> object:
        await uses.touch({FIRST: 1.0, SECOND: 2.0})
        await uses.forget([FIRST, THIRD])
        return await uses.last([FIRST, SECOND])

    assert run(act) == {SECOND: 2.0}


def test_old_uses_can_be_forgotten(run: Callable[[Act], object]) -> None:
    async def act(uses: SharedUses) -> object:
        await uses.touch({FIRST: 1.0, SECOND: 2.5, THIRD: 3.0})
        await uses.forget_before(2.5)
        return await uses.last([FIRST, SECOND, THIRD])

    assert run(act) == {SECOND: 2.5, THIRD: 3.0}


def test_any_number_of_uses_is_kept(run: Callable[[Act], object]) -> None:
    many = {Digest.of(str(number).encode()): float(number) for number in range(1201)}

    async def act(uses: SharedUses) -> object:
        await uses.touch(many)
        found = await uses.last(list(many))
        await uses.forget(list(many)[1:])
        return found, await uses.last(list(many))

    assert run(act) == (many, {Digest.of(b"0"): 0.0})


def test_nothing_is_asked_for_nothing(run: Callable[[Act], object]) -> None:
    async def act(uses: SharedUses) -> object:
        await uses.touch({})
        await uses.forget([])
        return await uses.last([])

    assert run(act) == {}


def test_one_caller_looks_after_the_store_at_a_time(run: Callable[[Act], object]) -> None:
    async def act(uses: SharedUses) -> object:
        return [await uses.take_upkeep(60) for _ in range(3)]

    assert run(act) == [True, False, False]
