"""What all workers are doing, in memory that they share."""

import mmap
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any, cast

from adapters.telemetry.memory_slots import HEAD_BYTES, read_slot, time_of_slot, write_slot
from application.ports.activity import Activity, DownloadState, UpstreamTrouble
from domain.digest import Digest
from domain.documents import parse_json, print_json
from domain.names import RepositoryName
from domain.ports import Clock
from domain.upstreams import Upstream
from domain.value import Value

_SLOT_BYTES = 64 * 1024
"""Enough for about two hundred downloads. Memory that was never written occupies none."""
_VALID_SECONDS = 5.0
"""A worker reports each second. Without a report for so long, it was killed."""
_READ_ATTEMPTS = 10

_DownloadFields = tuple[str, list[str], bool, float, int, int | None, float | None, int, int]
_TroubleFields = tuple[bool, str, float]
_LONGEST_MESSAGE = 512


class SharedActivity:
    """One slot for each worker. The main process creates the memory before it forks the workers.

    A reader that finds a wrong checksum reads again, because the worker is writing. A worker that replaces a dead one
    uses its slot.
    """

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._memory = mmap.mmap(-1, workers * _SLOT_BYTES)

    def of(self, worker: int) -> "WorkerActivity":
        """The slot of this worker, from 0, and the means to read all others."""
        return WorkerActivity(self, worker)

    def write(self, worker: int, at: float, content: bytes) -> None:
        """`at`: seconds since 1970. The content must fit into a slot."""
        write_slot(self._memory, worker * _SLOT_BYTES, at, content)

    def read(self, since: float) -> Iterator[bytes]:
        """What each worker has written since this time. Nothing of a worker that was killed while it wrote."""
        for slot in range(0, self._workers * _SLOT_BYTES, _SLOT_BYTES):
            for _ in range(_READ_ATTEMPTS):
                if time_of_slot(self._memory, slot) < since:
                    break
                if found := read_slot(self._memory, slot):
                    _, content = found
                    if content:
                        yield content
                    break


class WorkerActivity(Value, frozen=True):
    """The memory of all workers, and the number of the worker that uses it."""

    shared: SharedActivity
    worker: int


class WorkerActivityTable:
    """Implements ActivityTable. `upstreams`: those of the settings."""

    def __init__(self, slots: WorkerActivity, upstreams: Iterable[Upstream], clock: Clock) -> None:
        self._shared = slots.shared
        self._worker = slots.worker
        self._upstreams = {one.fingerprint: one for one in upstreams}
        self._clock = clock
        self._is_empty = False
        """The slot has nothing. At the start it may have what a worker that was killed has written."""

    def report(self, activity: Activity) -> None:
        is_empty = not activity.downloads and not activity.troubles
        if not (is_empty and self._is_empty):
            self._shared.write(self._worker, self._clock.now(), b"" if is_empty else _content(activity))
        self._is_empty = is_empty

    def all(self) -> list[Activity]:
        return [self._activity(content) for content in self._shared.read(self._clock.now() - _VALID_SECONDS)]

    def _activity(self, content: bytes) -> Activity:
        downloads, troubles = [], []
        for line in content.splitlines():
            fingerprint, download, trouble = cast(
                "tuple[str, _DownloadFields | None, _TroubleFields | None]", parse_json(line)
            )
            upstream = self._upstreams.get(fingerprint)
            if upstream is None:
                continue  # a reload has removed it, and its downloads still run
            if download:
                downloads.append(_download(upstream, *download))
            if trouble:
                troubles.append(UpstreamTrouble(upstream, *trouble))
        return Activity(downloads, troubles)


def _content(activity: Activity) -> bytes:
    """One line for each trouble and each download, as many as fit into a slot."""
    lines, left = [], _SLOT_BYTES - HEAD_BYTES
    for line in chain(map(_line_of_trouble, activity.troubles), map(_line_of_download, activity.downloads)):
        left -= len(line)
        if left < 0:
            break
        lines.append(line)
    return b"".join(lines)


def _line_of_trouble(one: UpstreamTrouble) -> bytes:
    fields = (one.is_back_off, one.message[:_LONGEST_MESSAGE], one.until)
    return print_json((one.upstream.fingerprint, None, fields)) + b"\n"


def _line_of_download(one: DownloadState) -> bytes:
    repositories = [str(repository) for repository in one.repositories]
    sizes = (one.present, one.total, one.speed, one.connections, one.readers)
    fields = (str(one.digest), repositories, one.has_more, one.started_at, *sizes)
    return print_json((one.upstream.fingerprint, fields, None)) + b"\n"


def _download(upstream: Upstream, digest: str, repositories: list[str], *others: Any) -> DownloadState:
    return DownloadState(upstream, Digest.parse(digest), tuple(map(RepositoryName, repositories)), *others)


class NoActivityTable:
    """Implements ActivityTable for a mirror without a page."""

    def report(self, activity: Activity) -> None:
        pass

    def all(self) -> list[Activity]:
        return []
