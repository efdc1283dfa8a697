"""RunningHash: the hash of a partial blob, which follows the bytes that are written."""

import errno
import threading
import time
from collections.abc import Sequence

from adapters.storage.open_files import PORTION_BYTES, portions
from domain.digest import Bytes, Digest, DigestCheck


class RunningHash:
    """Hashes the beginning of a file, as far as it is written, in the order of its bytes and in one thread at a time.
    Batches that were just written are hashed from memory; only what was written in another order is read again.
    """

    def __init__(self, descriptor: int, digest: Digest) -> None:
        """`digest`: what the hash is compared with."""
        self._descriptor = descriptor
        self._check = DigestCheck(digest)
        self._changes = threading.Condition()
        self._batches: dict[int, Sequence[Bytes]] = {}
        """Batches in memory that are not hashed yet, by their offset."""
        self._wanted = 0
        """The bytes up to this offset are to be hashed."""
        self._is_running = self._is_stopped = False

    @property
    def size(self) -> int:
        """The number of bytes that are hashed."""
        return self._check.size

    @property
    def is_right(self) -> bool:
        """Whether the hashed bytes match the digest."""
        return self._check.holds

    def add(self, offset: int, batch: Sequence[Bytes], stop: int) -> bool:
        """All bytes up to `stop` are written; the last ones that were missing are this batch. Returns whether the
        caller must call `run`; otherwise another thread hashes them, too. Waits while that thread has another batch to
        hash, so that only few bytes are in memory.
        """
        with self._changes:
            self._changes.wait_for(lambda: not (self._is_running and self._batches) or self._is_stopped)
            self._batches[offset] = batch
            self._wanted = max(self._wanted, stop)
            is_free, self._is_running = not self._is_running, True
            return is_free

    def run(self, turn_ends: float) -> None:
        """Hash what was added, also by other threads meanwhile, until `turn_ends` (of time.monotonic). The next run
        hashes the rest. Raises OSError.
        """
        while self._has_more():
            try:
                self._hash_some()
            except BaseException:
                self._pause()
                raise
            if time.monotonic() >= turn_ends:
                self._pause()
                break

    def catch_up(self, stop: int, turn_ends: float) -> None:
        """As `run`, for all bytes up to `stop`."""
        with self._changes:
            self._changes.wait_for(lambda: not self._is_running or self._is_stopped)
            self._wanted, self._is_running = stop, True
        self.run(turn_ends)

    def stop(self) -> None:
        """Ends a run after its current step. No call waits any more."""
        with self._changes:
            self._is_stopped = True
            self._changes.notify_all()

    def _has_more(self) -> bool:
        """Whether the run goes on. Ends it in the same step, so that no added batch is left to a run that has ended."""
        with self._changes:
            has_more = self._check.size < self._wanted and not self._is_stopped
            if not has_more:
                self._pause()
            return has_more

    def _pause(self) -> None:
        with self._changes:
            self._is_running = False
            self._changes.notify_all()

    def _hash_some(self) -> None:
        """Hash the next batch that is in memory. If the next bytes are not, read a portion of them from the file."""
        batch, stop = self._next()
        if batch is None:
            self._hash_again(stop)
        else:
            for piece in batch:
                self._check.update(piece)

    def _next(self) -> tuple[Sequence[Bytes] | None, int]:
        """The next batch in memory; or None, and the end of the bytes that must be read."""
        size = self._check.size
        with self._changes:
            batch = self._batches.pop(size, None)
            self._batches = {offset: later for offset, later in self._batches.items() if offset > size}
            self._changes.notify_all()
            return batch, min(self._wanted, size + PORTION_BYTES, *self._batches)

    def _hash_again(self, stop: int) -> None:
        hashed = self._check.size
        for portion in portions(self._descriptor, hashed, stop):
            self._check.update(portion)
        if self._check.size == hashed:
            raise OSError(errno.EIO, "the file is shorter than it was")
