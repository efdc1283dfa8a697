"""The port to the job of this replica: work that an operator has started on the page and that outlasts a request."""

from dataclasses import dataclass
from enum import Enum
from typing import Protocol


class JobKind(Enum):
    """VERIFY: hash all cached content again. WARM: pull an image into the cache."""

    VERIFY = "verify"
    WARM = "warm"


class JobState(Enum):
    """DONE: all was done. FAILED: an error ended the job. CANCELLED: an operator or the end of the service has ended
    it. LOST: the worker that ran it was killed.
    """

    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"
    LOST = "lost"


@dataclass(frozen=True)
class Job:
    """`number`: counts the jobs since the start of the service, from 1; `subject`: what it is applied to, as in audit
    events; `operator`: the login name of who has started it; `started_at` and `ended_at`: seconds since 1970, None
    while it runs; `done` and `total`: bytes, None while the total is unknown; `intact` and `damaged`: manifests and
    blobs that a verification has examined; `problem`: the error of a failed job.
    """

    number: int
    kind: JobKind
    subject: str
    operator: str
    started_at: float
    state: JobState = JobState.RUNNING
    ended_at: float | None = None
    done: int = 0
    total: int | None = None
    intact: int = 0
    damaged: int = 0
    problem: str = ""

    @property
    def is_running(self) -> bool:
        return self.state is JobState.RUNNING


class Jobs(Protocol):
    """The job that is running or ran last. All workers share it, and it is forgotten at a restart of the service."""

    def last(self) -> Job | None:
        """The job as it was last reported; None if there was none."""

    def begin(self, kind: JobKind, subject: str, operator: str, at: float) -> Job | None:
        """The new job, which this worker runs from now on. None if a job is running, in whichever worker. If the worker
        is killed, the job ends with it. Texts that are too long are cut.
        """

    def report(self, job: Job) -> None:
        """Replace the job that this worker runs. The next job can begin when the state is no longer RUNNING."""

    def cancel(self, number: int) -> bool:
        """Ask the worker that runs the job with this number to end it. False if it is not running."""

    def is_cancelled(self, number: int) -> bool:
        """Whether `cancel` was called for this job."""
