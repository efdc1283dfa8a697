"""The ports to where content is stored: whole content, partial blobs, and the storage as a whole."""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from domain.digest import Bytes, Digest


class StorageRefused(Exception):
    """Storage did not do what it was asked for; the message says why."""


class StorageFull(StorageRefused):
    """There is no space, or no storage at all."""


class StorageFailed(StorageRefused):
    """The operating system refused for another reason than space: no free descriptor, a read-only file system, or a
    disk that fails.
    """


class OpenFile(Protocol):
    """Content that is open and that readers share. It stays readable until it is closed, even when it is dropped
    meanwhile.

    `identity` is equal for two that are the same file, whatever its name, as long as one of them is open.
    """

    identity: object

    async def read(self, start: int, stop: int) -> bytes:
        """The bytes from `start` up to but not including `stop`, or as many of them as there are. Raises StorageRefused
        where the disk fails.
        """
        ...

    def close(self) -> None:
        """Once, when no reader is left."""
        ...


@dataclass(frozen=True)
class ContentPart:
    """Bytes `start` up to but not including `stop` of open content, not read yet. The holder keeps `file` open."""

    file: OpenFile
    start: int
    stop: int

    @property
    def length(self) -> int:
        """Bytes."""
        return self.stop - self.start


class StoredContent(Protocol):
    """Whole, verified content, open. `size` in bytes, as the file has it now."""

    size: int

    @property
    def file(self) -> OpenFile: ...

    async def read(self) -> bytes:
        """All of it."""
        ...


class PartialBlob(Protocol):
    """Content that grows while it is downloaded; only the holder of the lease changes it. `size` in bytes so far.

    `file` is open for readers, also after the lease has ended.
    """

    size: int

    @property
    def file(self) -> OpenFile: ...

    async def append(self, pieces: deque[Bytes]) -> None:
        """Write and hash pieces, and take each out of the queue, until the queue is empty or other downloads are to
        have their turn; more may be put in meanwhile. One call at a time. Raises StorageRefused; pieces that were not
        written are in the queue then.
        """
        ...

    async def holds(self, offset: int, content: Bytes) -> bool:
        """Whether these bytes are in it from `offset` on. They lie wholly below `size`."""
        ...

    async def commit(self) -> bool:
        """Make it content if its digest is right; else discard it. The lease ends. True also where the digest is right
        but the content cannot be kept, or where the partial blob of another upstream has become the content before.
        """
        ...


class ContentStore(Protocol):
    """Whole content by digest, one copy for all repositories and upstreams."""

    async def open(self, digest: Digest) -> StoredContent | None:
        """None where it is not there."""
        ...

    async def put(self, digest: Digest, content: bytes) -> None:
        """Keep bytes whose digest has been checked. Raises StorageRefused."""
        ...

    async def drop(self, digest: Digest) -> int:
        """Forget it; the number of bytes that were freed, 0 where it was not there."""
        ...


@dataclass(frozen=True)
class Space:
    """`partial_blobs`: bytes in partial blobs; `partial_blobs_of`: those of each upstream, by its fingerprint; `free`:
    bytes that the file system still has and that we may use; `total`: its size in bytes.
    """

    partial_blobs: int
    free: int
    total: int
    partial_blobs_of: Mapping[str, int] = field(default_factory=dict)


class StorageMaintenance(Protocol):
    """Reads what is really stored, whatever the index says."""

    async def space(self) -> Space: ...

    async def remove_abandoned_partial_blobs(self, older_than: float = 0.0) -> int:
        """Remove the partial blobs without a lease that were not written to for so many seconds; returns how many."""
        ...

    async def contents(self) -> dict[Digest, int]:
        """The digest and the size in bytes of all content."""
        ...
