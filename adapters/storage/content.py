"""Content in files, each under its digest."""

import fcntl
import os
from contextlib import suppress
from functools import partial
from pathlib import Path

from adapters.storage.folder import Place, StorageFolder, is_verified
from adapters.storage.open_files import DescriptorFile, FileContent, refusal_of, write
from adapters.storage.partial_blobs import FileDownloadLease, FilePartialBlob, FollowedFilePartialBlob
from adapters.storage.threads import Threads
from domain.digest import Digest
from domain.upstreams import Upstream

_ATTEMPTS = 100
"""How often the partial blob may be removed before we lock it; each time another process has made progress."""


class FilesystemContentStore:
    """Implements ContentStore and DownloadLeases, for all processes that use the folder. Local file systems only."""

    def __init__(self, folder: Path, reserve: int = 0, threads: int = 8) -> None:
        """`reserve`: bytes of the file system that are left to others."""
        self._folder = StorageFolder(folder, reserve)
        self._threads = Threads(threads, "content")
        self._writers = Threads(threads, "partial")  # apart: opening content must not wait for writes to a slow disk

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
        self._folder.demand_room()
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

    async def lease(
        self, upstream: Upstream, digest: Digest, *, anew: bool = False
    ) -> FileDownloadLease | FollowedFilePartialBlob | None:
        try:
            return await self._threads.run(partial(self._lease, upstream, digest, anew=anew), _let_go)
        except OSError as error:
            raise refusal_of("a partial blob cannot be opened", error) from error

    def _lease(
        self, upstream: Upstream, digest: Digest, *, anew: bool
    ) -> FileDownloadLease | FollowedFilePartialBlob | None:
        for _ in range(_ATTEMPTS):
            if not anew and self._folder.state_of(self._folder.content_of(digest)):
                return None
            self._folder.demand_room()
            place = self._folder.partial_blob_of(upstream, digest)
            file = DescriptorFile(self._folder.open_to_write(place), self._threads)
            try:
                lease = self._take(digest, place, file, anew=anew)
            except BaseException:
                file.close()
                raise
            if lease is not None:
                return lease
            file.close()
        raise BlockingIOError(0, "other processes make and remove it all the time")

    def _take(
        self, digest: Digest, place: Place, file: DescriptorFile, *, anew: bool
    ) -> FileDownloadLease | FollowedFilePartialBlob | None:
        """The lease of the open partial blob, or the one to follow; None where the file is no partial blob any more."""
        try:
            fcntl.flock(file.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            followed = FollowedFilePartialBlob(file)
            return None if followed.look().is_discarded else followed
        if not self._folder.is_at(file.descriptor, place):
            return None
        is_whole = is_verified(os.fstat(file.descriptor))
        if (is_whole or not anew) and self._folder.state_of(self._folder.content_of(digest)):
            # It became content between our look and our opening, or from another upstream's partial blob.
            self._folder.remove(place)
            return None
        if is_whole:
            # The process that downloaded it ended before the last step.
            self._folder.make_content(digest, place)
            return None
        partial_blob = FilePartialBlob(file, digest, place, self._folder, self._writers)
        return FileDownloadLease(partial_blob, self._writers)

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


def _let_go(lease: FileDownloadLease | FollowedFilePartialBlob | None) -> None:
    """Of a lease for which no request waits any more."""
    if isinstance(lease, FileDownloadLease):
        lease.partial_blob.end(keep=True)
        lease.partial_blob.file.close()
    elif lease is not None:
        lease.file.close()
