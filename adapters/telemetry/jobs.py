"""The job of an operator, in memory that all workers share."""

import fcntl
import mmap
import os
import struct
import weakref
from dataclasses import replace
from typing import Any

from adapters.telemetry.memory_slots import read_slot, write_slot
from application.ports.jobs import Job, JobKind, JobState
from domain.documents import parse_json, print_json

_NUMBER_BYTES = 8
_LAST, _CANCELLED, _SLOT = 0, _NUMBER_BYTES, 2 * _NUMBER_BYTES
"""Places of the number of the last job, of the number of the job that is to be cancelled, and of the slot."""
_MEMORY_BYTES = 64 * 1024
_LONGEST_TEXT = 1024
"""Characters of a subject, a name or a problem. In JSON, one has twelve bytes at most, and they fit into the memory
together.
"""
_READ_ATTEMPTS = 10
_LOCK = struct.Struct("@hhqqi0q")
"""struct flock: type, whence, start, length (0: the whole file), process."""


class SharedJobs:
    """Implements Jobs. The main process creates it before it forks the workers.

    The worker that runs a job holds a lock, which the kernel releases if the worker is killed. It is a POSIX lock
    (fcntl(2)), which belongs to a process. All workers would share a lock of an open file (flock(2)), because they
    inherit the file. Only the holder writes the slot and the number of the job.

    A reader that finds a wrong checksum reads again, because the worker is writing. If a worker was killed while it
    wrote, nothing is known of its job.
    """

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, _MEMORY_BYTES)
        self._lock = os.memfd_create("job")
        weakref.finalize(self, os.close, self._lock)
        self._is_holder = False
        """Of this process. Its own lock would not stop it from locking again."""

    def last(self) -> Job | None:
        job = self._read()
        if job and job.is_running and not self._is_locked():
            job = self._read()  # it may have ended just now
            if job and job.is_running and not self._is_locked():
                return replace(job, state=JobState.LOST)
        return job

    def begin(self, kind: JobKind, subject: str, operator: str, at: float) -> Job | None:
        if self._is_holder:
            return None
        try:
            fcntl.lockf(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return None
        self._is_holder = True
        number = self._number(_LAST) + 1
        self._set_number(_LAST, number)
        job = Job(number, kind, _stored(subject), _stored(operator), at)
        self._write(job)
        return job

    def report(self, job: Job) -> None:
        self._write(replace(job, problem=_stored(job.problem)))
        if not job.is_running:
            self._is_holder = False
            fcntl.lockf(self._lock, fcntl.LOCK_UN)

    def cancel(self, number: int) -> bool:
        job = self.last()
        if job and job.number == number and job.is_running:
            self._set_number(_CANCELLED, number)
            return True
        return False

    def is_cancelled(self, number: int) -> bool:
        return self._number(_CANCELLED) == number

    def _is_locked(self) -> bool:
        """Whether a worker runs a job."""
        if self._is_holder:
            return True
        query = _LOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        kind = _LOCK.unpack(fcntl.fcntl(self._lock, fcntl.F_GETLK, query))[0]
        return bool(kind != fcntl.F_UNLCK)

    def _read(self) -> Job | None:
        if self._number(_LAST) == 0:
            return None
        for _ in range(_READ_ATTEMPTS):
            if found := read_slot(self._memory, _SLOT):
                return _job(*parse_json(found[1]))  # type: ignore[misc]
        return None

    def _write(self, job: Job) -> None:
        fields = (job.number, job.kind.value, job.subject, job.operator, job.started_at, job.state.value, job.ended_at)
        amounts = (job.done, job.total, job.intact, job.damaged, job.problem)
        write_slot(self._memory, _SLOT, job.started_at, print_json(fields + amounts))

    def _number(self, place: int) -> int:
        return int.from_bytes(self._memory[place : place + _NUMBER_BYTES], "little")

    def _set_number(self, place: int, number: int) -> None:
        self._memory[place : place + _NUMBER_BYTES] = number.to_bytes(_NUMBER_BYTES, "little")


def _stored(text: str) -> str:
    """The beginning of the text, without surrogates, which JSON cannot contain."""
    return text[:_LONGEST_TEXT].encode(errors="replace").decode()


def _job(number: int, kind: str, subject: str, operator: str, started_at: float, state: str, *others: Any) -> Job:
    return Job(number, JobKind(kind), subject, operator, started_at, JobState(state), *others)
