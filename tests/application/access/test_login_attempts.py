"""How long whoever guesses waits, on a clock that goes on only where somebody waits."""

import asyncio
import tracemalloc
from collections.abc import Coroutine
from typing import Any

import pytest

from application.access.login_attempts import Attempt, LoginAttempts
from domain.errors import TooManyAttempts
from domain.events import LoginDelayed, LoginRejected
from tests.fakes.clock import StoppedClock
from tests.fakes.events import RecordingEventSink

HERE, ELSEWHERE = "192.0.2.1", "192.0.2.2"
ALICE = Attempt(HERE, "alice", exists=True)


class Door:
    """Attempts, and the seconds since the first at which each was looked at."""

    def __init__(self) -> None:
        self.clock, self.events = StoppedClock(), RecordingEventSink()
        self.attempts = LoginAttempts(self.clock, self.events, self.clock.pause)
        self.began = self.clock.now()
        self.looked_at: list[float] = []
        self.together = self.most_together = 0

    async def attempt(self, attempt: Attempt = ALICE, *, right: bool = False) -> None:
        async with self.attempts.turn(attempt):
            self.looked_at.append(self.clock.now() - self.began)
            self.together += 1
            self.most_together = max(self.most_together, self.together)
            await asyncio.sleep(0)
            self.together -= 1
            (self.attempts.right if right else self.attempts.wrong)(attempt)

    def one(self, attempt: Attempt = ALICE, *, right: bool = False) -> float:
        """How long it waited."""
        before = self.clock.now()
        asyncio.run(self.attempt(attempt, right=right))
        return self.clock.now() - before

    def at_once(self, *attempts: Coroutine[Any, Any, None]) -> list[TooManyAttempts]:
        """Those that are refused."""

        async def all_of_them() -> list[Any]:
            return await asyncio.gather(*attempts, return_exceptions=True)

        results = asyncio.run(all_of_them())
        assert all(result is None or isinstance(result, TooManyAttempts) for result in results), results
        return [result for result in results if result]


@pytest.fixture
def door() -> Door:
    return Door()


def test_each_wrong_one_costs_the_next_more(door: Door) -> None:
    assert [door.one() for _ in range(9)] == [0, 0, 0, 1, 2, 4, 8, 8, 8]


def test_who_waits_long_enough_by_himself_does_not_wait_again(door: Door) -> None:
    for _ in range(4):
        door.one()
    door.clock.advance(1.5)
    assert door.one() == 0.5


def test_wrong_ones_are_forgotten_after_a_time(door: Door) -> None:
    for _ in range(5):
        door.one()
    door.clock.advance(300)
    assert [door.one() for _ in range(4)] == [0, 0, 0, 1]


def test_a_clock_that_is_set_back_locks_nobody_out(door: Door) -> None:
    for _ in range(5):
        door.one()
    door.clock.advance(-3600)
    assert door.one() == 0


def test_a_right_one_ends_the_waiting(door: Door) -> None:
    for _ in range(4):
        door.one()
    assert door.one(right=True) == 2
    assert [door.one() for _ in range(4)] == [0, 0, 0, 1]


def test_a_right_one_does_not_speak_for_the_others_at_its_address(door: Door) -> None:
    for number in range(30):
        door.one(Attempt(HERE, f"user{number}", exists=False))
    assert door.one(right=True) == 0.5
    assert door.one(Attempt(HERE, "bob", exists=True)) == 0
    assert door.one(Attempt(HERE, "carol", exists=True)) == 1


def test_another_address_or_account_does_not_wait(door: Door) -> None:
    for _ in range(6):
        door.one()
    assert door.one(Attempt(ELSEWHERE, "alice", exists=True)) == 0
    assert door.one(Attempt(HERE, "bob", exists=True)) == 0


def test_many_accounts_from_one_address_wait_in_the_end(door: Door) -> None:
    waits = [door.one(Attempt(HERE, f"user{number}", exists=False)) for number in range(36)]
    assert waits == [0] * 30 + [0.5, 1, 2, 4, 4, 4]


def test_who_comes_many_times_at_once_waits_as_if_one_after_another(door: Door) -> None:
    refused = door.at_once(*(door.attempt() for _ in range(20)))
    # 0, 0, 0, then after 1, 2 and 4 seconds; the next would come after 15.
    assert door.looked_at == [0, 0, 0, 1, 3, 7]
    assert len(refused) == 14
    assert {one.retry_after for one in refused} == {15}


def test_those_who_come_at_once_are_not_refused_for_what_is_right(door: Door) -> None:
    office = [Attempt(HERE, f"user{number}", exists=True) for number in range(100)]
    assert door.at_once(*(door.attempt(one, right=True) for one in office)) == []
    assert door.looked_at == [0] * 100
    assert door.most_together == 30


