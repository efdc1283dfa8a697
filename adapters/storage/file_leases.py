"""Download leases as locks on files."""

import fcntl
import os
from functools import partial

from adapters.storage.file_partial_blob import FilePartialBlob, FollowedFilePartialBlob
from adapters.storage.folder import Place, StorageFolder, is_verified
from adapters.storage.open_files import DescriptorFile, translated_errors
from adapters.storage.present_map import has_map, read_map
from adapters.storage.threads import HasThreads, Threads, in_thread
from domain.digest import Digest
from domain.span_set import SpanSet
from domain.upstreams import Upstream

_ATTEMPTS = 100
"""How often other processes may remove the file between our opening and our lock before we give up."""


class FileDownloadLease(HasThreads):
    """Implements DownloadLease: the lock on the file of the partial blob. The kernel ends it with the process."""

    def __init__(self, partial_blob: FilePartialBlob, threads: Threads) -> None:
        self.partial_blob, self.threads = partial_blob, threads

    def wanted(self) -> SpanSet:
        return self.partial_blob.wanted()

    @in_thread
    def release(self, *, keep: bool) -> None:
        self.partial_blob.end(keep=keep)


class FileDownloadLeases:
    """Implements DownloadLeases with locks on files. Only for local file systems: network file systems lose locks."""

    def __init__(self, folder: StorageFolder, threads: Threads, writers: Threads, hashers: Threads) -> None:
        """`threads` open and read files, `writers` write to them, and `hashers` hash what is written."""
        self._folder, self._threads, self._writers, self._hashers = folder, threads, writers, hashers

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
        last = read_map(file.descriptor, state.st_size) if has_map(state) else None
        if has_map(state) and last is None:
            # The process was killed while it made the map. Which bytes are present is not known. Another file replaces
            # this one, because processes that follow may have read old bytes from it.
            self._folder.remove(place)
            return None
        partial_blob = FilePartialBlob(file, digest, place, self._folder, self._writers, self._hashers, last)
        return FileDownloadLease(partial_blob, self._writers)


def _let_go(lease: FileDownloadLease | FollowedFilePartialBlob | None) -> None:
    """Give up a lease, because the request that waited for it was cancelled."""
    if isinstance(lease, FileDownloadLease):
        lease.partial_blob.end(keep=True)
        lease.partial_blob.file.close()
    elif lease is not None:
        lease.file.close()
