"""The contract of SharedLoginCounts, against a real Valkey and against the fake."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial

import pytest

from adapters.shared.redis_login_counts import RedisLoginCounts
from application.ports.login_counts import LoginCounts, LoginResult, SharedLoginCounts
from application.ports.shared import SharedUnavailable
from domain.login_pace import MOST_COUNTED, Pace
from tests.contracts.replicas import connected, silence, with_each_kind
from tests.e2e.support.valkey import Valkey
from tests.fakes.login_counts import FakeLoginCounts

LANE, OTHER_LANE = "account 192.0.2.0/24 alice", "account 192.0.2.0/24 bob"
STRICT = Pace(free=3, first=1, longest=8, is_strict=True)
LOOSE = Pace(free=3, first=1, longest=8, is_strict=False)
NONE = LoginCounts()


class _RealClock:
    def now(self) -> float:
        return time.time()


@dataclass(frozen=True)
class TwoReplicas:
    one: SharedLoginCounts
    other: SharedLoginCounts
    stop: Callable[[], None]
    """The index does not answer any more."""

    async def record(self, *results: LoginResult) -> LoginCounts:
        """The counts after these results, at the two replicas in turn."""
        counts = NONE
        for number, result in enumerate(results):
            counts = await (self.other if number % 2 else self.one).record(LANE, result)
        return counts


@asynccontextmanager
async def two_replicas(kind: str, server: Valkey) -> AsyncIterator[TwoReplicas]:
    if kind == "fake":
        counts = FakeLoginCounts(_RealClock())
        yield TwoReplicas(counts, counts, lambda: setattr(counts, "is_away", True))
        return
    async with connected(server) as connections:
        counts_of_each = [RedisLoginCounts(one, b"a secret") for one in connections]
        yield TwoReplicas(*counts_of_each, partial(silence, server, connections))


by_two_replicas = with_each_kind(two_replicas)


WRONG, REFUSED, RIGHT = LoginResult.WRONG, LoginResult.REFUSED, LoginResult.RIGHT


@by_two_replicas
async def test_all_replicas_count_together(replicas: TwoReplicas) -> None:
    assert await replicas.one.counts(LANE) == NONE
    assert await replicas.record(WRONG, WRONG, REFUSED, WRONG) == LoginCounts(3, 1)
    assert await replicas.one.counts(LANE) == await replicas.other.counts(LANE) == LoginCounts(3, 1)
    assert await replicas.one.counts(OTHER_LANE) == NONE


@by_two_replicas
async def test_each_wrong_attempt_makes_the_next_wait_longer(replicas: TwoReplicas) -> None:
    loop = asyncio.get_running_loop()
    recorded_after = loop.time()
    for number, longest in enumerate([0, 0, 0, 1, 2, 4, 8, 8]):
        replica = replicas.other if number % 2 else replicas.one
        admission = await replica.begin(LANE, STRICT)
        assert admission.counts.wrong == number
        # Without the time that has passed since the last wrong attempt.
        assert longest - (loop.time() - recorded_after) - 0.1 <= admission.wait <= longest
        await replica.end(LANE, admission.attempt)
        recorded_after = loop.time()
        await replica.record(LANE, WRONG)


@by_two_replicas
async def test_an_attempt_may_begin_after_its_wait(replicas: TwoReplicas) -> None:
    pace = Pace(free=1, first=2, longest=2, is_strict=True)
    await replicas.record(WRONG)
    wait = (await replicas.other.begin(LANE, pace)).wait
    assert 0 < wait <= 2
    await asyncio.sleep(wait + 0.05)
    assert (await replicas.other.begin(LANE, pace)).wait == 0


@by_two_replicas
async def test_of_many_attempts_at_once_as_many_begin_as_are_free(replicas: TwoReplicas) -> None:
    begun = await asyncio.gather(
        *((replicas.one, replicas.other)[number % 2].begin(LANE, STRICT) for number in range(20))
    )
    assert [admission.wait for admission in begun].count(0) == STRICT.free
    running = [admission.attempt for admission in begun if not admission.wait]
    await replicas.one.end(LANE, running[0])
    assert (await replicas.other.begin(LANE, STRICT)).wait == 0
    assert (await replicas.other.begin(LANE, STRICT)).wait > 0


@by_two_replicas
async def test_running_attempts_count_for_a_loose_pace_only_after_the_free_wrong_ones(replicas: TwoReplicas) -> None:
    for _ in range(10):
        assert (await replicas.one.begin(LANE, LOOSE)).wait == 0
    await replicas.record(WRONG, WRONG)
    assert (await replicas.one.begin(LANE, LOOSE)).wait == 0
    await replicas.record(WRONG)
    assert (await replicas.other.begin(LANE, LOOSE)).wait > 0.1


@by_two_replicas
async def test_a_right_attempt_sets_the_counts_to_zero_and_others_still_run(replicas: TwoReplicas) -> None:
    running = [(await replicas.one.begin(LANE, STRICT)).attempt for _ in range(3)]
    await replicas.record(WRONG, REFUSED)
    assert await replicas.record(RIGHT) == NONE
    assert (await replicas.other.begin(LANE, STRICT)).wait > 0
    await replicas.one.end(LANE, running[0])
    assert (await replicas.other.begin(LANE, STRICT)).wait == 0


@by_two_replicas
async def test_many_refused_attempts_hide_no_wrong_ones(replicas: TwoReplicas) -> None:
    await replicas.record(WRONG, WRONG)
    counts = await replicas.record(*[REFUSED] * (MOST_COUNTED + 10))
    assert counts == LoginCounts(2, MOST_COUNTED)
    assert await replicas.record(*[WRONG] * (MOST_COUNTED + 10)) == LoginCounts(MOST_COUNTED, MOST_COUNTED)


@by_two_replicas
async def test_without_the_index_nothing_is_counted(replicas: TwoReplicas) -> None:
    replicas.stop()
    for request in (
        lambda: replicas.one.begin(LANE, STRICT),
        lambda: replicas.one.record(LANE, WRONG),
        lambda: replicas.one.counts(LANE),
        lambda: replicas.one.end(LANE, "a"),
    ):
        with pytest.raises(SharedUnavailable):
            await request()
