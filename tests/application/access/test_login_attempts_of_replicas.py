"""A client that guesses passwords gets no more attempts at several replicas than at one."""

import asyncio
from typing import Any

import pytest

from application.access.login_attempts import OF_RELAYED, Attempt, LoginAttempts
from application.access.shared_lane import SharedCounting
from application.concurrency import BackgroundTasks
from domain.errors import TooManyAttempts
from tests.application.support.watched import soon
from tests.fakes.clock import StoppedClock
from tests.fakes.events import RecordingEventSink
from tests.fakes.login_counts import FakeLoginCounts

HERE, ELSEWHERE = "192.0.2.1", "192.0.2.2"
ALICE = Attempt(HERE, "alice", exists=True)


class Doors:
    """Several replicas, and the seconds since the first attempt at which each was checked."""

    def __init__(self, count: int = 4, **settings: Any) -> None:
        self.clock = StoppedClock()
        self.counts = FakeLoginCounts(self.clock)
        self.background = BackgroundTasks()
        shared = SharedCounting(self.counts, "account", self.background)
        self.replicas = [
            LoginAttempts(self.clock, RecordingEventSink(), self.clock.pause, shared=shared, **settings)
            for _ in range(count)
        ]
        self.began = self.clock.now()
        self.checked_at: list[float] = []
        self.together = self.most_together = 0

    async def attempt(self, replica: int, attempt: Attempt = ALICE, *, right: bool = False) -> None:
        attempts = self.replicas[replica % len(self.replicas)]
        async with attempts.turn(attempt):
            self.checked_at.append(round(self.clock.now() - self.began))
            self.together += 1
            self.most_together = max(self.most_together, self.together)
            await asyncio.sleep(0)
            self.together -= 1
            (attempts.right if right else attempts.wrong)(attempt)

    async def one(self, replica: int, attempt: Attempt = ALICE, *, right: bool = False) -> int:
        """The whole seconds that it waited."""
        before = self.clock.now()
        await self.attempt(replica, attempt, right=right)
        await self.background.close()
        return round(self.clock.now() - before)


async def test_the_replicas_count_wrong_attempts_together() -> None:
    doors = Doors()
    assert [await doors.one(number) for number in range(9)] == [0, 0, 0, 1, 2, 4, 8, 8, 8]


async def test_attempts_at_once_at_all_replicas_get_no_more_than_one_after_another() -> None:
    doors = Doors()
    results = await asyncio.gather(*(doors.attempt(number) for number in range(40)), return_exceptions=True)
    assert all(result is None or isinstance(result, TooManyAttempts) for result in results), results
    assert doors.most_together <= 3
    assert len(doors.checked_at) <= 8
    assert max(doors.checked_at) <= 17


async def test_a_right_attempt_ends_the_waiting_at_all_replicas() -> None:
    doors = Doors()
    for number in range(3):
        await doors.one(number)
    await doors.one(3, right=True)
    assert [await doors.one(number) for number in (3, 3)] == [0, 0]


async def test_another_address_or_account_does_not_wait() -> None:
    doors = Doors()
    for number in range(6):
        await doors.one(number)
    assert await doors.one(1, Attempt(ELSEWHERE, "alice", exists=True)) == 0
    assert await doors.one(1, Attempt(HERE, "bob", exists=True)) == 0


async def test_many_accounts_from_one_address_wait_in_the_end() -> None:
    doors = Doors()
    waits = [await doors.one(number, Attempt(HERE, f"user{number}", exists=True)) for number in range(36)]
    assert waits[:30] == [0] * 30
    assert sum(waits[30:]) > 5


async def test_trust_ends_at_all_replicas_after_wrong_attempts_at_some() -> None:
    doors = Doors(3)
    for number in range(20):
        await doors.one(number % 2)
    last = doors.replicas[2]
    last.trusts(ALICE)  # it reads the counts in the background
    await doors.background.close()
    assert not last.trusts(ALICE)
    assert last.trusts(Attempt(ELSEWHERE, "alice", exists=True))
    doors.clock.advance(300)
    assert last.trusts(ALICE)


async def test_refused_attempts_at_one_replica_end_the_trust_at_another() -> None:
    doors = Doors(2)
    await asyncio.gather(*(doors.attempt(0) for _ in range(60)), return_exceptions=True)
    await doors.background.close()
    doors.replicas[1].trusts(ALICE)
    await doors.background.close()
    assert not doors.replicas[1].trusts(ALICE)


async def test_a_login_that_is_trusted_costs_one_request_in_five_seconds() -> None:
    doors = Doors(1)
    for _ in range(50):
        assert doors.replicas[0].trusts(ALICE)
        await doors.background.close()
    assert doors.counts.requests == 1
    doors.clock.advance(5)
    assert doors.replicas[0].trusts(ALICE)
    await doors.background.close()
    assert doors.counts.requests == 2


async def test_a_flood_of_refused_attempts_is_no_flood_of_requests_to_the_index() -> None:
    doors = Doors(1)
    await asyncio.gather(*(doors.attempt(0) for _ in range(1000)), return_exceptions=True)
    await doors.background.close()
    assert doors.counts.requests < 100


async def test_without_the_index_each_replica_counts_for_itself() -> None:
    doors = Doors(2)
    doors.counts.is_away = True
    assert [await doors.one(0) for _ in range(6)] == [0, 0, 0, 1, 2, 4]
    assert await doors.one(1) == 0


async def test_what_a_replica_counted_while_the_index_was_away_still_counts_there() -> None:
    doors = Doors(2)
    doors.counts.is_away = True
    for _ in range(4):
        await doors.one(0)
    doors.counts.is_away = False
    assert await doors.one(0) == 2


async def test_many_clients_with_one_name_at_an_upstream_log_in_at_the_same_time_at_all_replicas() -> None:
    """As for `AWS`: each client has a token of its own, and all of them are right."""
    doors = Doors(4, of_account=OF_RELAYED)
    await asyncio.gather(*(doors.attempt(number, right=True) for number in range(40)))
    assert len(doors.checked_at) == 40
    assert max(doors.checked_at) == 0


async def test_an_attempt_that_is_cancelled_does_not_run_any_more() -> None:
    doors = Doors(2)

    async def never() -> None:
        async with doors.replicas[0].turn(ALICE):
            await asyncio.Event().wait()

    clients = [asyncio.create_task(never()) for _ in range(3)]
    await soon(lambda: sum(len(lane.running) for lane in doors.counts.lanes.values()) == 6)
    for client in clients:
        client.cancel()
    await asyncio.gather(*clients, return_exceptions=True)
    assert await doors.one(1) == 0


async def test_a_wait_for_a_running_attempt_that_is_too_long_is_a_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.fakes.login_counts.RUNNING_SECONDS", 60.0)
    doors = Doors(2)
    for _ in range(3):
        await doors.one(0)

    async def never() -> None:
        async with doors.replicas[0].turn(ALICE):
            await asyncio.Event().wait()

    client = asyncio.create_task(never())
    await soon(lambda: any(lane.running for lane in doors.counts.lanes.values()))
    with pytest.raises(TooManyAttempts):
        await doors.attempt(1)
    client.cancel()
    await asyncio.gather(client, return_exceptions=True)
