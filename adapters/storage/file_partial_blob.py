"""Partial blobs in files."""

import errno
import fcntl
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, wait
from contextlib import contextmanager, suppress
from functools import partial

from adapters.storage.folder import Place, StorageFolder, is_verified
from adapters.storage.open_files import DescriptorFile, portions, translated_errors, write
from adapters.storage.present_map import PresentBytes, PresentMap, has_map, read_map
from adapters.storage.running_hash import RunningHash
from adapters.storage.threads import HasThreads, Threads, in_thread
from adapters.storage.wanted_spans import announce, announced
from application.ports.lease import PartialBlobState
from domain.byte_ranges import Span
from domain.digest import Bytes, Digest
from domain.span_set import SpanSet

_BATCH = 1024 * 1024
"""Bytes for one write."""
_TURN_SECONDS = 0.1
"""After this time, `write` ends, so that other partial blobs can use the thread."""
_LARGE = 512 * 1024
"""A batch of this many bytes is hashed in another thread, while `write` writes the next one. It also waits briefly for
the next pieces. The event loop would otherwise be woken after nearly every batch of a fast download, only to start the
next write: over TLS, this costs a tenth of the speed.
"""
_PAUSES, _PAUSE_SECONDS = 6, 0.0005
"""How often it looks for them, and the seconds between two looks. If the event loop woke it, both would lose more."""
_WHOLE = 0o444
"""The mode of verified files."""


class FilePartialBlob(HasThreads):
    """Implements PartialBlob with a locked file."""

    def __init__(
        self,
        file: DescriptorFile,
        digest: Digest,
        place: Place,
        folder: StorageFolder,
        threads: Threads,
        hashers: Threads,
        last: PresentBytes | None,
    ) -> None:
        """`place`: where the file is. `hashers`: at least as many as `threads`, because each write may wait for one of
        them. `last`: what the map of the file contains; None if it has no gaps. Raises OSError.
        """
        self.file = file
        self._digest, self._place, self._folder, self.threads = digest, place, folder, threads
        self._map = PresentMap(file.descriptor, last.total, last) if last else None
        self._present = last.present if last else SpanSet.up_to(os.fstat(file.descriptor).st_size)
        self.total = last.total if last else None
        self._growing = threading.Lock()
        """Held while `present` changes together with the map or with the size of the file."""
        self._hashers = hashers
        self._hash = RunningHash(file.descriptor, digest)
        self._steps = threading.Condition()
        self._running = 0
        self._is_over = False
        self._ending = threading.Lock()

    @property
    def present(self) -> SpanSet:
        return self._present

    @in_thread
    @translated_errors("a partial blob cannot be written")
    def write(
        self,
        offset: int,
        pieces: deque[Bytes],
        expects_more: Callable[[], bool] = lambda: False,
        has_grown: Callable[[], None] = lambda: None,
    ) -> int:
        turn_ends = time.monotonic() + _TURN_SECONDS
        start = offset
        hashing: Future[None] | None = None
        try:
            while pieces:
                batch = self._write_batch(offset, pieces)
                size = _length(batch)
                if size >= _LARGE:
                    has_grown()
                hashing = self._hash_batch(offset, batch, turn_ends) or hashing
                offset += size
                del batch  # its buffers can be used again during the pauses
                if time.monotonic() >= turn_ends:
                    break
                if size >= _LARGE:
                    _wait_for_more(pieces, expects_more)
        finally:
            if hashing:
                wait([hashing])
        if hashing:
            hashing.result()
        return offset - start

    def _write_batch(self, offset: int, pieces: deque[Bytes]) -> Sequence[Bytes]:
        """Write the first batch of the queue, and return it. Raises OSError; the queue is then as before."""
        with self._step():
            self._folder.require_free_space_at(self.file.descriptor)
            batch = _taken(pieces)
            try:
                self._write(offset, batch)
            except OSError:
                pieces.extendleft(reversed(batch))
                raise
            return batch

    def _write(self, offset: int, batch: Sequence[Bytes]) -> None:
        """Write the batch, and record that it is present."""
        stop = offset + _length(batch)
        if self.total is not None and stop > self.total:
            raise OSError(errno.EFBIG, "bytes after the end of the blob")
        # If a write fails, the bytes that were written stay in the file: the next attempt writes the same bytes again,
        # and a process that follows may already have read them.
        with self._growing:
            if self._map is None and offset > self._present.beginning:
                self._map = self._new_map()
            if self._map is None:
                # Until the map is made, the size of the file says what is present. So no map is made meanwhile.
                write(self.file.descriptor, batch, offset)
                self._present = self._present.plus(Span(offset, stop))
                return
        write(self.file.descriptor, batch, offset)
        with self._growing:
            present = self._present.plus(Span(offset, stop))
            self._map.record(present)
            self._present = present

    def _new_map(self) -> PresentMap:
        if self.total is None:
            raise OSError(errno.EINVAL, "the length of the blob is not known")
        made = PresentMap(self.file.descriptor, self.total)
        made.record(self._present)
        return made

    def _hash_batch(self, offset: int, batch: Sequence[Bytes], turn_ends: float) -> Future[None] | None:
        """Hash the batch that was just written, unless a byte before it is missing. Returns the step that hashes it if
        this one does not. Raises OSError.
        """
        size, beginning = _length(batch), self._present.beginning
        if offset + size > beginning or not self._hash.add(offset, batch, beginning):
            return None
        if size < _LARGE:
            self._hash_on(turn_ends)
            return None
        return self._hashers.start(partial(self._hash_on, turn_ends))

    def _hash_on(self, turn_ends: float) -> None:
        """Hash what was added. Raises OSError."""
        with self._step():
            self._hash.run(turn_ends)

    @in_thread
    def holds(self, offset: int, content: Bytes) -> bool:
        with suppress(OSError), self._step():
            stored = b"".join(portions(self.file.descriptor, offset, offset + len(content)))
            return stored == content
        return False

    async def commit(self) -> bool:
        """Raises StorageRefused if bytes that are not hashed yet cannot be read; the lease then continues."""
        while (is_right := await self._commit_turn()) is None:
            pass
        return is_right

    @in_thread
    @translated_errors("a partial blob cannot be read")
    def _commit_turn(self) -> bool | None:
        """Returns None if bytes are left to hash."""
        if not self._is_over:
            with self._step():
                self._hash.catch_up(self._present.beginning, time.monotonic() + _TURN_SECONDS)
            if self._hash.size < self._present.beginning:
                return None
        return self._finish()

    def _finish(self) -> bool:
        with self._ending:
            if not self._stop():
                return False
            if not self._is_right():
                self._let_go(keep=False)
                return False
            # There is no fsync: it would delay the end of each download until the disk has written the whole file. If a
            # power cut shortens a file, its size differs from the size in the index.
            try:
                # This removes the map. The mark stays until the next step: a process that follows then sees no change.
                os.ftruncate(self.file.descriptor, self._hash.size)
                # Before the rename: the mode tells the processes that follow that the bytes are right.
                os.fchmod(self.file.descriptor, _WHOLE)
                if self._folder.is_at(self.file.descriptor, self._place):
                    self._folder.make_content(self._digest, self._place, self._hash.size)
            except OSError:
                # The bytes are right, but cannot be stored; readers that have the file open continue.
                self._let_go(keep=False)
            else:
                self._let_go(keep=True)
            return True

    def _is_right(self) -> bool:
        """Whether no byte is missing and the digest is right. Without a map there are no gaps; the length may then be
        unknown, and the digest alone shows whether the end is missing.
        """
        is_without_gaps = self._hash.size == self._present.length
        is_whole = self._map is None or self._hash.size == self._map.total
        return is_without_gaps and is_whole and self._hash.is_right

    def end(self, *, keep: bool) -> None:
        """End the lease, in this thread, after the running steps have ended. Does nothing if the lease has ended."""
        with self._ending:
            if self._stop():
                self._let_go(keep=keep)

    @contextmanager
    def _step(self) -> Iterator[None]:
        """Something that uses the descriptor. `end` waits for it. Raises OSError if the lease has ended."""
        with self._steps:
            if self._is_over:
                # Writing now would change verified content, or the partial blob of another process.
                raise OSError(errno.EBADF, "its lease has ended")
            self._running += 1
        try:
            yield
        finally:
            with self._steps:
                self._running -= 1
                self._steps.notify_all()

    def _stop(self) -> bool:
        """No other step begins, and no step is running. Returns False if the lease has already ended."""
        with self._steps:
            if self._is_over:
                return False
            self._is_over = True
            self._hash.stop()
            self._steps.wait_for(lambda: not self._running)
            return True

    def _let_go(self, *, keep: bool) -> None:
        with suppress(OSError):
            if not keep and self._folder.is_at(self.file.descriptor, self._place):
                self._folder.remove(self._place)
        with suppress(OSError):
            fcntl.flock(self.file.descriptor, fcntl.LOCK_UN)

    def wanted(self) -> SpanSet:
        """The bytes that readers in other processes wait for."""
        return announced(self.file.descriptor)


