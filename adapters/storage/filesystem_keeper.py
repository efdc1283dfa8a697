"""The upkeep of the folder with the content."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

from adapters.storage.storage_folder import StorageFolder, digest_at, is_at, make_private
from adapters.storage.threads import Threads
from application.ports.storage_keeper import Space
from domain.digest import Digest
from domain.ports import Clock

_FORGOTTEN_AFTER = 3600.0
"""Seconds; nobody takes so long to write one manifest."""


class FilesystemStorageKeeper:
    """Plays the StorageKeeper."""

    def __init__(self, folder: Path, clock: Clock) -> None:
        self._folder = StorageFolder(folder)
        self._clock = clock
        self._threads = Threads(1, "upkeep")

    def close(self) -> None:
        """Nothing can be asked of it afterwards."""
        self._threads.close()

    async def space(self) -> Space:
        return await self._threads.run(self._space)

    def _space(self) -> Space:
        try:
            make_private(self._folder.path)
            state = os.statvfs(self._folder.path)
        except OSError:
            return Space(0, 0, 0)
        growing = (*_files(self._folder.drafts), *_files(self._folder.temporary))
        drafts = sum(_size(path) or 0 for path in growing)
        return Space(drafts, state.f_bavail * state.f_frsize, state.f_blocks * state.f_frsize)

    async def sweep_drafts(self, older_than: float = 0.0) -> int:
        return await self._threads.run(partial(self.sweep_drafts_now, older_than))

    def sweep_drafts_now(self, older_than: float = 0.0) -> int:
        """As `sweep_drafts`, in this thread."""
        written_by = self._clock.now() - older_than if older_than else float("inf")
        drafts = sum(_sweep_draft(path, written_by) for path in _files(self._folder.drafts))
        before = self._clock.now() - _FORGOTTEN_AFTER
        return drafts + sum(_sweep_older(path, before) for path in _files(self._folder.temporary))

    async def contents(self) -> dict[Digest, int]:
        return await self._threads.run(self._contents)

    def _contents(self) -> dict[Digest, int]:
        return dict(self._each_content())

    def _each_content(self) -> Iterator[tuple[Digest, int]]:
        for algorithm in _entries(self._folder.content):
            for start in _entries(algorithm):
                for path in _files(start):
                    digest, size = digest_at(path), _size(path)
                    if digest is not None and size is not None:
                        yield digest, size


def _sweep_draft(path: Path, written_by: float) -> bool:
    """Whether it was there, last written to by then, and nobody filled it. It is removed while locked: nobody can take
    it meanwhile.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        if os.fstat(descriptor).st_mtime > written_by:
            return False
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not is_at(descriptor, path):
            return False
        path.unlink()
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True


def _sweep_older(path: Path, before: float) -> bool:
    try:
        if path.lstat().st_mtime >= before:
            return False
        path.unlink()
    except OSError:
        return False
    return True


def _entries(folder: Path) -> list[Path]:
    """What is in the folder; nothing where there is none."""
    try:
        return list(folder.iterdir())
    except OSError:
        return []


def _files(folder: Path) -> list[Path]:
    return [path for path in _entries(folder) if path.is_file() and not path.is_symlink()]


def _size(path: Path) -> int | None:
    with suppress(OSError):
        return path.lstat().st_size
    return None
