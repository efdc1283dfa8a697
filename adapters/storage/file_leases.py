"""Download leases as locks on files, and the partial blobs in those files."""

import errno
import fcntl
import os
import time
from collections import deque
from contextlib import suppress
from functools import partial

from adapters.storage.folder import Place, StorageFolder, is_verified
from adapters.storage.open_files import DescriptorFile, portions, translated_errors, write
from adapters.storage.threads import HasThreads, Threads, in_thread
from application.ports.lease import PartialBlobState
from domain.digest import Bytes, Digest, DigestCheck
from domain.upstreams import Upstream

_BATCH = 1024 * 1024
"""Bytes for one write."""
_TURN_SECONDS = 0.1
"""After this time, `append` ends, so that other partial blobs can use the thread."""
_WHOLE = 0o444
"""The mode of verified files."""
_ATTEMPTS = 100
"""How often other processes may remove the file between our opening and our lock before we give up."""


class FilePartialBlob(HasThreads):
    """Implements PartialBlob with a locked file."""

    def __init__(
        self, file: DescriptorFile, digest: Digest, place: Place, folder: StorageFolder, threads: Threads
    ) -> None:
        """`place`: where the file is. Hashes the bytes that it already contains. Raises OSError."""
        self.file = file
        self._digest, self._place, self._folder, self.threads = digest, place, folder, threads
        self._check = DigestCheck(digest)
        self._is_over = False
        for portion in portions(file.descriptor, 0, os.fstat(file.descriptor).st_size):
            self._check.update(portion)
        self.size = self._check.size

    @in_thread
    @translated_errors("a partial blob cannot be written")
    def append(self, pieces: deque[Bytes]) -> None:
        turn_ends = time.monotonic() + _TURN_SECONDS
        while pieces:
            if self._is_over:
                # Writing now would change verified content, or the partial blob of another process.
                raise OSError(errno.EBADF, "its lease has ended")
            self._folder.require_free_space()
            batch = _taken(pieces)
            try:
                # If this fails, the bytes that were written stay in the file: the next attempt writes the same bytes
                # again, and a process that follows may already have read them.
                write(self.file.descriptor, batch, self.size)
            except OSError:
                pieces.extendleft(reversed(batch))
                raise
            for piece in batch:
                self._check.update(piece)
            self.size = self._check.size
            if time.monotonic() >= turn_ends:
                break

    @in_thread
    def holds(self, offset: int, content: Bytes) -> bool:
        with suppress(OSError):
            stored = b"".join(portions(self.file.descriptor, offset, offset + len(content)))
            return stored == content
        return False

    @in_thread
    def commit(self) -> bool:
        if self._is_over or not self._check.holds:
            self.end(keep=False)
            return False
        # There is no fsync: it would delay the end of each download until the disk has written the whole file. If a
        # power cut shortens a file, its size differs from the size in the index.
        try:
            os.ftruncate(self.file.descriptor, self.size)
            # Before the rename: the mode tells the processes that follow that the bytes are right.
            os.fchmod(self.file.descriptor, _WHOLE)
            if self._folder.is_at(self.file.descriptor, self._place):
                self._folder.make_content(self._digest, self._place, self.size)
        except OSError:
            # The bytes are right, but cannot be stored; readers that have the file open continue.
            self.end(keep=False)
        self.end(keep=True)
        return True

    def end(self, *, keep: bool) -> None:
        """End the lease, in this thread. Does nothing if the lease has ended."""
        if self._is_over:
            return
        self._is_over = True
        with suppress(OSError):
            if not keep and self._folder.is_at(self.file.descriptor, self._place):
                self._folder.remove(self._place)
        with suppress(OSError):
            fcntl.flock(self.file.descriptor, fcntl.LOCK_UN)


class FileDownloadLease(HasThreads):
    """Implements DownloadLease: the lock on the file of the partial blob. The kernel ends it with the process."""

    def __init__(self, partial_blob: FilePartialBlob, threads: Threads) -> None:
        self.partial_blob, self.threads = partial_blob, threads

    @in_thread
    def release(self, *, keep: bool) -> None:
        self.partial_blob.end(keep=keep)


class FollowedFilePartialBlob:
    """Implements FollowedPartialBlob."""

    def __init__(self, file: DescriptorFile) -> None:
        self.file = file

    def look(self) -> PartialBlobState:
        state = os.fstat(self.file.descriptor)
        whole = is_verified(state)
        # If the file has no name and is not verified, the process with the lease has discarded it.
        return PartialBlobState(state.st_size, whole, state.st_nlink == 0 and not whole)


class FileDownloadLeases:
    """Implements DownloadLeases with locks on files. Only for local file systems: network file systems lose locks."""

    def __init__(self, folder: StorageFolder, threads: Threads, writers: Threads) -> None:
        """`threads` open and read files, `writers` write to them."""
        self._folder, self._threads, self._writers = folder, threads, writers

    async def lease(
        self, upstream: Upstream, digest: Digest, *, refetch: bool = False
    ) -> FileDownloadLease | FollowedFilePartialBlob | None:
        return await self._threads.run(partial(self._lease, upstream, digest, refetch=refetch), _let_go)

    @translated_errors("a partial blob cannot be opened")
    def _lease(
        self, upstream: Upstream, digest: Digest, *, refetch: bool
    ) -> FileDownloadLease | FollowedFilePartialBlob | None:
        for _ in range(_ATTEMPTS):
            if not refetch and self._folder.state_of(self._folder.content_of(digest)):
                return None
            self._folder.require_free_space()
            place = self._folder.partial_blob_of(upstream, digest)
            file = DescriptorFile(self._folder.open_to_write(place), self._threads)
            try:
                lease = self._take(digest, place, file, refetch=refetch)
            except BaseException:
                file.close()
                raise
            if lease is not None:
                return lease
            file.close()
        raise BlockingIOError(0, "other processes make and remove it all the time")

    def _take(
        self, digest: Digest, place: Place, file: DescriptorFile, *, refetch: bool
    ) -> FileDownloadLease | FollowedFilePartialBlob | None:
        """The lease of the open partial blob, or the one to follow; None if the file is not a partial blob any more."""
        try:
            fcntl.flock(file.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            followed = FollowedFilePartialBlob(file)
            return None if followed.look().is_discarded else followed
        if not self._folder.is_at(file.descriptor, place):
            return None
        state = os.fstat(file.descriptor)
        if is_verified(state):
            # The process that downloaded it ended before it renamed the file.
            self._folder.make_content(digest, place, state.st_size)
            return None
        if not refetch and self._folder.state_of(self._folder.content_of(digest)):
            # It became content after our first check, or the partial blob of another upstream became content.
            self._folder.remove(place)
            return None
        partial_blob = FilePartialBlob(file, digest, place, self._folder, self._writers)
        return FileDownloadLease(partial_blob, self._writers)


def _taken(pieces: deque[Bytes]) -> list[Bytes]:
    """Take the first batch from the queue. Other threads only add to it."""
    taken: list[Bytes] = []
    size = 0
    while pieces and size < _BATCH:
        taken.append(pieces.popleft())
        size += len(taken[-1])
    return taken


def _let_go(lease: FileDownloadLease | FollowedFilePartialBlob | None) -> None:
    """Give up a lease, because the request that waited for it was cancelled."""
    if isinstance(lease, FileDownloadLease):
        lease.partial_blob.end(keep=True)
        lease.partial_blob.file.close()
    elif lease is not None:
        lease.file.close()
