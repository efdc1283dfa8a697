"""RunningHash: several threads add what they have written, and one of them hashes it."""

import os
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from adapters.storage import running_hash
from adapters.storage.running_hash import RunningHash
from domain.digest import Digest
from tests.adapters.storage.conftest import HeldHash

KIB = 1 << 10
CONTENT = os.urandom(256 * KIB)
NEVER = float("inf")


@pytest.fixture
def descriptor() -> Iterator[int]:
    with tempfile.TemporaryFile(buffering=0) as file:
        file.write(CONTENT)
        yield file.fileno()


@pytest.fixture
def reads_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running_hash, "portions", lambda *_: pytest.fail("bytes in memory were read again"))


def new_hash(descriptor: int) -> RunningHash:
    return RunningHash(descriptor, Digest.of(CONTENT))


def add(hashed: RunningHash, start: int, stop: int) -> bool:
    return hashed.add(start, [CONTENT[start:stop]], stop)


def run_while_one_waits(hashed: RunningHash, pool: ThreadPoolExecutor, held_hash: HeldHash) -> Future[None]:
    """A run that hashes a first batch, while a second one waits for it."""
    add(hashed, 0, KIB)
    running = pool.submit(hashed.run, NEVER)
    assert held_hash.has_begun.wait(30)
    add(hashed, KIB, 2 * KIB)
    return running


@pytest.mark.usefixtures("reads_nothing")
def test_the_thread_that_hashes_also_hashes_what_another_one_adds(descriptor: int, held_hash: HeldHash) -> None:
    hashed = new_hash(descriptor)
    assert add(hashed, 0, 64 * KIB)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(hashed.run, NEVER)
        assert held_hash.has_begun.wait(30)
        assert not add(hashed, 64 * KIB, len(CONTENT)), "another thread hashes already"
        held_hash.go_on.set()
        running.result(30)
    assert (hashed.size, hashed.is_right) == (len(CONTENT), True)


@pytest.mark.usefixtures("reads_nothing")
def test_only_one_batch_waits_for_the_thread_that_hashes(descriptor: int, held_hash: HeldHash) -> None:
    hashed = new_hash(descriptor)
    with ThreadPoolExecutor(2) as pool:
        running = run_while_one_waits(hashed, pool, held_hash)
        third = pool.submit(add, hashed, 2 * KIB, len(CONTENT))
        time.sleep(0.05)
        assert not third.done()
        held_hash.go_on.set()
        if third.result(30):  # the run had ended before it was added
            hashed.run(NEVER)
        running.result(30)
    assert (hashed.size, hashed.is_right) == (len(CONTENT), True)


def test_nobody_waits_for_a_run_that_has_ended(descriptor: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bytes of a batch were read from the file before the thread that had written them added them."""
    hashed, portions = new_hash(descriptor), running_hash.portions
    is_reading, go_on = threading.Event(), threading.Event()

    def held(file: int, start: int, stop: int) -> Iterator[bytes]:
        is_reading.set()
        assert go_on.wait(30)
        return portions(file, start, stop)

    monkeypatch.setattr(running_hash, "portions", held)
    hashed.add(0, [CONTENT[:KIB]], len(CONTENT))
    with ThreadPoolExecutor(2) as pool:
        running = pool.submit(hashed.run, NEVER)
        assert is_reading.wait(30)
        assert not add(hashed, KIB, 2 * KIB)
        third = pool.submit(add, hashed, 2 * KIB, len(CONTENT))
        time.sleep(0.05)
        assert not third.done()
        go_on.set()
        running.result(30)
        assert third.result(30), "no thread hashes any more"
    assert (hashed.size, hashed.is_right) == (len(CONTENT), True)


def test_the_end_of_the_lease_ends_the_run_and_the_wait(descriptor: int, held_hash: HeldHash) -> None:
    hashed = new_hash(descriptor)
    with ThreadPoolExecutor(2) as pool:
        running = run_while_one_waits(hashed, pool, held_hash)
        third = pool.submit(add, hashed, 2 * KIB, 3 * KIB)
        hashed.stop()
        third.result(30)
        held_hash.go_on.set()
        running.result(30)
    assert hashed.size == KIB


@pytest.mark.usefixtures("reads_nothing")
def test_no_batch_is_left_when_a_run_ends_while_another_thread_adds(descriptor: int) -> None:
    """Each batch is added at about the moment at which the run has hashed the one before it."""
    for _ in range(200):
        hashed = new_hash(descriptor)
        with ThreadPoolExecutor(4) as pool:
            for start in range(0, len(CONTENT), 8 * KIB):
                if add(hashed, start, start + 8 * KIB):
                    pool.submit(hashed.run, NEVER)
        assert (hashed.size, hashed.is_right) == (len(CONTENT), True)


def test_the_run_after_a_failed_one_goes_on_where_that_failed(descriptor: int, monkeypatch: pytest.MonkeyPatch) -> None:
    hashed, portions = new_hash(descriptor), running_hash.portions
    monkeypatch.setattr(running_hash, "portions", lambda *_: iter(()))
    with pytest.raises(OSError, match="the file is shorter"):
        hashed.catch_up(len(CONTENT), NEVER)
    monkeypatch.setattr(running_hash, "portions", portions)
    hashed.catch_up(len(CONTENT), NEVER)
    assert hashed.is_right
