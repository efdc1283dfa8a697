"""Where content and partial blobs are in the cache's folder, and the operations on files there.

Each operation opens the folders on the way to the file again, by descriptor and without following links.
"""

import errno
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from adapters.storage.safe_paths import cache_folder, open_file, state_at
from domain.digest import Digest
from domain.errors import DigestInvalid
from domain.upstreams import Upstream

CONTENT = "content"
PARTIAL_BLOBS = "drafts"
TEMPORARY = "temporary"

Place = tuple[str, ...]
"""Where a file is: the names of the folders below the cache's folder, then its own."""


@dataclass(frozen=True)
class StorageFolder:
    """`path`: the configured folder. `reserve`: bytes of the file system that are left to others."""

    path: Path
    reserve: int = 0

    def content_of(self, digest: Digest) -> Place:
        # Folders of 256 at most: some tools and some file systems are slow with a million files in one.
        return CONTENT, digest.algorithm, digest.encoded[:2], digest.encoded

    def partial_blob_of(self, upstream: Upstream, digest: Digest) -> Place:
        # One file for each upstream: its bytes are never joined with another's. A hash, since an address has slashes.
        return PARTIAL_BLOBS, f"{upstream.fingerprint}-{digest.algorithm}-{digest.encoded}"

    def require_free_space(self) -> None:
        """Raises OSError when the file system has no more than the reserve. The folder is made if it is missing."""
        if not self.reserve:
            return
        with self.opened(make=True) as folder:
            state = os.statvfs(folder)
        if state.f_bavail * state.f_frsize <= self.reserve:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    @contextmanager
    def opened(self, names: Sequence[str] = (), *, make: bool = False) -> Iterator[int]:
        """A descriptor of a folder, until the context ends. `make`: make what is missing. Raises OSError."""
        with cache_folder(self.path, names, make=make) as folder:
            yield folder.descriptor

    def open_to_read(self, place: Place) -> int:
        """A descriptor of a regular file. Raises OSError."""
        with self.opened(place[:-1]) as folder:
            return open_file(folder, place[-1])

    def open_to_write(self, place: Place) -> int:
        """A descriptor of a regular file, which is made if it is missing, as its folders are. A verified partial blob
        that was not renamed yet is opened for reading only, because only root may write to it. Raises OSError.
        """
        with self.opened(place[:-1], make=True) as folder:
            try:
                return open_file(folder, place[-1], write=True)
            except PermissionError:
                return open_file(folder, place[-1])

    def state_of(self, place: Place) -> os.stat_result | None:
        """Of the entry itself, where it is a link too; None where it, or a folder on the way, is missing. Raises
        OSError.
        """
        try:
            with self.opened(place[:-1]) as folder:
                return state_at(folder, place[-1])
        except FileNotFoundError:
            return None

    def is_at(self, descriptor: int, place: Place) -> bool:
        """Whether the place still has the open file. Raises OSError."""
        there = self.state_of(place)
        return there is not None and os.path.samestat(os.fstat(descriptor), there)

    def remove(self, place: Place) -> None:
        """Raises OSError."""
        with self.opened(place[:-1]) as folder:
            os.unlink(place[-1], dir_fd=folder)

    def has_content(self, digest: Digest, size: int) -> bool:
        """Whether whole content of that size is in its place. A power cut may have left less. Raises OSError."""
        there = self.state_of(self.content_of(digest))
        return there is not None and there.st_size == size

    def make_content(self, digest: Digest, source: Place, size: int) -> None:
        """Rename a whole file of that size to its place, or remove it if the content is there. Raises OSError."""
        if self.has_content(digest, size):
            # For instance, the partial blob of another upstream was whole before. One copy is kept.
            self.remove(source)
            return
        target = self.content_of(digest)
        with self.opened(source[:-1]) as old, self.opened(target[:-1], make=True) as new:
            os.rename(source[-1], target[-1], src_dir_fd=old, dst_dir_fd=new)


def upstream_at(name: str) -> str:
    """The fingerprint of the upstream in the name of a partial blob; for other files, one that no upstream has."""
    return name.partition("-")[0]


def digest_at(algorithm: str, start: str, encoded: str) -> Digest | None:
    """The digest by the names of a file and its folders; None for a file of another program."""
    try:
        digest = Digest.parse(f"{algorithm}:{encoded}")
    except DigestInvalid:
        return None
    return digest if start == digest.encoded[:2] else None


def is_verified(state: os.stat_result) -> bool:
    """Whether the file is marked as whole and right: it is writable for no user."""
    return not state.st_mode & (stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH)
