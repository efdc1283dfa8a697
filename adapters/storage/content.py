"""Content in files, each under its digest."""

import os
from contextlib import suppress
from functools import partial
from pathlib import Path

from adapters.storage.folder import StorageFolder
from adapters.storage.open_files import DescriptorFile, FileContent, refusal_of, write
from adapters.storage.partial_blobs import FileDownloadLeases
from adapters.storage.threads import Threads
from domain.digest import Digest


class FilesystemContentStore:
    """Implements ContentStore, for all processes that use the folder. `leases` gives the leases of the same folder."""

    def __init__(self, folder: Path, reserve: int = 0, threads: int = 8) -> None:
        """`reserve`: bytes of the file system that are left to others."""
        self._folder = StorageFolder(folder, reserve)
        self._threads = Threads(threads, "content")
        # Apart: opening content must not wait for writes to a slow disk.
        self._writers = Threads(threads, "partial")
        self.leases = FileDownloadLeases(self._folder, self._threads, self._writers)

    def close(self) -> None:
        """It cannot be used afterwards."""
        self._threads.close()
        self._writers.close()

    async def open(self, digest: Digest) -> FileContent | None:
        try:
            return await self._threads.run(partial(self._open, digest), _close)
        except OSError:
            # Content that cannot be opened is downloaded again. The lease shows then whether it can be stored.
            return None

    def _open(self, digest: Digest) -> FileContent:
        descriptor = self._folder.open_to_read(self._folder.content_of(digest))
        return FileContent(DescriptorFile(descriptor, self._threads), os.fstat(descriptor).st_size)

    async def put(self, digest: Digest, content: bytes) -> None:
        try:
            await self._threads.run(partial(self._put, digest, content))
        except OSError as error:
            raise refusal_of("content cannot be kept", error) from error

    def _put(self, digest: Digest, content: bytes) -> None:
        if self._folder.has_content(digest, len(content)):
            return
        self._folder.require_free_space()
        descriptor, place = self._folder.open_temporary()
        try:
            write(descriptor, [content], 0)
            os.fchmod(descriptor, 0o444)
            self._folder.make_content(digest, place)
        except OSError:
            with suppress(OSError):
                self._folder.remove(place)
            raise
        finally:
            os.close(descriptor)

    async def drop(self, digest: Digest) -> int:
        try:
            return await self._threads.run(partial(self._drop, digest))
        except OSError:
            return 0

    def _drop(self, digest: Digest) -> int:
        place = self._folder.content_of(digest)
        there = self._folder.state_of(place)
        if there is None:
            return 0
        self._folder.remove(place)
        return there.st_size


def _close(content: FileContent) -> None:
    content.file.close()
