"""The job of an operator, in memory that several processes share."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

from adapters.telemetry.jobs import SharedJobs
from application.ports.jobs import Job, JobKind, JobState

NOW = 1_800_000_000.0


def begun(jobs: SharedJobs) -> Job:
    job = jobs.begin(JobKind.VERIFY, "cache", "olga", NOW)
    assert job is not None
    return job


@contextmanager
def another_worker(work: Callable[[], object]) -> Iterator[int]:
    """A process that was forked from this one, does the work, and waits until it is killed. Its process id."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            work()
            os.write(writing, b"1")
            time.sleep(60)
        finally:
            os._exit(1)
    os.close(writing)
    try:
        assert os.read(reading, 1) == b"1"
        yield child
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(reading)


def test_a_job_of_another_worker_is_seen_cancelled_and_not_begun_again() -> None:
    jobs = SharedJobs()
    with another_worker(lambda: jobs.report(replace(begun(jobs), done=5, total=9))):
        job = Job(1, JobKind.VERIFY, "cache", "olga", NOW, done=5, total=9)
        assert jobs.last() == job
        assert jobs.begin(JobKind.VERIFY, "cache", "otto", NOW) is None
        assert jobs.cancel(1)
        with another_worker(lambda: jobs.is_cancelled(1) or os._exit(1)):
            assert jobs.last() == job


def test_the_job_of_a_killed_worker_is_lost_and_the_next_one_begins() -> None:
    jobs = SharedJobs()
    with another_worker(lambda: begun(jobs)):
        pass
    lost = jobs.last()
    assert lost == Job(1, JobKind.VERIFY, "cache", "olga", NOW, JobState.LOST)
    assert not jobs.cancel(1)
    assert begun(jobs).number == 2


def test_a_worker_that_was_killed_while_it_wrote_hides_only_its_job() -> None:
    jobs = SharedJobs()

    def die_writing() -> None:
        begun(jobs)
        jobs._memory[40:44] = b"torn"

    with another_worker(die_writing):
        pass
    assert jobs.last() is None
    assert begun(jobs).number == 2
    assert jobs.last() == Job(2, JobKind.VERIFY, "cache", "olga", NOW)


def test_an_ended_job_of_another_worker_can_be_followed_by_one_of_this() -> None:
    jobs = SharedJobs()

    def work() -> None:
        job = begun(jobs)
        jobs.report(replace(job, state=JobState.DONE, ended_at=NOW))

    with another_worker(work):
        assert begun(jobs).number == 2
        with pytest.raises(AssertionError):
            begun(jobs)


def test_a_reader_never_sees_half_of_what_another_process_writes() -> None:
    jobs = SharedJobs()

    def write() -> None:
        job = begun(jobs)
        for number in range(1, 10**9):
            jobs.report(replace(job, done=number, total=number, problem="x" * (number % 900)))

    child = os.fork()
    if child == 0:
        write()
    try:
        while jobs.last() is None:
            pass
        read = [job for _ in range(3000) if (job := jobs.last())]
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert len(read) > 1000
    assert [job for job in read if job.total and (job.total != job.done or len(job.problem) != job.done % 900)] == []
    assert {job.state for job in read} == {JobState.RUNNING}


def test_bytes_that_are_no_text_are_replaced() -> None:
    jobs = SharedJobs()
    job = jobs.begin(JobKind.VERIFY, "cache", "ol\udcffga", NOW)
    assert job is not None
    assert jobs.last() == replace(job, operator="ol?ga")


def test_the_lock_file_is_closed_with_the_object() -> None:
    jobs = SharedJobs()
    descriptor = jobs._lock
    os.fstat(descriptor)
    del jobs
    with pytest.raises(OSError, match="descriptor"):
        os.fstat(descriptor)
