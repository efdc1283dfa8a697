"""Partial blobs in files, and the locks on them that are the leases."""

import errno
import fcntl
import os
import time
from collections import deque
from contextlib import suppress
from functools import partial

from adapters.storage.folder import Place, StorageFolder, is_verified
from adapters.storage.open_files import DescriptorFile, portions, refusal_of, write
from adapters.storage.threads import Threads
from application.ports.lease import PartialBlobState
from domain.digest import Bytes, Digest, DigestCheck

_BATCH = 1024 * 1024
"""Bytes for one write."""
_TURN_SECONDS = 0.1
"""Then another partial blob has the thread."""
_WHOLE = 0o444
"""The mode of verified files."""


class FilePartialBlob:
    """Implements PartialBlob, with a file that is locked."""

    def __init__(
        self, file: DescriptorFile, digest: Digest, place: Place, folder: StorageFolder, threads: Threads
    ) -> None:
        """`place`: where the file is. Hashes what is there already. Raises OSError."""
        self.file = file
        self._digest, self._place, self._folder, self._threads = digest, place, folder, threads
        self._check = DigestCheck(digest)
        self._is_over = False
        for portion in portions(file.descriptor, 0, os.fstat(file.descriptor).st_size):
            self._check.update(portion)
        self.size = self._check.size

    async def append(self, pieces: deque[Bytes]) -> None:
        try:
            await self._threads.run(partial(self._append, pieces))
        except OSError as error:
            raise refusal_of("a partial blob cannot be written", error) from error

    def _append(self, pieces: deque[Bytes]) -> None:
        turn_ends = time.monotonic() + _TURN_SECONDS
        while pieces:
            if self._is_over:
                # A write would change verified content, or the partial blob of another process.
                raise OSError(errno.EBADF, "its lease has ended")
            self._folder.demand_room()
            batch = _taken(pieces)
            try:
                # What is written of them when this fails stays where it is: the next try writes the same over it, and
                # a process that follows may have read it by now.
                write(self.file.descriptor, batch, self.size)
            except OSError:
                pieces.extendleft(reversed(batch))
                raise
            for piece in batch:
                self._check.update(piece)
            self.size = self._check.size
            if time.monotonic() >= turn_ends:
                break

    async def holds(self, offset: int, content: Bytes) -> bool:
        return await self._threads.run(partial(self._holds, offset, content))

    def _holds(self, offset: int, content: Bytes) -> bool:
        place, view = 0, memoryview(content)
        try:
            for portion in portions(self.file.descriptor, offset, offset + len(content)):
                if view[place : place + len(portion)] != portion:
                    return False
                place += len(portion)
        except OSError:
            return False
        return place == len(content)

    async def commit(self) -> bool:
        return await self._threads.run(self._commit)

    def _commit(self) -> bool:
        if self._is_over or not self._check.holds:
            self.end(keep=False)
            return False
        # Nothing is synced: that would hold back the last piece of each download for as long as the disk takes to write
        # the whole. What a power cut takes from a file is missing from its size, which the index knows.
        try:
            os.ftruncate(self.file.descriptor, self.size)
            # First of all, for this is how followers in other processes learn that what they have is right.
            os.fchmod(self.file.descriptor, _WHOLE)
            if self._folder.is_at(self.file.descriptor, self._place):
                self._make_content()
        except OSError:
            # The bytes are right, but cannot be stored; readers that have the file open continue.
            self.end(keep=False)
        self.end(keep=True)
        return True

    def _make_content(self) -> None:
        """Raises OSError."""
        if self._folder.has_content(self._digest, self.size):
            # The partial blob of another upstream was whole before this one. One copy is kept.
            self._folder.remove(self._place)
        else:
            self._folder.make_content(self._digest, self._place)

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


class FileDownloadLease:
    """Implements DownloadLease: the lock on the file of the partial blob. The kernel ends it with the process."""

    def __init__(self, partial_blob: FilePartialBlob, threads: Threads) -> None:
        self.partial_blob = partial_blob
        self._threads = threads

    async def release(self, *, keep: bool) -> None:
        await self._threads.run(partial(self.partial_blob.end, keep=keep))


class FollowedFilePartialBlob:
    """Implements FollowedPartialBlob."""

    def __init__(self, file: DescriptorFile) -> None:
        self.file = file

    def look(self) -> PartialBlobState:
        state = os.fstat(self.file.descriptor)
        whole = is_verified(state)
        # A file without a name that is not verified: the process with the lease has discarded it.
        return PartialBlobState(state.st_size, whole, state.st_nlink == 0 and not whole)


def _taken(pieces: deque[Bytes]) -> list[Bytes]:
    """The first batch of the queue, which others only add to."""
    taken: list[Bytes] = []
    size = 0
    while pieces and size < _BATCH:
        taken.append(pieces.popleft())
        size += len(taken[-1])
    return taken
