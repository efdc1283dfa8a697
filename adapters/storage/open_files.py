"""Open files and the content in them."""

import errno
import os
from collections.abc import Iterator, Sequence
from functools import partial

from adapters.storage.threads import Threads
from application.ports.content import StorageFailed, StorageFull, StorageRefused
from application.ports.file_backed import FileBacked
from domain.digest import Bytes

_PIECES = 1024
"""As many buffers as Linux takes in one call (UIO_MAXIOV)."""

_PORTION = 1 << 20
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT}


class DescriptorFile(FileBacked):
    """Implements OpenFile."""

    def __init__(self, descriptor: int, threads: Threads) -> None:
        """Raises OSError."""
        self.descriptor = descriptor
        state = os.fstat(descriptor)
        self.identity: object = (state.st_dev, state.st_ino)
        self._threads = threads

    async def read(self, start: int, stop: int) -> bytes:
        try:
            return await self._threads.run(partial(_read, self.descriptor, start, stop))
        except OSError as error:
            raise refusal_of("a file cannot be read", error) from error

    def close(self) -> None:
        # A later use must fail: the next file that is opened gets the old number.
        descriptor, self.descriptor = self.descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


class FileContent:
    """Implements StoredContent."""

    def __init__(self, file: DescriptorFile, size: int) -> None:
        self.file = file
        self.size = size

    async def read(self) -> bytes:
        return await self.file.read(0, self.size)


def refusal_of(what: str, error: OSError) -> StorageRefused:
    """The error of the port for one of the operating system. `what` did not work, for people to read."""
    kind = StorageFull if error.errno in _NO_ROOM else StorageFailed
    return kind(f"{what}: {error.strerror or error}")


def portions(descriptor: int, start: int, stop: int) -> Iterator[bytes]:
    """The file's bytes; fewer where it is shorter. Raises OSError."""
    while start < stop and (portion := os.pread(descriptor, min(_PORTION, stop - start), start)):
        yield portion
        start += len(portion)


def write(descriptor: int, pieces: Sequence[Bytes], offset: int) -> None:
    """Write all pieces from the offset on. Raises OSError, with some of them written."""
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


def _read(descriptor: int, start: int, stop: int) -> bytes:
    return b"".join(portions(descriptor, start, stop))
