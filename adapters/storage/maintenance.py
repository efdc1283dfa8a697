"""The upkeep of the folder with the content."""

import fcntl
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from adapters.storage.folder import CONTENT, PARTIAL_BLOBS, TEMPORARY, StorageFolder, digest_at, upstream_at
from adapters.storage.safe_paths import files_in, is_at, names_in, open_to_read, state_at
from adapters.storage.threads import Threads
from application.ports.content import Space
from domain.digest import Digest
from domain.ports import Clock

_ABANDONED_AFTER = 3600.0
"""Seconds; writing one manifest takes less."""


class FilesystemStorageMaintenance:
    """Implements StorageMaintenance."""

    def __init__(self, folder: Path, clock: Clock) -> None:
        self._folder = StorageFolder(folder)
        self._clock = clock
        self._threads = Threads(1, "upkeep")

    def close(self) -> None:
        """It cannot be used afterwards."""
        self._threads.close()

    async def space(self) -> Space:
        return await self._threads.run(self._space)

    def _space(self) -> Space:
        try:
            with self._folder.opened(make=True) as folder:
                state = os.statvfs(folder)
        except OSError:
            return Space(0, 0, 0)
        partial_blobs_of: Counter[str] = Counter()
        for name, file in self._files((PARTIAL_BLOBS,)):
            partial_blobs_of[upstream_at(name)] += file.st_size
        partial_blobs = partial_blobs_of.total() + sum(file.st_size for _, file in self._files((TEMPORARY,)))
        return Space(partial_blobs, state.f_bavail * state.f_frsize, state.f_blocks * state.f_frsize, partial_blobs_of)

    async def remove_abandoned_partial_blobs(self, older_than: float = 0.0) -> int:
        return await self._threads.run(partial(self.remove_abandoned_partial_blobs_now, older_than))

    def remove_abandoned_partial_blobs_now(self, older_than: float = 0.0) -> int:
        """As `remove_abandoned_partial_blobs`, in this thread."""
        written_by = self._clock.now() - older_than if older_than else float("inf")
        before = self._clock.now() - _ABANDONED_AFTER
        return self._sweep(PARTIAL_BLOBS, partial(_sweep_partial_blob, written_by)) + self._sweep(
            TEMPORARY, partial(_sweep_older, before)
        )

    def _sweep(self, name: str, sweep: Callable[[int, str], bool]) -> int:
        """How many files of that folder the step removed."""
        try:
            with self._folder.opened((name,)) as folder:
                return sum(sweep(folder, file) for file, _ in files_in(folder))
        except OSError:
            return 0

    async def contents(self) -> dict[Digest, int]:
        return await self._threads.run(self._contents)

    def _contents(self) -> dict[Digest, int]:
        return dict(self._each_content())

    def _each_content(self) -> Iterator[tuple[Digest, int]]:
        for algorithm in self._names((CONTENT,)):
            for start in self._names((CONTENT, algorithm)):
                for name, state in self._files((CONTENT, algorithm, start)):
                    digest = digest_at(algorithm, start, name)
                    if digest is not None:
                        yield digest, state.st_size

    def _names(self, folder: Sequence[str]) -> list[str]:
        """What is in the folder; nothing where it is missing, no folder, or a link."""
        try:
            with self._folder.opened(folder) as descriptor:
                return names_in(descriptor)
        except OSError:
            return []

    def _files(self, folder: Sequence[str]) -> list[tuple[str, os.stat_result]]:
        """The regular files in it, as above."""
        try:
            with self._folder.opened(folder) as descriptor:
                return files_in(descriptor)
        except OSError:
            return []


def _sweep_partial_blob(written_by: float, folder: int, name: str) -> bool:
    """Whether the partial blob was removed: it was last written to by then, and no process has its lease. It is removed
    while it is locked, so that no process can take the lease meanwhile.
    """
    try:
        descriptor = open_to_read(folder, name)
    except OSError:
        return False
    try:
        if os.fstat(descriptor).st_mtime > written_by:
            return False
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not is_at(descriptor, folder, name):
            return False
        os.unlink(name, dir_fd=folder)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True


def _sweep_older(before: float, folder: int, name: str) -> bool:
    try:
        state = state_at(folder, name)
        if state is None or state.st_mtime >= before:
            return False
        os.unlink(name, dir_fd=folder)
    except OSError:
        return False
    return True
