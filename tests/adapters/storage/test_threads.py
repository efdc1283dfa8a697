import asyncio
import threading
import time

import pytest

from adapters.storage.threads import Threads


def test_a_step_runs_in_another_thread() -> None:
    threads = Threads(1, "steps")
    assert asyncio.run(threads.run(threading.get_ident)) != threading.get_ident()
    threads.close()


def test_no_thread_starts_before_the_first_step() -> None:
    before = threading.active_count()
    threads = Threads(8, "steps")
    assert threading.active_count() == before
    threads.close()


def test_the_error_of_a_step_is_raised() -> None:
    threads = Threads(1, "steps")
    with pytest.raises(ZeroDivisionError):
        asyncio.run(threads.run(lambda: 1 // 0))
    threads.close()


@pytest.mark.parametrize("times", [1, 3])
async def test_a_cancelled_caller_waits_for_the_end_of_the_step(times: int) -> None:
    threads, ended, disposed = Threads(1, "steps"), list[str](), list[str]()

    def step() -> str:
        time.sleep(0.2)
        ended.append("step")
        return "result"

    task = asyncio.create_task(threads.run(step, disposed.append))
    for _ in range(times):
        await asyncio.sleep(0.02)
        task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended == ["step"]
    assert disposed == ["result"]
    threads.close()


async def test_a_cancelled_step_that_fails_disposes_of_nothing() -> None:
    threads, disposed = Threads(1, "steps"), list[object]()

    def step() -> None:
        time.sleep(0.1)
        raise OSError

    task = asyncio.create_task(threads.run(step, disposed.append))
    await asyncio.sleep(0.02)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    threads.close()
    assert disposed == []


def test_a_thread_starts_a_step_in_another_one_and_runs_it_itself_after_the_end() -> None:
    threads = Threads(1, "steps")
    assert threads.start(threading.get_ident).result(30) != threading.get_ident()
    threads.close()
    assert threads.start(threading.get_ident).result(30) == threading.get_ident()