def test_made_up_accounts_at_once_get_no_more_than_one_after_another(door: Door) -> None:
    crowd = [Attempt(HERE, f"user{number}", exists=False) for number in range(200)]
    refused = door.at_once(*(door.attempt(one) for one in crowd))
    assert len(door.looked_at) == 200 - len(refused)
    assert [round(at, 1) for at in door.looked_at] == [0] * 30 + [0.5, 1.5, 3.5, 7.5]
    assert door.most_together <= 30


def test_a_wait_that_is_too_long_is_a_refusal_at_once(door: Door) -> None:
    for _ in range(6):
        door.one()

    async def two() -> None:
        first = asyncio.create_task(door.attempt())
        await asyncio.sleep(0)
        with pytest.raises(TooManyAttempts, match="try again in 16 seconds") as refused:
            await door.attempt()
        assert refused.value.retry_after == 16
        await first

    before = door.clock.now()
    asyncio.run(two())
    assert door.clock.now() - before == 8


def test_a_refusal_makes_nobody_wait_longer(door: Door) -> None:
    for _ in range(6):
        door.one()
    assert len(door.at_once(*(door.attempt() for _ in range(50)))) == 49
    assert door.one() == 8


def test_who_leaves_while_he_waits_is_in_nobodys_way(door: Door) -> None:
    async def leave_and_come_back() -> None:
        for _ in range(4):
            await door.attempt()
        leaving = [asyncio.create_task(door.attempt()) for _ in range(2)]
        await asyncio.sleep(0)
        for task in leaving:
            task.cancel()
        await asyncio.gather(*leaving, return_exceptions=True)
        door.clock.advance(2)
        before = door.clock.now()
        await door.attempt()
        assert door.clock.now() == before

    asyncio.run(leave_and_come_back())


def test_trust_ends_with_many_wrong_or_refused_ones_at_the_same_address(door: Door) -> None:
    assert door.attempts.trusts(ALICE)
    for _ in range(6):
        door.one()
    assert door.attempts.trusts(ALICE)
    door.at_once(*(door.attempt() for _ in range(20)))
    assert not door.attempts.trusts(ALICE)
    assert door.attempts.trusts(Attempt(ELSEWHERE, "alice", exists=True))
    door.one(right=True)
    assert door.attempts.trusts(ALICE)


def test_a_flood_at_an_address_hides_no_guesses_at_an_account(door: Door) -> None:
    for number in range(40):
        door.one(Attempt(HERE, f"user{number}", exists=False))

    async def flood() -> None:
        crowd = [asyncio.create_task(door.attempt(Attempt(HERE, f"more{number}", exists=False))) for number in range(9)]
        await asyncio.sleep(0)
        for _ in range(20):
            with pytest.raises(TooManyAttempts):
                await door.attempt()
        await asyncio.gather(*crowd, return_exceptions=True)

    asyncio.run(flood())
    assert not door.attempts.trusts(ALICE)


def test_a_flood_of_made_up_names_pushes_nobody_out(door: Door) -> None:
    for number in range(40):
        door.one(Attempt(HERE, f"user{number}", exists=False))
    crowd = [Attempt(HERE, f"more{number}", exists=False) for number in range(200)]
    refused = door.at_once(*(door.attempt(one) for one in crowd))
    assert len(refused) > 190
    assert len(door.attempts._of_account._entries) == 40 + len(crowd) - len(refused)


def test_what_waits_or_is_refused_is_told_without_made_up_names(door: Door) -> None:
    for attempt in (ALICE, Attempt(HERE, "hunter2", exists=False)):
        for _ in range(4):
            door.one(attempt)
    assert door.events.events == [LoginDelayed("alice", HERE, 1), LoginDelayed("", HERE, 1)]
    door.events.events.clear()
    door.at_once(*(door.attempt() for _ in range(4)))
    rejected = [event for event in door.events.events if isinstance(event, LoginRejected)]
    assert rejected == [LoginRejected("alice", HERE, 13)] * 2


def test_only_so_many_are_remembered(door: Door) -> None:
    async def crowd() -> None:
        for number in range(10_000):
            await door.attempt(Attempt(f"address {number}", "alice", exists=True))

    asyncio.run(crowd())
    assert len(door.attempts._of_account._entries) == len(door.attempts._of_address._entries) == 8192


def test_made_up_names_are_counted_and_not_kept(door: Door) -> None:
    """A form holds 64 KiB, and whoever has many addresses may fill every lane there is."""
    tracemalloc.start()
    try:
        for number in range(200):
            door.one(Attempt(f"192.0.2.{number}", f"{number:060000}", exists=False))
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 6_000_000
    waits = [door.one(Attempt("192.0.2.1", f"{1:060000}", exists=False)) for _ in range(3)]
    assert waits == [0, 0, 1]
