"""The contract of Jobs."""

from dataclasses import replace

import pytest

from adapters.telemetry.jobs import SharedJobs
from application.ports.jobs import Job, JobKind, Jobs, JobState
from tests.fakes.jobs import MemoryJobs

EACH = pytest.mark.parametrize("make", [SharedJobs, MemoryJobs])
NOW = 1_800_000_000.25


def begun(jobs: Jobs, subject: str = "cache", operator: str = "olga") -> Job:
    job = jobs.begin(JobKind.VERIFY, subject, operator, NOW)
    assert job is not None
    return job


@EACH
def test_there_is_no_job_at_the_start(make: type[Jobs]) -> None:
    jobs = make()
    assert jobs.last() is None
    assert not jobs.cancel(0)
    assert not jobs.cancel(1)


@EACH
def test_one_job_runs_at_a_time(make: type[Jobs]) -> None:
    jobs = make()
    job = begun(jobs)
    assert job == jobs.last() == Job(1, JobKind.VERIFY, "cache", "olga", NOW)
    assert jobs.begin(JobKind.WARM, "docker.io/library/nginx:1", "otto", NOW) is None
    assert jobs.last() == job


@EACH
@pytest.mark.parametrize("state", [JobState.DONE, JobState.FAILED, JobState.CANCELLED])
def test_a_job_that_has_ended_stays_until_the_next_one(make: type[Jobs], state: JobState) -> None:
    jobs = make()
    ended = replace(begun(jobs), state=state, ended_at=NOW + 5, problem='no space: "ä"\n')
    jobs.report(ended)
    assert jobs.last() == ended
    job = jobs.begin(JobKind.WARM, "quay.io/org/app:1", "otto", NOW + 9)
    assert job == jobs.last() == Job(2, JobKind.WARM, "quay.io/org/app:1", "otto", NOW + 9)


@EACH
def test_a_report_replaces_the_one_before_it(make: type[Jobs]) -> None:
    jobs = make()
    job = begun(jobs)
    for done in (1, 2**40):
        jobs.report(replace(job, done=done, total=2**41, intact=done, damaged=3))
    assert jobs.last() == replace(job, done=2**40, total=2**41, intact=2**40, damaged=3)


@EACH
def test_only_the_running_job_is_cancelled(make: type[Jobs]) -> None:
    jobs = make()
    first = begun(jobs)
    assert not jobs.cancel(first.number + 1)
    assert not jobs.is_cancelled(first.number)
    assert jobs.cancel(first.number)
    assert jobs.is_cancelled(first.number)
    jobs.report(replace(first, state=JobState.CANCELLED))
    second = begun(jobs)
    assert not jobs.cancel(first.number)
    assert not jobs.is_cancelled(second.number)
    assert jobs.last() == second


@EACH
def test_texts_that_are_too_long_are_cut(make: type[Jobs]) -> None:
    jobs = make()
    job = begun(jobs, "\x01" * 5000, "中" * 5000)
    jobs.report(replace(job, state=JobState.FAILED, problem="ä" * 5000))
    assert jobs.last() == replace(
        job, subject="\x01" * 1024, operator="中" * 1024, problem="ä" * 1024, state=JobState.FAILED
    )
