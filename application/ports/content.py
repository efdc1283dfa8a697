"""The ports to the storage of content: complete content, partial blobs, and maintenance."""

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from domain.digest import Bytes, Digest, DigestCheck
from domain.span_set import SpanSet
from domain.value import Value


class StorageRefused(Exception):
    """The storage could not carry out a request. The message contains the reason."""


class StorageFull(StorageRefused):
    """There is no space left, or the mirror runs without storage."""


class StorageFailed(StorageRefused):
    """The operating system reported an error other than a lack of space: no free descriptor, a read-only file system,
    or a failing disk.
    """


class OpenFile(Protocol):
    """Open content, which several readers may share. It stays readable until it is closed, even if the content is
    dropped meanwhile.

    Two open files with equal `identity` are the same file, even if it was opened under different names.
    """

    identity: object

    async def read(self, start: int, stop: int) -> bytes:
        """The bytes from `start` up to but not including `stop`; fewer if the content ends before. Raises
        StorageRefused if the disk fails.
        """

    async def hash(self, check: DigestCheck, start: int, stop: int) -> None:
        """Add the same bytes to the check, without work on the event loop. Raises StorageRefused if the disk fails."""

    def close(self) -> None:
        """Called once, after the last reader has finished."""


class ContentPart(Value, frozen=True):
    """The bytes `start` up to but not including `stop` of open content, which have not been read yet. The creator of
    the part keeps `file` open.
    """

    file: OpenFile
    start: int
    stop: int

    @property
    def length(self) -> int:
        """The number of bytes."""
        return self.stop - self.start


class StoredContent(Value, frozen=True):
    """Complete, verified content that is open. `size`: the current size of the file in bytes."""

    file: OpenFile
    size: int

    async def read(self) -> bytes:
        """All bytes."""
        return await self.file.read(0, self.size)


class PartialBlob(Protocol):
    """A blob that is being downloaded. Only the holder of the lease writes to it.

    `present`: the bytes that have been written. `total`: the length of the blob, None while it is unknown. The holder
    sets it before the first write that leaves a gap; the next holder then knows it, too.

    `file` stays open for readers after the lease has ended.
    """

    total: int | None

    @property
    def present(self) -> SpanSet: ...

    @property
    def file(self) -> OpenFile: ...

    async def write(
        self,
        offset: int,
        pieces: deque[Bytes],
        expects_more: Callable[[], bool] = lambda: False,
        has_grown: Callable[[], None] = lambda: None,
    ) -> int:
        """Write the pieces one after the other, starting at `offset`, and remove each written piece from the queue.
        Returns the number of written bytes when the queue is empty, or earlier to let other downloads write. The caller
        may add pieces meanwhile. While `expects_more` says that it is about to, the call may wait some milliseconds for
        them. `has_grown` is called when many bytes have become present and the call goes on. Another thread may call
        both. Several calls may run at the same time if they write to different bytes. Hashes the beginning of the blob
        as far as it is present.

        Raises StorageRefused; the queue then contains the pieces that were not written.
        """

    async def holds(self, offset: int, content: Bytes) -> bool:
        """Whether the partial blob contains these bytes at `offset`. All of them must be present."""

    async def commit(self) -> bool:
        """End the lease. If no byte is missing and the digest is right, the partial blob becomes content; otherwise it
        is discarded. Returns whether the digest is right. It is also right if the content cannot be kept, or if the
        partial blob of another upstream became the content first.
        """


class ContentStore(Protocol):
    """Complete content by digest, one copy for all repositories and upstreams."""

    async def open(self, digest: Digest) -> StoredContent | None:
        """The content; None if it is not stored."""

    async def put(self, digest: Digest, content: bytes) -> None:
        """Store bytes whose digest has been verified. Raises StorageRefused."""

    async def drop(self, digest: Digest) -> int:
        """Remove the content. Returns the number of freed bytes; 0 if it was not stored."""


@dataclass(frozen=True)
class Space:
    """Numbers of bytes. `partial_blobs`: in all partial blobs; `partial_blobs_of`: in those of each upstream, by the
    fingerprint of the upstream; `free`: free on the file system and usable by this process; `total`: the size of the
    file system.
    """

    partial_blobs: int
    free: int
    total: int
    partial_blobs_of: Mapping[str, int] = field(default_factory=dict)


class StorageMaintenance(Protocol):
    """Reads the storage itself and not the index, which may differ from it."""

    async def space(self) -> Space: ...

    async def remove_abandoned_partial_blobs(self, older_than: float = 0.0) -> int:
        """Remove the partial blobs that have no lease and were not written to for `older_than` seconds. Returns their
        number.
        """

    async def contents(self) -> dict[Digest, int]:
        """The size in bytes of all stored content, by digest."""