class FollowedFilePartialBlob:
    """Implements FollowedPartialBlob."""

    def __init__(self, file: DescriptorFile) -> None:
        self.file = file
        self._last: tuple[SpanSet, int | None] = SpanSet(), None

    def look(self) -> PartialBlobState:
        state = os.fstat(self.file.descriptor)
        # The kernel does not read the mode, the size and the number of names at one moment. The size is that of a file
        # without gaps if a later look finds no mark. The file was discarded if it has no name and a later look finds
        # it not verified.
        later = os.fstat(self.file.descriptor)
        whole = is_verified(later)
        if whole:
            self._last = SpanSet.up_to(later.st_size), later.st_size
        elif not has_map(later):
            self._last = SpanSet.up_to(state.st_size), None
        else:
            with suppress(OSError):
                if content := read_map(self.file.descriptor, later.st_size):
                    self._last = content.present, content.total
        return PartialBlobState(*self._last, whole, state.st_nlink == 0 and not whole)

    def want(self, spans: SpanSet) -> None:
        announce(self.file.descriptor, spans)


def _length(batch: Sequence[Bytes]) -> int:
    return sum(len(piece) for piece in batch)


def _wait_for_more(pieces: deque[Bytes], expects_more: Callable[[], bool]) -> None:
    for _ in range(_PAUSES):
        if pieces or not expects_more():
            break
        time.sleep(_PAUSE_SECONDS)


def _taken(pieces: deque[Bytes]) -> list[Bytes]:
    """Take the first batch from the queue. Other threads only add to it."""
    taken: list[Bytes] = []
    size = 0
    while pieces and size < _BATCH:
        taken.append(pieces.popleft())
        size += len(taken[-1])
    return taken
