"""Where content and drafts lie below the cache's folder."""

import errno
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from domain.digest import Digest
from domain.errors import DigestInvalid

_PRIVATE = 0o700
"""Nobody else of the machine reads what only some callers may pull."""


@dataclass(frozen=True)
class StorageFolder:
    """`reserve`: bytes of the file system that are left to others."""

    path: Path
    reserve: int = 0

    @property
    def content(self) -> Path:
        return self.path / "content"

    @property
    def drafts(self) -> Path:
        return self.path / "drafts"

    @property
    def temporary(self) -> Path:
        return self.path / "temporary"

    def content_of(self, digest: Digest) -> Path:
        # Folders of 256 at most: some tools and some file systems are slow with a million files in one.
        return self.content / digest.algorithm / digest.encoded[:2] / digest.encoded

    def draft_of(self, digest: Digest) -> Path:
        return self.drafts / f"{digest.algorithm}-{digest.encoded}"

    def demand_room(self) -> None:
        """Raises OSError when the file system has no more than the reserve."""
        if not self.reserve:
            return
        state = os.statvfs(self.path)
        if state.f_bavail * state.f_frsize <= self.reserve:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def make_content(self, digest: Digest, source: Path) -> None:
        """Rename a whole file to its place. Raises OSError."""
        target = self.content_of(digest)
        try:
            source.rename(target)
        except FileNotFoundError:
            make_private(self.content)
            target.parent.mkdir(parents=True, exist_ok=True)
            source.rename(target)


def make_private(folder: Path) -> None:
    """Make the folder if it is not there. Raises OSError."""
    folder.mkdir(mode=_PRIVATE, parents=True, exist_ok=True)


def digest_at(path: Path) -> Digest | None:
    """What lies there by its name; None for a stranger's file."""
    try:
        digest = Digest.parse(f"{path.parent.parent.name}:{path.name}")
    except DigestInvalid:
        return None
    return digest if path.parent.name == digest.encoded[:2] else None


def is_at(descriptor: int, path: Path) -> bool:
    """Whether the path still names the open file. Another may have removed or renamed it, or made a new one."""
    try:
        there = path.lstat()
    except FileNotFoundError:
        return False
    return os.path.samestat(os.fstat(descriptor), there)


def is_verified(state: os.stat_result) -> bool:
    """Whether the file is marked as whole and right: nobody may write to it."""
    return not state.st_mode & (stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH)
