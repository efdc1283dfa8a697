"""Jobs of operators: what they do to the cache, what they report, and how they end."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from dependency_injector import providers

from application.access.access_request import Caller
from application.page import run_jobs
from application.page.viewer import Viewer
from application.ports.content import StorageFailed
from application.ports.jobs import Job, JobKind, JobState
from domain.digest import Digest
from domain.errors import JobRunning
from domain.events import ContentDamaged, OperatorActed
from tests.application.support.service import IMAGE_CONTENT, LAYER, LAYER_DIGEST, REALM, Service, stocked
from tests.entrypoints.service import until
from tests.fakes.jobs import Board, MemoryJobs
from tests.fakes.storage import MemoryInode

OLGA, OTTO = (Viewer(Caller(None, REALM, "192.0.2.7"), name, is_operator=True) for name in ("olga", "otto"))


@pytest.fixture(autouse=True)
def _quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_jobs, "_LOOK_SECONDS", 0.01)


class Replica:
    """Two workers with one cache, of which `one` gets the form."""

    def __init__(self) -> None:
        board, upstream = Board(), stocked("none")
        self.one = Service(upstream)
        self.other = Service(upstream, self.one.clock, self.one.parts.storage())
        for worker in (self.one, self.other):
            worker.parts.jobs.override(providers.Object(MemoryJobs(board)))
        self.gate = asyncio.Event()
        self.hashing = asyncio.Event()

    def run(self, act: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        async def begun() -> Any:
            await self.one.manifest()
            await self.one.blob()
            await self.one.parts.background().close()
            return await act()

        return self.one.run(begun())

    def damage(self) -> None:
        self.one.parts.store().disk.inodes[LAYER_DIGEST] = MemoryInode(b"!" + LAYER[1:])  # type: ignore[attr-defined]

    def hold(self, digest: Digest | None = None) -> None:
        """Let the verification stop before it hashes this content, or the first, until the gate opens."""
        eviction = self.one.parts.eviction()
        hash_it = eviction.is_right

        async def is_right(wanted: Digest) -> bool | None:
            if digest in {None, wanted}:
                self.hashing.set()
                await self.gate.wait()
            return await hash_it(wanted)

        eviction.is_right = is_right  # type: ignore[method-assign]

    @property
    def last(self) -> Job | None:
        """As the other worker shows it."""
        return self.other.parts.run_jobs().last()

    async def end(self) -> Job:
        job = self.last
        while job is None or job.is_running:
            await asyncio.sleep(0.01)
            job = self.last
        return job

    def audits(self, worker: Service | None = None) -> list[tuple[str, str, str, str]]:
        events = (worker or self.one).events
        return [(one.operator, one.action, one.subject, one.result) for one in events if isinstance(one, OperatorActed)]


def test_a_verification_removes_what_is_damaged_and_says_so() -> None:
    replica = Replica()

    async def act() -> Job:
        replica.damage()
        replica.one.clock.advance(100)
        replica.one.parts.run_jobs().verify(OLGA)
        return await replica.end()

    ended = replica.run(act)
    now = replica.one.clock.now()
    size = len(LAYER) + len(IMAGE_CONTENT)
    assert ended == Job(1, JobKind.VERIFY, "cache", "olga", now, JobState.DONE, now, size, size, 1, 1)
    assert LAYER_DIGEST not in replica.one.parts.store().content
    assert [one.digest for one in replica.one.events if isinstance(one, ContentDamaged)] == [str(LAYER_DIGEST)]
    assert replica.audits() == [
        ("olga", "verify", "cache", "started"),
        ("olga", "verify", "cache", "done; 1 intact, 1 damaged and removed"),
    ]


def test_a_second_job_is_refused_by_every_worker_while_one_runs() -> None:
    replica = Replica()

    async def act() -> None:
        replica.hold()
        replica.one.parts.run_jobs().verify(OLGA)
        for worker in (replica.one, replica.other):
            with pytest.raises(JobRunning, match="verify cache is running, started by olga"):
                worker.parts.run_jobs().verify(OTTO)
        replica.gate.set()
        await replica.end()
        replica.one.parts.run_jobs().verify(OTTO)
        assert (await replica.end()).number == 2

    replica.run(act)
    assert [one[0] for one in replica.audits()] == ["olga", "olga", "otto", "otto"]


def test_progress_is_seen_by_another_worker() -> None:
    replica = Replica()

    async def act() -> Job | None:
        replica.hold(LAYER_DIGEST)
        replica.one.parts.run_jobs().verify(OLGA)
        await replica.hashing.wait()
        await until(lambda: bool(replica.last and replica.last.total))
        return replica.last

    seen = replica.run(act)
    assert (seen.state, seen.intact, seen.damaged) == (JobState.RUNNING, 1, 0)
    assert 0 < seen.done < seen.total
    assert seen.total - seen.done == len(LAYER)


def test_a_cancelled_verification_tells_the_workers_what_it_has_removed() -> None:
    replica = Replica()

    async def act() -> Job:
        inodes: Any = replica.one.parts.store().disk.inodes  # type: ignore[attr-defined]
        first = (await replica.one.parts.storage().usage.all())[0].digest
        inodes[first] = MemoryInode(b"!")
        others = [digest for digest in inodes if digest != first]
        replica.hold(others[0])
        epoch = await replica.one.parts.storage().index.epoch()
        replica.one.parts.run_jobs().verify(OLGA)
        await replica.hashing.wait()
        assert await replica.one.parts.storage().index.epoch() == epoch
        replica.other.parts.run_jobs().cancel(OTTO, 1)
        ended = await replica.end()
        assert await replica.one.parts.storage().index.epoch() > epoch
        assert set(inodes) == set(others)
        return ended

    ended = replica.run(act)
    assert (ended.state, ended.intact, ended.damaged) == (JobState.CANCELLED, 0, 1)
    assert replica.audits(replica.other) == [("otto", "cancel", "verify cache", "requested")]
    assert replica.audits()[1] == ("olga", "verify", "cache", "cancelled; 0 intact, 1 damaged and removed")


def test_to_cancel_a_job_that_has_ended_does_nothing() -> None:
    replica = Replica()

    async def act() -> None:
        replica.one.parts.run_jobs().cancel(OLGA, 1)
        replica.one.parts.run_jobs().verify(OLGA)
        assert (await replica.end()).state is JobState.DONE
        replica.hold()
        replica.one.parts.run_jobs().verify(OLGA)
        replica.other.parts.run_jobs().cancel(OTTO, 1)
        replica.gate.set()
        assert (await replica.end()).state is JobState.DONE

    replica.run(act)
    assert replica.audits(replica.other) == []


def test_a_failed_job_tells_why_and_the_next_one_can_begin() -> None:
    replica = Replica()

    async def act() -> tuple[Job, Job]:
        eviction = replica.one.parts.eviction()
        ended = []
        for error in (StorageFailed("a file cannot be read: Input/output error"), KeyError("x")):

            async def is_right(_: Digest, error: Exception = error) -> bool | None:
                raise error

            eviction.is_right = is_right  # type: ignore[method-assign]
            replica.one.parts.run_jobs().verify(OLGA)
            ended.append(await replica.end())
        return ended[0], ended[1]

    first, second = replica.run(act)
    assert (first.state, first.problem) == (JobState.FAILED, "a file cannot be read: Input/output error")
    assert (second.state, second.problem) == (JobState.FAILED, "KeyError: 'x'")
    assert replica.audits()[1][3].startswith("failed: a file cannot be read: Input/output error; 0 intact")


def test_a_job_ends_with_the_service() -> None:
    replica = Replica()

    async def act() -> None:
        replica.hold()
        replica.one.parts.run_jobs().verify(OLGA)
        await replica.hashing.wait()

    replica.run(act)  # closes the container
    assert replica.last is not None
    assert replica.last.state is JobState.CANCELLED
    assert replica.audits()[1] == ("olga", "verify", "cache", "cancelled; 0 intact, 0 damaged and removed")
