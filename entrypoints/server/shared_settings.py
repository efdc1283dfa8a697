"""SharedSettings: where the main process posts new settings, and its workers take them from."""

import hashlib
import mmap
import os
import pickle
from contextlib import suppress
from typing import NamedTuple

from entrypoints.settings import Settings

_NUMBER_BYTES = 8
_DIGEST_BYTES = 32


class Posted(NamedTuple):
    number: int
    settings: Settings


class SharedSettings:
    """Made before the workers are forked. All take what one has read and found good: were each to read the files for
    itself, they might read different ones, and each would make a SERVER_SECRET of its own where none is set.

    The sheet is memory without a name, which only the processes of this service have; so what is unpickled from it was
    pickled here, and secrets on it never reach a disk. A bell is no signal, which would need to be sent to a process
    that may just be dying or being born: it goes on ringing until whoever is the worker of this row hears it.
    """

    def __init__(self, workers: int) -> None:
        self._sheet = os.memfd_create("settings")
        self._bells = [os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC) for _ in range(workers)]
        # Of each worker's answer to the last post: twice its number, and one more where it could not be taken.
        self._answers = memoryview(mmap.mmap(-1, workers * _NUMBER_BYTES)).cast("Q")
        self.number = 0
        """Of the settings that this process has, or was forked with."""

    # --- for the main process ---

    def post(self, settings: Settings) -> None:
        self.number += 1
        text = pickle.dumps(Posted(self.number, settings))
        os.ftruncate(self._sheet, 0)
        os.pwrite(self._sheet, hashlib.sha256(text).digest() + text, 0)
        for bell in self._bells:
            with suppress(BlockingIOError):  # it rings as loud as it can
                os.eventfd_write(bell, 1)

    @property
    def is_answered(self) -> bool:
        """Whether every worker has said what became of the last post."""
        return all(answer // 2 == self.number for answer in self._answers)

    @property
    def missing(self) -> int:
        """How many workers have not taken it."""
        return sum(answer != 2 * self.number for answer in self._answers)

    # --- for the worker of a row ---

    def bell(self, row: int) -> int:
        """The descriptor that is readable while it rings."""
        return self._bells[row]

    def hear(self, row: int) -> None:
        """It has been heard."""
        with suppress(BlockingIOError):
            os.eventfd_read(self._bells[row])

    def read(self) -> Posted | None:
        """None while it is being written; it rings again when it is whole."""
        content = os.pread(self._sheet, os.fstat(self._sheet).st_size, 0)
        digest, text = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
        if not text or hashlib.sha256(text).digest() != digest:
            return None
        posted: Posted = pickle.loads(text)  # noqa: S301 - see above
        return posted

    def answer(self, row: int, number: int, *, taken: bool) -> None:
        self._answers[row] = 2 * number + (not taken)
