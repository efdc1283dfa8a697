"""Maintenance of the cache's folder: how much is stored, and what can be removed."""

import fcntl
import os
import stat
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

from adapters.storage.folder import CONTENT, PARTIAL_BLOBS, TEMPORARY, Place, StorageFolder, digest_at, upstream_at
from adapters.storage.present_map import has_map, read_map
from adapters.storage.safe_paths import names_in, state_at
from adapters.storage.threads import HasThreads, Threads, in_thread
from application.ports.content import Space
from domain.digest import Digest
from domain.ports import Clock

_BLOCK_BYTES = 512
"""The unit of `st_blocks` (stat(2))."""
_ABANDONED_AFTER = 3600.0
"""Seconds; writing one manifest takes less."""


class FilesystemStorageMaintenance(HasThreads):
    """Implements StorageMaintenance."""

    def __init__(self, folder: Path, clock: Clock) -> None:
        self._folder = StorageFolder(folder)
        self._clock = clock
        self.threads = Threads(1, "upkeep")

    def close(self) -> None:
        """The maintenance cannot be used afterwards."""
        self.threads.close()

    @in_thread
    def space(self) -> Space:
        try:
            with self._folder.opened(make=True) as folder:
                state = os.statvfs(folder)
        except OSError:
            return Space(0, 0, 0)
        partial_blobs_of: Counter[str] = Counter()
        for name, file in self._entries(PARTIAL_BLOBS):
            partial_blobs_of[upstream_at(name)] += self._present_in((PARTIAL_BLOBS, name), file)
        partial_blobs = partial_blobs_of.total() + sum(file.st_size for _, file in self._entries(TEMPORARY))
        return Space(partial_blobs, state.f_bavail * state.f_frsize, state.f_blocks * state.f_frsize, partial_blobs_of)

    def _present_in(self, place: Place, state: os.stat_result) -> int:
        """The number of bytes that are present in the partial blob."""
        if not has_map(state):
            return state.st_size
        with suppress(OSError), os.fdopen(self._folder.open_to_read(place), "rb") as file:
            if content := read_map(file.fileno(), os.fstat(file.fileno()).st_size):
                return content.present.length
        # The map is being written, or was never written. The file system counts no gaps.
        return min(state.st_size, state.st_blocks * _BLOCK_BYTES)

    async def remove_abandoned_partial_blobs(self, older_than: float = 0.0) -> int:
        return await self.threads.run(partial(self.remove_abandoned_partial_blobs_now, older_than))

    def remove_abandoned_partial_blobs_now(self, older_than: float = 0.0) -> int:
        """As `remove_abandoned_partial_blobs`, but in the calling thread."""
        now = self._clock.now()
        written_before = {
            PARTIAL_BLOBS: now - older_than if older_than else float("inf"),
            TEMPORARY: now - _ABANDONED_AFTER,
        }
        return sum(
            self._remove_if_abandoned((folder, name), before)
            for folder, before in written_before.items()
            for name, _ in self._entries(folder)
        )

    def _remove_if_abandoned(self, place: Place, written_before: float) -> bool:
        """Remove the file if it was not written to since `written_before` and no process has its lease. It is locked
        during the removal, so that no process can take the lease. Returns whether it was removed.
        """
        with suppress(OSError), os.fdopen(self._folder.open_to_read(place), "rb") as file:
            if os.fstat(file.fileno()).st_mtime < written_before:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if self._folder.is_at(file.fileno(), place):
                    self._folder.remove(place)
                    return True
        return False

    @in_thread
    def contents(self) -> dict[Digest, int]:
        found = {}
        for algorithm, _ in self._entries(CONTENT, are=stat.S_ISDIR):
            for start, _ in self._entries(CONTENT, algorithm, are=stat.S_ISDIR):
                for name, file in self._entries(CONTENT, algorithm, start):
                    if digest := digest_at(algorithm, start, name):
                        found[digest] = file.st_size
        return found

    def _entries(self, *folder: str, are: Callable[[int], bool] = stat.S_ISREG) -> list[tuple[str, os.stat_result]]:
        """The regular files in the folder, or its entries of another kind. Nothing for a missing folder or a link."""
        try:
            with self._folder.opened(folder) as descriptor:
                states = [(name, state_at(descriptor, name)) for name in names_in(descriptor)]
        except OSError:
            return []
        return [(name, state) for name, state in states if state and are(state.st_mode)]
