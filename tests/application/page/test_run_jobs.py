"""Jobs of operators: what they do to the cache, what they report, and how they end."""

import asyncio
import json
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from dependency_injector import providers

from application.access.access_request import Caller
from application.page import run_jobs
from application.page.viewer import Viewer
from application.ports.content import StorageFailed
from application.ports.jobs import Job, JobKind, JobState
from application.upkeep.warm import Image
from domain.digest import Digest
from domain.errors import Denied, JobRunning
from domain.events import ContentDamaged, OperatorActed
from domain.manifests import INDEX_MEDIA_TYPE
from domain.names import Reference
from domain.records import ContentKind, ContentLocation, class_of
from domain.upstreams import Source
from tests.application.support.ruled import CLOSED, ruled
from tests.application.support.service import (
    IMAGE_CONTENT,
    LAYER,
    LAYER_DIGEST,
    NAME,
    PRIVATE,
    REALM,
    Service,
    stocked,
)
from tests.entrypoints.service import until
from tests.fakes.jobs import Board, MemoryJobs
from tests.fakes.storage import MemoryInode
from tests.fakes.upstream import FakeUpstream

OLGA, OTTO = (Viewer(Caller(None, REALM, "192.0.2.7"), name, is_operator=True) for name in ("olga", "otto"))


@pytest.fixture(autouse=True)
def _quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_jobs, "_LOOK_SECONDS", 0.01)


class Replica:
    """Two workers with one cache, of which `one` gets the form."""

    def __init__(self, upstream: FakeUpstream | None = None, **settings: object) -> None:
        board, upstream = Board(), upstream or stocked("none")
        self.one = Service(upstream, **settings)
        self.other = Service(upstream, self.one.clock, self.one.parts.storage(), **settings)
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


IMAGE = Image(NAME, Reference.parse("1"))


class Cold(Replica):
    """A replica whose cache is empty, before an upstream with an image of one layer."""

    def __init__(self, upstream: FakeUpstream | None = None, **settings: object) -> None:
        super().__init__(upstream, **settings)
        self.layers = json.dumps({"schemaVersion": 2, "layers": [entry(LAYER)]}).encode()
        for name in (NAME, PRIVATE):
            self.one.upstream.put_manifest(str(name), "1", self.layers)

    def run(self, act: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        return self.one.run(act())

    @property
    def stored(self) -> set[Digest]:
        return set(self.one.parts.store().content)  # type: ignore[attr-defined]


def entry(content: bytes) -> dict[str, object]:
    return {"digest": str(Digest.of(content)), "size": len(content)}


def test_a_warmed_image_is_a_hit_for_a_later_client() -> None:
    replica = Cold()

    async def act() -> Job:
        replica.one.parts.run_jobs().warm(OLGA, IMAGE)
        ended = await replica.end()
        await replica.one.parts.background().close()
        since = len(replica.one.upstream.asked)
        assert await replica.one.blob() == LAYER
        assert replica.one.upstream.asked[since:] == []
        return ended

    ended = replica.run(act)
    now = replica.one.clock.now()
    subject = "upstream.test/public/app:1"
    assert ended == Job(1, JobKind.WARM, subject, "olga", now, JobState.DONE, now, len(LAYER), len(LAYER))
    assert replica.stored == {LAYER_DIGEST, Digest.of(replica.layers)}
    assert replica.audits() == [
        ("olga", "warm", subject, "started"),
        ("olga", "warm", subject, f"done; {len(LAYER)} of {len(LAYER)} bytes cached"),
    ]


def test_access_rules_do_not_stop_the_mirror_itself_but_still_its_clients() -> None:
    replica = Cold()
    ruled(replica.one, CLOSED)

    async def act() -> None:
        replica.one.parts.run_jobs().warm(OLGA, IMAGE)
        assert (await replica.end()).state is JobState.DONE
        with pytest.raises(Denied):
            await replica.one.blob()

    replica.run(act)


def test_content_that_the_mirrors_login_has_got_is_recorded_for_this_login_only() -> None:
    replica = Cold(stocked("bearer"), upstream_username="alice", upstream_password="right")
    parts = replica.one.parts

    async def act() -> None:
        parts.run_jobs().warm(OLGA, Image(PRIVATE, Reference.parse("1")))
        assert (await replica.end()).state is JobState.DONE
        await parts.background().close()
        source = Source(parts.upstream(), PRIVATE)
        link = await parts.storage().index.find_link(ContentLocation(source, ContentKind.BLOB, LAYER_DIGEST))
        assert link is not None
        assert link.caller_classes == {class_of(parts.mirror_callers()[parts.upstream()])}

    replica.run(act)


@pytest.mark.parametrize(
    ("image", "problem"),
    [
        (Image(NAME, Reference.parse("unknown")), "manifest unknown"),
        (
            Image(NAME, Reference.parse("index"), ("linux/s390x",)),
            "does not support linux/s390x; it supports linux/amd",
        ),
    ],
)
def test_a_warming_that_fails_says_why(image: Image, problem: str) -> None:
    replica = Cold()
    manifests = [{**entry(replica.layers), "platform": {"os": "linux", "architecture": "amd64"}}]
    index = json.dumps({"schemaVersion": 2, "manifests": manifests}).encode()
    replica.one.upstream.put_manifest(str(NAME), "index", index, INDEX_MEDIA_TYPE)

    async def act() -> Job:
        replica.one.parts.run_jobs().warm(OLGA, image)
        return await replica.end()

    ended = replica.run(act)
    assert ended.state is JobState.FAILED
    assert problem in ended.problem
    assert replica.audits()[1][3].endswith("; 0 of unknown bytes cached")


def test_a_warming_is_cancelled_by_another_worker() -> None:
    replica = Cold()

    async def act() -> Job:
        answer, asked = asyncio.Event(), asyncio.Event()

        async def caller(*_: object) -> Caller:
            asked.set()
            await answer.wait()
            raise AssertionError("it was cancelled")

        replica.one.parts.mirror_caller.override(providers.Object(caller))
        replica.one.parts.run_jobs().warm(OLGA, IMAGE)
        await asked.wait()
        with pytest.raises(JobRunning, match=r"warm upstream\.test/public/app:1 is running"):
            replica.other.parts.run_jobs().verify(OTTO)
        replica.other.parts.run_jobs().cancel(OTTO, 1)
        return await replica.end()

    assert replica.run(act).state is JobState.CANCELLED
    assert replica.stored == set()
