"""RunJobs: work of operators that outlasts a request."""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import replace
from functools import partial
from typing import Any

from application.access.mirror_caller import MirrorCaller
from application.concurrency import BackgroundTasks, until_done
from application.page.administer import Administer, image_name
from application.page.viewer import Viewer
from application.ports.content import StorageRefused
from application.ports.jobs import Job, JobKind, Jobs, JobState
from application.ports.telemetry import EventSink
from application.upkeep.manage_cache import ManageCache
from application.upkeep.warm import Image, NoSuchPlatform, WarmCache
from domain.errors import JobRunning, RegistryError
from domain.events import ContentDamaged
from domain.ports import Clock
from domain.upstream_table import UpstreamTable

_LOOK_SECONDS = 0.5
"""How often a job reports its progress, and looks whether it is cancelled."""
_WHOLE_CACHE = "cache"
"""The subject of a verification."""


class RunJobs:
    """One job runs at a time in a replica. It runs in the worker that began it, whether or not a page is open. All
    workers show its progress and can cancel it. It ends with the service, and goes on after a reload, with the settings
    that it began with. The caller has checked that the viewer is an operator.
    """

    def __init__(
        self,
        jobs: Jobs,
        cache: ManageCache,
        warm_cache: WarmCache,
        mirror_caller: MirrorCaller,
        upstreams: UpstreamTable,
        administer: Administer,
        tasks: BackgroundTasks,
        events: EventSink,
        clock: Clock,
    ) -> None:
        """`tasks`: runs the job of this worker; `close_container` cancels it when the worker stops."""
        self._jobs = jobs
        self._cache = cache
        self._warm_cache = warm_cache
        self._mirror_caller = mirror_caller
        self._upstreams = upstreams
        self._administer = administer
        self._tasks = tasks
        self._events = events
        self._clock = clock

    def last(self) -> Job | None:
        """The job that is running or ran last; None if there was none since the start of the service."""
        return self._jobs.last()

    def verify(self, viewer: Viewer) -> None:
        """Begin to hash all cached content again. Damaged content is removed. Raises JobRunning."""
        self._begin(viewer, JobKind.VERIFY, _WHOLE_CACHE, self._verify)

    def warm(self, viewer: Viewer, image: Image) -> None:
        """Begin to pull the image into the cache, as the mirror itself: see MirrorCaller. Raises JobRunning, and
        NameUnknown for a registry that is not mirrored.
        """
        source = self._upstreams.source_of(image.name, image.hint)
        subject = " ".join((image_name(source, image.reference.target), *image.platforms))
        self._begin(viewer, JobKind.WARM, subject, partial(self._warm, image))

    def cancel(self, viewer: Viewer, number: int) -> None:
        """Cancel the job with this number, in whichever worker. Does nothing if it has ended."""
        job = self._jobs.last()
        if job and self._jobs.cancel(number):
            self._administer.record(viewer, "cancel", f"{job.kind.value} {job.subject}", "requested")

    def _begin(self, viewer: Viewer, kind: JobKind, subject: str, work: "_Work") -> None:
        job = self._jobs.begin(kind, subject, viewer.account, self._clock.now())
        if job is None:
            raise JobRunning(_running(self._jobs.last()))
        self._administer.record(viewer, kind.value, subject, "started")
        self._tasks.start(self._run(viewer, _Progress(job), work))

    async def _run(self, viewer: Viewer, progress: "_Progress", work: "_Work") -> None:
        task = asyncio.create_task(work(progress))
        is_cancelled = False
        try:
            while not task.done():
                await asyncio.wait([task], timeout=_LOOK_SECONDS)
                self._jobs.report(progress.job)
                # Once only: a second cancellation would interrupt what the work does at its end.
                if not is_cancelled and self._jobs.is_cancelled(progress.job.number):
                    is_cancelled = task.cancel()
        except asyncio.CancelledError:  # the service stops
            if not is_cancelled:
                task.cancel()
            await until_done(task)
        finally:
            job = _ended(progress.job, task, self._clock.now())
            self._jobs.report(job)
            self._administer.record(viewer, job.kind.value, job.subject, _result(job))

    async def _verify(self, progress: "_Progress") -> None:
        async for verdict in self._cache.verify():
            if verdict.is_right:
                progress.update(intact=progress.job.intact + 1)
            else:
                progress.update(damaged=progress.job.damaged + 1)
                self._events.emit(ContentDamaged(str(verdict.used.digest)))
            progress.update(done=verdict.done, total=verdict.total)

    async def _warm(self, image: Image, progress: "_Progress") -> None:
        caller = await self._mirror_caller(image.name, image.hint)
        async for cached in self._warm_cache(caller, image):
            progress.update(done=cached.done, total=cached.total)


class _Progress:
    """What the running job has done so far."""

    def __init__(self, job: Job) -> None:
        self.job = job

    def update(self, **amounts: int) -> None:
        self.job = replace(self.job, **amounts)  # type: ignore[arg-type]


_Work = Callable[[_Progress], Coroutine[Any, Any, None]]


def _running(job: Job | None) -> str:
    if job is None:
        return "another job is running"
    return f"{job.kind.value} {job.subject} is running, started by {job.operator}; wait until it ends, or cancel it"


def _ended(job: Job, task: asyncio.Task[None], now: float) -> Job:
    """`task`: the work, which has ended."""
    if task.cancelled():
        return replace(job, state=JobState.CANCELLED, ended_at=now)
    match task.exception():
        case None:
            return replace(job, state=JobState.DONE, ended_at=now)
        case RegistryError(message):
            problem = message
        case StorageRefused() | NoSuchPlatform() as error:
            problem = str(error)
        case error:
            problem = f"{type(error).__name__}: {error}"
    return replace(job, state=JobState.FAILED, ended_at=now, problem=problem)


def _result(job: Job) -> str:
    """What the audit event says about a job that has ended."""
    ending = f"failed: {job.problem}" if job.state is JobState.FAILED else job.state.value
    if job.kind is JobKind.VERIFY:
        return f"{ending}; {job.intact} intact, {job.damaged} damaged and removed"
    return f"{ending}; {job.done} of {'unknown' if job.total is None else job.total} bytes cached"
