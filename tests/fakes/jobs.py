"""The job of an operator, in memory that several workers share."""

from dataclasses import dataclass, replace

from application.ports.jobs import Job, JobKind, JobState


@dataclass
class Board:
    """What the workers share. `runner`: the worker that runs the job."""

    job: Job | None = None
    runner: object = None
    cancelled: int = 0


class MemoryJobs:
    """Implements Jobs. Workers with the same board share the job."""

    def __init__(self, board: Board | None = None) -> None:
        self.board = board or Board()

    def die(self) -> None:
        """What happens when this worker is killed."""
        if self.board.runner is self:
            self.board.runner = None

    def last(self) -> Job | None:
        job = self.board.job
        return replace(job, state=JobState.LOST) if job and job.is_running and self.board.runner is None else job

    def begin(self, kind: JobKind, subject: str, operator: str, at: float) -> Job | None:
        if self.board.runner is not None:
            return None
        number = self.board.job.number + 1 if self.board.job else 1
        self.board.runner, self.board.job = self, Job(number, kind, subject[:1024], operator[:1024], at)
        return self.board.job

    def report(self, job: Job) -> None:
        self.board.job = replace(job, problem=job.problem[:1024])
        if not job.is_running:
            self.board.runner = None

    def cancel(self, number: int) -> bool:
        job = self.last()
        if job is None or job.number != number or not job.is_running:
            return False
        self.board.cancelled = number
        return True

    def is_cancelled(self, number: int) -> bool:
        return self.board.cancelled == number
