"""The memory of a process and its descendants, sampled while a test runs."""

import threading
from pathlib import Path
from typing import Self

from tests.e2e.support.processes import session_pids


def pss_bytes(leader: int) -> int:
    """The sum of the proportional set sizes: a page that workers share counts once."""
    total = 0
    for pid in session_pids(leader):
        try:
            rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
        except OSError:  # the process has ended in the meantime
            continue
        total += sum(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:")) * 1024
    return total


class PssSampler:
    """`with PssSampler(pid) as sampler: ...`, then `sampler.peak` and `sampler.samples`."""

    def __init__(self, leader: int, every: float = 0.2) -> None:
        self._leader = leader
        self._every = every
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self.samples: list[int] = []

    @property
    def peak(self) -> int:
        return max(self.samples)

    def _watch(self) -> None:
        while True:
            self.samples.append(pss_bytes(self._leader))
            if self._over.wait(self._every):
                return

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
