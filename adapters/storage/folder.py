"""The layout of the cache's folder: where content and partial blobs are, and the operations on these files.

Each operation opens the folders of the file again, by descriptor and without following links.
"""

import errno
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from adapters.storage.safe_paths import cache_folder, open_file, state_at
from domain.digest import Digest
from domain.errors import DigestInvalid
from domain.upstreams import Upstream
from domain.value import Value

CONTENT = "content"
PARTIAL_BLOBS = "drafts"
TEMPORARY = "temporary"

Place = tuple[str, ...]
"""Where a file is in the cache's folder: the names of the folders, then the name of the file."""


class StorageFolder(Value, frozen=True):
    """`path`: the configured folder. `reserve`: bytes of the file system that the cache leaves free."""

    path: Path
    reserve: int = 0

    def content_of(self, digest: Digest) -> Place:
        # Spread over 256 folders: some tools and file systems are slow with a million files in one folder.
        return CONTENT, digest.algorithm, digest.encoded[:2], digest.encoded

    def partial_blob_of(self, upstream: Upstream, digest: Digest) -> Place:
        # One file for each upstream, so that a partial blob never contains bytes of two upstreams. The fingerprint is a
        # hash, because a URL contains slashes.
        return PARTIAL_BLOBS, f"{upstream.fingerprint}-{digest.algorithm}-{digest.encoded}"

    def require_free_space(self) -> None:
        """Raises OSError if the file system has no more free bytes than the reserve. Makes a missing folder."""
        if self.reserve:
            with self.opened(make=True) as folder:
                self.require_free_space_at(folder)

    def require_free_space_at(self, descriptor: int) -> None:
        """The same for the file system of an open file or folder. It is faster, because it opens nothing."""
        if self.reserve:
            state = os.fstatvfs(descriptor)
            if state.f_bavail * state.f_frsize <= self.reserve:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    @contextmanager
    def opened(self, names: Sequence[str] = (), *, make: bool = False) -> Iterator[int]:
        """A descriptor of a folder, open until the context ends. `make`: make missing folders. Raises OSError."""
        with cache_folder(self.path, names, make=make) as folder:
            yield folder.descriptor

    def open_to_read(self, place: Place) -> int:
        """A descriptor of a regular file. Raises OSError."""
        with self.opened(place[:-1]) as folder:
            return open_file(folder, place[-1])

    def open_to_write(self, place: Place) -> int:
        """A descriptor of a regular file. Makes the file and its folders if they are missing. A verified partial blob
        that was not renamed yet is opened for reading only, because its mode lets only root write. Raises OSError.
        """
        with self.opened(place[:-1], make=True) as folder:
            try:
                return open_file(folder, place[-1], write=True)
            except PermissionError:
                return open_file(folder, place[-1])

    def state_of(self, place: Place) -> os.stat_result | None:
        """The state of the entry; of the link itself for a link; None if it or one of its folders is missing. Raises
        OSError.
        """
        try:
            with self.opened(place[:-1]) as folder:
                return state_at(folder, place[-1])
        except FileNotFoundError:
            return None

    def is_at(self, descriptor: int, place: Place) -> bool:
        """Whether the open file is still at this place. Raises OSError."""
        there = self.state_of(place)
        return there is not None and os.path.samestat(os.fstat(descriptor), there)

    def remove(self, place: Place) -> None:
        """Raises OSError."""
        with self.opened(place[:-1]) as folder:
            os.unlink(place[-1], dir_fd=folder)

    def has_content(self, digest: Digest, size: int) -> bool:
        """Whether the content is stored with that size. After a power cut, a file may be shorter. Raises OSError."""
        there = self.state_of(self.content_of(digest))
        return there is not None and there.st_size == size

    def make_content(self, digest: Digest, source: Place, size: int) -> None:
        """Rename a complete file of that size to its place, or remove it if the content is stored. Raises OSError."""
        if self.has_content(digest, size):
            # For instance, the partial blob of another upstream was complete before. Only one copy is kept.
            self.remove(source)
            return
        target = self.content_of(digest)
        with self.opened(source[:-1]) as old, self.opened(target[:-1], make=True) as new:
            os.rename(source[-1], target[-1], src_dir_fd=old, dst_dir_fd=new)


def upstream_at(name: str) -> str:
    """The fingerprint of the upstream in the name of a partial blob. Other files give a text that no upstream has."""
    return name.partition("-")[0]


def digest_at(algorithm: str, start: str, encoded: str) -> Digest | None:
    """The digest in the names of a file and its folders; None for a file of another program."""
    try:
        digest = Digest.parse(f"{algorithm}:{encoded}")
    except DigestInvalid:
        return None
    return digest if start == digest.encoded[:2] else None


def is_verified(state: os.stat_result) -> bool:
    """Whether the file is marked as complete and verified: its mode lets no user write."""
    return not state.st_mode & (stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH)
