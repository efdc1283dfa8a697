"""The newest pulls, in memory that several processes share."""

import asyncio
import os
from dataclasses import replace

import pytest

from adapters.telemetry import pull_log
from adapters.telemetry.pull_log import SharedPulls, WorkerPullLog
from application.ports.pull_log import ManifestPull
from domain.names import RepositoryName
from domain.records import ANONYMOUS_CLASS, PERSONAL_CLASS
from domain.upstreams import Source
from tests.contracts.storage import HUB, QUAY
from tests.fakes.clock import StoppedClock

PULL = ManifestPull(Source(HUB, RepositoryName("library/nginx")), "latest", ANONYMOUS_CLASS, is_hit=True)


def logs(workers: int = 2, clock: StoppedClock | None = None) -> list[WorkerPullLog]:
    shared = SharedPulls(workers)
    clock = clock or StoppedClock()
    return [WorkerPullLog(shared.ring(number), [HUB, QUAY], clock) for number in range(workers)]


def of(number: int) -> ManifestPull:
    return replace(PULL, reference=f"v{number}")


async def test_a_pull_is_read_as_it_was_added() -> None:
    clock = StoppedClock()
    (log,) = logs(1, clock)
    pull = ManifestPull(Source(QUAY, RepositoryName("a/b")), f"sha256:{'0' * 64}", PERSONAL_CLASS, is_hit=False)
    log.add(pull, "ännchen", "2001:db8::1", 0.125, 2**40)
    (found,) = log.newest()
    assert found == (clock.now(), pull, "ännchen", "2001:db8::1", 0.125, 2**40)


async def test_another_worker_reads_a_pull_after_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pull_log, "_WRITE_SECONDS", 0.05)
    one, other = logs()
    one.add(PULL, None, "10.0.0.1", 0.1, 1)
    assert other.newest() == []
    await asyncio.sleep(0.2)
    assert [found.pull for found in other.newest()] == [PULL]


async def test_pulls_of_all_workers_are_sorted_by_time() -> None:
    clock = StoppedClock()
    one, other = logs(2, clock)
    for number in range(6):
        (one, other)[number % 2].add(of(number), None, "10.0.0.1", 0.1, 1)
        clock.advance(1)
    other.newest()
    assert [found.pull.reference for found in one.newest()] == ["v5", "v4", "v3", "v2", "v1", "v0"]


async def test_the_oldest_pulls_are_forgotten() -> None:
    clock = StoppedClock()
    (log,) = logs(1, clock)
    for number in range(700):
        log.add(of(number), None, "10.0.0.1", 0.1, 1)
        clock.advance(1)
        if number % 50 == 0:
            log.newest()
    assert [found.pull.reference for found in log.newest()] == [f"v{number}" for number in range(699, 443, -1)]


async def test_more_pulls_than_are_kept_cost_no_memory_before_they_are_written() -> None:
    (log,) = logs(1)
    for number in range(5000):
        log.add(of(number), None, "10.0.0.1", 0.1, 1)
    assert len(log._waiting) == 256
    assert {found.pull.reference for found in log.newest()} == {f"v{number}" for number in range(4744, 5000)}


async def test_no_timer_runs_when_nothing_is_pulled(monkeypatch: pytest.MonkeyPatch) -> None:
    timers = []
    loop = asyncio.get_running_loop()
    monkeypatch.setattr(loop, "call_later", lambda seconds, step: timers.append((seconds, step)))
    (log,) = logs(1)
    assert timers == []
    for _ in range(3):
        log.add(PULL, None, "10.0.0.1", 0.1, 1)
    assert len(timers) == 1
    timers.pop()[1]()
    assert timers == []
    log.add(PULL, None, "10.0.0.1", 0.1, 1)
    assert len(timers) == 1


async def test_a_pull_of_a_removed_upstream_is_omitted() -> None:
    shared = SharedPulls(1)
    before = WorkerPullLog(shared.ring(0), [HUB, QUAY], StoppedClock())
    before.add(PULL, None, "10.0.0.1", 0.1, 1)
    before.add(replace(PULL, source=Source(QUAY, RepositoryName("a/b"))), None, "10.0.0.1", 0.1, 1)
    before.newest()
    after = WorkerPullLog(shared.ring(0), [QUAY], StoppedClock())
    assert [str(found.pull.source.repository) for found in after.newest()] == ["a/b"]


async def test_a_name_that_is_too_long_does_no_harm() -> None:
    (log,) = logs(1)
    log.add(PULL, "x" * 2000, "10.0.0.1", 0.1, 1)
    log.add(PULL, None, "10.0.0.1", 0.1, 1)
    assert [found.account for found in log.newest()] == [None]


def test_a_reader_ignores_what_another_process_is_writing() -> None:
    shared = SharedPulls(1)
    child = os.fork()
    if child == 0:
        for number in range(1, 10**9):
            shared.write(0, float(number), str(number).encode() * (number % 40 + 1))
    try:
        read = [pair for _ in range(300) for pair in shared.newest(300)]
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)
    assert read
    assert [one for one in read if one[1] != str(int(one[0])).encode() * (int(one[0]) % 40 + 1)] == []


def test_a_worker_continues_the_ring_of_its_predecessor() -> None:
    shared = SharedPulls(1)
    child = os.fork()
    if child == 0:
        shared.write(0, 1.0, b"before")
        os._exit(0)
    os.waitpid(child, 0)
    shared.write(0, 2.0, b"after")
    assert shared.newest(10) == [(2.0, b"after"), (1.0, b"before")]
