"""The remaining allowance at each upstream, in memory that all workers share."""

import mmap
from collections.abc import Iterable, Iterator

from domain.allowance import Allowance
from domain.upstreams import Upstream

_NUMBERS = 4  # fields of one allowance: limit, remaining, window, seen_at
_BYTES = 8
_READ_ATTEMPTS = 100


class SharedAllowances:
    """One entry per worker and upstream. The main process creates the memory before it forks the workers. `upstreams`:
    the URLs of the upstreams; `write` ignores all others.

    Each entry has one writer and contains the time of the observation, because the newest observation of all workers
    is the valid one. The writer sets the time to 0 while it changes an entry. A reader that finds the same time before
    and after reading has read numbers that belong together.
    """

    def __init__(self, workers: int, upstreams: Iterable[str] = ()) -> None:
        self._workers = workers
        self._positions = {url: place for place, url in enumerate(dict.fromkeys(upstreams))}
        size = max(1, workers * len(self._positions)) * _NUMBERS * _BYTES
        memory = memoryview(mmap.mmap(-1, size))
        self._numbers, self._times = memory.cast("Q"), memory.cast("d")

    def write(self, worker: int, url: str, allowance: Allowance) -> None:
        if url not in self._positions:
            return
        start = self._start(worker, url)
        self._times[start + 3] = 0.0
        numbers = (allowance.limit, allowance.remaining, allowance.window)
        for place, number in enumerate(numbers, start):
            self._numbers[place] = number
        self._times[start + 3] = allowance.seen_at

    def newest(self, url: str) -> Allowance | None:
        if url not in self._positions:
            return None
        known = [self._read(self._start(worker, url)) for worker in range(self._workers)]
        return max((one for one in known if one), key=lambda one: one.seen_at, default=None)

    def all(self) -> Iterator[tuple[str, Allowance]]:
        """The URL and the newest allowance of each upstream that has sent one."""
        for url in self._positions:
            if allowance := self.newest(url):
                yield url, allowance

    def _start(self, worker: int, url: str) -> int:
        return (worker * len(self._positions) + self._positions[url]) * _NUMBERS

    def _read(self, start: int) -> Allowance | None:
        for _ in range(_READ_ATTEMPTS):
            seen_at = self._times[start + 3]
            limit, remaining, window = self._numbers[start : start + 3]
            if seen_at == self._times[start + 3]:
                return Allowance(limit, remaining, window, seen_at) if seen_at else None
        return None


class WorkerAllowanceTable:
    """Implements AllowanceTable. `worker`: the number of this worker, from 0."""

    def __init__(self, shared: SharedAllowances, worker: int) -> None:
        self._shared = shared
        self._worker = worker

    def publish(self, upstream: Upstream, allowance: Allowance) -> None:
        self._shared.write(self._worker, upstream.url, allowance)

    def newest(self, upstream: Upstream) -> Allowance | None:
        return self._shared.newest(upstream.url)
