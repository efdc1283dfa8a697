"""The contract of Clock."""

import time

import pytest

from adapters.clock import SystemClock
from domain.ports import Clock
from tests.fakes.clock import StoppedClock

START_OF_2026 = 1_767_225_600
START_OF_2100 = 4_102_444_800


@pytest.fixture(params=[SystemClock, StoppedClock])
def clock(request: pytest.FixtureRequest) -> Clock:
    made: Clock = request.param()
    return made


def test_a_clock_returns_seconds_since_1970(clock: Clock) -> None:
    assert isinstance(clock.now(), float)
    assert START_OF_2026 < clock.now() < START_OF_2100


def test_a_clock_does_not_run_backwards(clock: Clock) -> None:
    assert clock.now() <= clock.now()


def test_midnight_is_the_beginning_of_today(clock: Clock) -> None:
    assert clock.now() - 25 * 3600 <= clock.midnight() <= clock.now()


@pytest.mark.parametrize("zone", ["UTC", "Asia/Kathmandu", "America/New_York"])
def test_midnight_is_that_of_the_time_zone(monkeypatch: pytest.MonkeyPatch, zone: str) -> None:
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        assert time.localtime(SystemClock().midnight())[3:6] == (0, 0, 0)
    finally:
        monkeypatch.undo()
        time.tzset()


def test_the_system_clock_returns_the_time_of_the_machine() -> None:
    assert time.time() - 5 < SystemClock().now() < time.time() + 5


def test_the_stopped_clock_moves_only_when_advanced() -> None:
    clock = StoppedClock(100.5)
    clock.advance(1)
    assert clock.now() == clock.now() == 101.5
