"""Open files, and the errors of the operating system as the errors of the ports."""

import errno
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from adapters.storage.threads import HasThreads, Threads, in_thread
from application.ports.content import StorageFailed, StorageFull
from application.ports.file_backed import FileBacked
from domain.digest import Bytes, DigestCheck

_PIECES = 1024
"""As many buffers as Linux takes in one call (UIO_MAXIOV)."""

PORTION_BYTES = 1 << 20
"""The most bytes that `portions` reads at once."""


@contextmanager
def translated_errors(what: str) -> Iterator[None]:
    """Raises StorageFull or StorageFailed instead of OSError. `what`: the failed operation, for the message."""
    try:
        yield
    except OSError as error:
        kind = StorageFull if error.errno in {errno.ENOSPC, errno.EDQUOT} else StorageFailed
        raise kind(f"{what}: {error.strerror or error}") from error


class DescriptorFile(FileBacked, HasThreads):
    """Implements OpenFile."""

    def __init__(self, descriptor: int, threads: Threads) -> None:
        """Raises OSError."""
        self.descriptor, self.threads = descriptor, threads
        state = os.fstat(descriptor)
        self.identity: object = (state.st_dev, state.st_ino)

    @in_thread
    @translated_errors("a file cannot be read")
    def read(self, start: int, stop: int) -> bytes:
        return b"".join(portions(self.descriptor, start, stop))

    @in_thread
    @translated_errors("a file cannot be read")
    def hash(self, check: DigestCheck, start: int, stop: int) -> None:
        for portion in portions(self.descriptor, start, stop):
            check.update(portion)  # other threads run meanwhile: hashlib needs no lock of the interpreter

    def close(self) -> None:
        # Later uses must fail, because the next file that is opened gets the same number.
        descriptor, self.descriptor = self.descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


def portions(descriptor: int, start: int, stop: int) -> Iterator[bytes]:
    """The bytes of the file from `start` to `stop`, or to its end. Raises OSError."""
    while start < stop and (portion := os.pread(descriptor, min(PORTION_BYTES, stop - start), start)):
        yield portion
        start += len(portion)


def write(descriptor: int, pieces: Sequence[Bytes], offset: int) -> None:
    """Write all pieces, starting at the offset. If it raises OSError, some of them may be written."""
    views = [memoryview(piece) for piece in pieces if piece]
    place = 0
    while place < len(views):
        written = os.pwritev(descriptor, views[place : place + _PIECES], offset)
        offset += written
        while place < len(views) and written >= len(views[place]):
            written -= len(views[place])
            place += 1
        if written:
            views[place] = views[place][written:]
