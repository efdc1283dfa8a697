"""The newest pulls of manifests, in memory that all workers share."""

import asyncio
import mmap
import struct
from collections import deque
from collections.abc import Iterable
from heapq import nlargest
from typing import cast

from adapters.telemetry.memory_slots import HEAD_BYTES, read_slot, time_of_slot, write_slot
from application.ports.pull_log import ManifestPull, RecentPull
from domain.documents import parse_json, print_json
from domain.names import RepositoryName
from domain.ports import Clock
from domain.records import CallerClass
from domain.upstreams import Source, Upstream
from domain.value import Value

_KEPT = 256
"""Pulls of each worker."""
_SHOWN = 300
_WRITE_SECONDS = 1.0
_SLOT_BYTES = 1024
"""More than the longest pull: a repository of 255 characters, a tag of 128, an account, and an address."""
_COUNT = struct.Struct("<Q")
_RING_BYTES = _COUNT.size + _KEPT * _SLOT_BYTES


class SharedPulls:
    """One ring of slots for each worker. The main process creates the memory before it forks the workers.

    Only one worker writes to a ring. A reader ignores a slot whose checksum is wrong. A worker that replaces a dead one
    continues its ring.
    """

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._memory = mmap.mmap(-1, workers * _RING_BYTES)

    def ring(self, worker: int) -> "WorkerPulls":
        """The ring of this worker, from 0, and the means to read all others."""
        return WorkerPulls(self, worker)

    def write(self, worker: int, at: float, content: bytes) -> None:
        """Ignores content that is longer than a slot. `at`: seconds since 1970."""
        if len(content) > _SLOT_BYTES - HEAD_BYTES:
            return
        ring = worker * _RING_BYTES
        (written,) = _COUNT.unpack_from(self._memory, ring)
        write_slot(self._memory, ring + _COUNT.size + written % _KEPT * _SLOT_BYTES, at, content)
        _COUNT.pack_into(self._memory, ring, written + 1)

    def newest(self, count: int) -> list[tuple[float, bytes]]:
        """The time and the content of this many slots of all workers, the newest first."""
        slots = [
            (time_of_slot(self._memory, slot), slot)
            for worker in range(self._workers)
            for slot in range(worker * _RING_BYTES + _COUNT.size, (worker + 1) * _RING_BYTES, _SLOT_BYTES)
        ]
        newest = nlargest(count, (one for one in slots if one[0]))
        found = ((at, read_slot(self._memory, slot)) for at, slot in newest)
        # A slot that was written since its time was read belongs to another place in the order.
        return [read for at, read in found if read and read[0] == at]


class WorkerPulls(Value, frozen=True):
    """The memory of all workers, and the number of the worker that uses it."""

    shared: SharedPulls
    worker: int


class WorkerPullLog:
    """Implements PullLog. `upstreams`: those of the settings.

    A pull that is answered from the response cache takes tens of microseconds, so it is only appended to a list. What
    has come in a second is then written at once.
    """

    def __init__(self, pulls: WorkerPulls, upstreams: Iterable[Upstream], clock: Clock) -> None:
        self._pulls = pulls
        self._clock = clock
        self._upstreams = {one.fingerprint: one for one in upstreams}
        self._fingerprints = {one: fingerprint for fingerprint, one in self._upstreams.items()}
        self._waiting: deque[RecentPull] = deque(maxlen=_KEPT)

    def add(self, pull: ManifestPull, account: str | None, address: str, seconds: float, size: int) -> None:
        if not self._waiting:
            # No timer runs while nothing is pulled.
            asyncio.get_running_loop().call_later(_WRITE_SECONDS, self._write)
        self._waiting.append(RecentPull(self._clock.now(), pull, account, address, seconds, size))

    def newest(self) -> list[RecentPull]:
        self._write()
        read = (self._read(at, content) for at, content in self._pulls.shared.newest(_SHOWN))
        return [pull for pull in read if pull]

    def _write(self) -> None:
        while self._waiting:
            at, pull, *others = self._waiting.popleft()
            upstream, repository = self._fingerprints[pull.source.upstream], str(pull.source.repository)
            fields = (upstream, repository, pull.reference, pull.caller_class, pull.is_hit, *others)
            self._pulls.shared.write(self._pulls.worker, at, print_json(fields))

    def _read(self, at: float, content: bytes) -> RecentPull | None:
        fields = cast("tuple[str, str, str, str, bool, str | None, str, float, int]", parse_json(content))
        fingerprint, repository, reference, caller_class, is_hit, account, address, seconds, size = fields
        upstream = self._upstreams.get(fingerprint)
        if upstream is None:
            return None  # a reload has removed it
        source = Source(upstream, RepositoryName(repository))
        pull = ManifestPull(source, reference, CallerClass(caller_class), is_hit)
        return RecentPull(at, pull, account, address, seconds, size)


class NoPullLog:
    """Implements PullLog for a mirror without a page."""

    def add(self, pull: ManifestPull, account: str | None, address: str, seconds: float, size: int) -> None:
        pass

    def newest(self) -> list[RecentPull]:
        return []
