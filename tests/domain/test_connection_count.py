"""How many connections a download uses on different lines, simulated."""

from collections.abc import Callable
from math import inf

import pytest

from domain.connection_count import ConnectionCount

MIB = 1024 * 1024
TICK = 0.02


def simulate(
    rate: Callable[[int], float], size: int, most: int = 4, first_byte: float = 0.05
) -> tuple[float, list[int]]:
    """The seconds of a download of `size` bytes, and the number of connections at each tick. `rate`: bytes per second
    of all connections together; `first_byte`: the seconds that a new connection needs.
    """
    count = ConnectionCount(most)
    now, received, used = 100.0, 0.0, []
    opened = [now]
    while received < size:
        now += TICK
        while len(opened) < count.allowed:
            opened.append(now)
        del opened[count.allowed :]
        receiving = sum(now - since >= first_byte for since in opened)
        received += rate(receiving) * TICK
        count.observe(now, int(received), receiving, int(size - received), 0, inf)
        used.append(count.allowed)
    return now - 100.0, used


def test_a_server_that_limits_each_connection_gets_all_of_them() -> None:
    seconds, used = simulate(lambda connections: 5_000_000 * connections, 200 * MIB)
    assert max(used) == 4
    assert used[-1] == 4
    assert 200 * MIB / seconds > 3.7 * 5_000_000


def test_the_operator_limits_the_number() -> None:
    assert max(simulate(lambda connections: 5_000_000 * connections, 200 * MIB, most=2)[1]) == 2
    assert max(simulate(lambda connections: 5_000_000 * connections, 200 * MIB, most=1)[1]) == 1
    assert max(simulate(lambda connections: 1_000_000 * connections, 200 * MIB, most=16)[1]) == 16


def test_a_line_that_one_connection_fills_keeps_one() -> None:
    used = simulate(lambda connections: 100_000_000 if connections else 0, 1024 * MIB)[1]
    assert max(used) == 2
    assert used[-1] == 1
    assert sum(number > 1 for number in used) * TICK < 1.0


def test_a_line_that_is_slower_for_moments_keeps_one() -> None:
    """The moments are those of a loaded machine: one connection gets all of the line, or half of it."""
    ticks = iter(range(10**6))
    used = simulate(lambda connections: 50_000_000 * (1 + (next(ticks) // 13 % 3 < 2)), 2048 * MIB, first_byte=0.0)[1]
    assert sum(number > 2 for number in used) == 0
    assert sorted(used)[len(used) * 9 // 10] == 1


def test_a_process_that_receives_more_slowly_than_the_upstream_sends_keeps_one() -> None:
    """More connections would only give it more work."""
    count = ConnectionCount(4)
    for tick in range(500):
        count.observe(tick * TICK, tick * 1_000_000, 1, 2000 * MIB, 2 * MIB, inf)
    assert count.allowed == 1
    for tick in range(500, 600):
        count.observe(tick * TICK, tick * 1_000_000, 1, 2000 * MIB, MIB // 8, inf)
    assert count.allowed == 2


def test_a_download_that_may_outlast_the_token_keeps_one() -> None:
    count = ConnectionCount(4)
    for tick in range(200):
        count.observe(tick * TICK, tick * 100_000, 1, 200 * MIB, 0, 30)
    assert count.allowed == 1


def test_a_line_that_three_connections_fill_gets_three() -> None:
    used = simulate(lambda connections: min(12_000_000, 4_000_000 * connections), 200 * MIB)[1]
    assert max(used) == 4
    assert sorted(used)[len(used) // 2] == 3


def test_a_short_download_keeps_one() -> None:
    assert max(simulate(lambda connections: 5_000_000 * connections, 8 * MIB)[1]) == 1
    assert max(simulate(lambda connections: 400_000_000 * connections, 512 * MIB)[1]) == 1


def test_a_line_that_becomes_slow_gets_more_later() -> None:
    """One connection was fast enough at first."""
    count = ConnectionCount(4)
    now, received = 0.0, 0
    for tick in range(400):
        now += TICK
        received += int((200_000_000 if tick < 100 else 2_000_000) * TICK)
        count.observe(now, received, 1, 300 * MIB, 0, inf)
        if tick < 100:
            assert count.allowed == 1
    assert count.allowed == 2


def test_connections_that_never_receive_a_byte_are_not_judged() -> None:
    count = ConnectionCount(4)
    for tick in range(500):
        count.observe(tick * TICK, tick * 100_000, 1, 200 * MIB, 0, inf)
    assert count.allowed == 2


@pytest.mark.parametrize("reduce", [ConnectionCount.halve, ConnectionCount.one_less])
def test_after_trouble_another_connection_waits_for_the_pause(reduce: Callable[[ConnectionCount, float], None]) -> None:
    count = ConnectionCount(4)
    now = 0.0
    while count.allowed < 4:
        now += TICK
        count.observe(now, int(now * 5_000_000 * count.allowed), count.allowed, 400 * MIB, 0, inf)
    reduce(count, now)
    assert count.allowed == (2 if reduce is ConnectionCount.halve else 3)
    until, reduced = now + 9.9, count.allowed
    while now < until:
        now += TICK
        count.observe(now, int(now * 5_000_000 * reduced), count.allowed, 400 * MIB, 0, inf)
        assert count.allowed == reduced
    later = []
    for _ in range(100):
        now += TICK
        count.observe(now, int(now * 5_000_000 * reduced), count.allowed, 400 * MIB, 0, inf)
        later.append(count.allowed)
    assert max(later) == reduced + 1


def test_it_never_falls_below_one() -> None:
    count = ConnectionCount(4)
    count.halve(0.0)
    count.one_less(0.0)
    assert count.allowed == 1


def test_an_upstream_without_ranges_keeps_one_for_good() -> None:
    count = ConnectionCount(4)
    count.stay_at_one()
    for tick in range(1000):
        count.observe(tick * TICK, tick * 1000, 1, 400 * MIB, 0, inf)
    assert count.allowed == 1
