"""Content in files, each under its digest."""

import os
import secrets
from contextlib import suppress
from functools import partial
from pathlib import Path

from adapters.storage.file_leases import FileDownloadLeases
from adapters.storage.folder import TEMPORARY, StorageFolder
from adapters.storage.open_files import DescriptorFile, translated_errors, write
from adapters.storage.threads import HasThreads, Threads, in_thread
from application.ports.content import StoredContent
from domain.digest import Digest


class FilesystemContentStore(HasThreads):
    """Implements ContentStore, for all processes that use the folder. `leases` gives the leases of the same folder."""

    def __init__(self, folder: Path, reserve: int = 0, threads: int = 8) -> None:
        """`reserve`: bytes of the file system that the cache leaves free."""
        self._folder = StorageFolder(folder, reserve)
        self.threads: Threads = Threads(threads, "content")
        # Separate threads: opening content must not wait for writes to a slow disk.
        self._writers, self._hashers = Threads(threads, "partial"), Threads(threads, "hash")
        self.leases = FileDownloadLeases(self._folder, self.threads, self._writers, self._hashers)

    def close(self) -> None:
        """The store cannot be used afterwards."""
        self.threads.close()
        self._writers.close()
        self._hashers.close()

    async def open(self, digest: Digest) -> StoredContent | None:
        return await self.threads.run(partial(self._open, digest), _close)

    def _open(self, digest: Digest) -> StoredContent | None:
        try:
            descriptor = self._folder.open_to_read(self._folder.content_of(digest))
            return StoredContent(DescriptorFile(descriptor, self.threads), os.fstat(descriptor).st_size)
        except OSError:
            # Content that cannot be opened is downloaded again; taking the lease then shows whether it can be stored.
            return None

    @in_thread
    @translated_errors("content cannot be kept")
    def put(self, digest: Digest, content: bytes) -> None:
        if self._folder.has_content(digest, len(content)):
            return
        self._folder.require_free_space()
        place = TEMPORARY, secrets.token_hex(8)
        descriptor = self._folder.open_to_write(place)
        try:
            write(descriptor, [content], 0)
            os.fchmod(descriptor, 0o444)
            self._folder.make_content(digest, place, len(content))
        except OSError:
            with suppress(OSError):
                self._folder.remove(place)
            raise
        finally:
            os.close(descriptor)

    @in_thread
    def drop(self, digest: Digest) -> int:
        place = self._folder.content_of(digest)
        with suppress(OSError):
            there = self._folder.state_of(place)
            if there is not None:
                self._folder.remove(place)
                return there.st_size
        return 0


def _close(content: StoredContent | None) -> None:
    if content is not None:
        content.file.close()
