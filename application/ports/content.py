"""The ports to where content is stored: whole content, partial blobs, and the storage as a whole."""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from domain.digest import Bytes, Digest
from domain.upstreams import Upstream


class StorageRefused(Exception):
    """Storage did not do what it was asked for; the message says why."""


class StorageFull(StorageRefused):
    """There is no room, or no storage at all."""


class StorageFailed(StorageRefused):
    """The operating system refused for another reason than room: no free descriptor, a read-only file system, or a
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
    """A growing file, and with it the lease: the right to be the one who fills it. `size` in bytes so far.

    `file` is open for readers, also after the lease has ended; whoever leased it closes it.
    """

    size: int

    @property
    def file(self) -> OpenFile: ...

    async def append(self, pieces: deque[Bytes]) -> None:
        """Write and hash pieces, and take each out of the queue, until none is left or others are to have their turn;
        more may be put in meanwhile. One call at a time. Raises StorageRefused; what is not written then is in the
        queue.
        """
        ...

    async def holds(self, offset: int, content: Bytes) -> bool:
        """Whether these bytes are in it from `offset` on. They lie wholly below `size`."""
        ...

    async def commit(self) -> bool:
        """Make it content if its digest is right; else discard it. The lease ends. True also where it is right, but
        cannot be kept, or where a draft from another upstream has become the content before.
        """
        ...

    async def release(self, *, keep: bool) -> None:
        """End the lease before that. `keep`: whoever leases it next goes on from here; else it is discarded, and
        who follows it in another process is told.
        """
        ...


@dataclass(frozen=True)
class PartialBlobState:
    """`size` in bytes so far; `is_verified`: it is whole and right; `is_discarded`: it will never be."""

    size: int
    is_verified: bool
    is_discarded: bool


@runtime_checkable
class FollowedPartialBlob(Protocol):
    """A draft that another process fills. Whoever got it closes `file`."""

    @property
    def file(self) -> OpenFile: ...

    def look(self) -> PartialBlobState:
        """How it stands now. Does not wait."""
        ...


class ContentStore(Protocol):
    """Content by digest, each once, whoever has it."""

    async def open(self, digest: Digest) -> StoredContent | None:
        """None where it is not there."""
        ...

    async def put(self, digest: Digest, content: bytes) -> None:
        """Keep bytes whose digest has been checked. Raises StorageRefused."""
        ...

    async def lease(
        self, upstream: Upstream, digest: Digest, *, anew: bool = False
    ) -> PartialBlob | FollowedPartialBlob | None:
        """The draft with this upstream's bytes, to be filled from its `size` on; or the one that another process fills
        from the same upstream, to be followed; None where the content is whole by now. Bytes of two upstreams are
        never in one draft. `anew`: this upstream is to send it although it is whole, unless its own draft has just
        become whole. Raises StorageRefused.
        """
        ...

    async def drop(self, digest: Digest) -> int:
        """Forget it; the number of bytes that were freed, 0 where it was not there."""
        ...


@dataclass(frozen=True)
class Space:
    """`drafts`: bytes in drafts; `free`: bytes that the file system still has, as far as we may use them; `total`:
    its size in bytes; `drafts_of`: bytes in the drafts of each upstream, by its fingerprint.
    """

    partial_blobs: int
    free: int
    total: int
    partial_blobs_of: Mapping[str, int] = field(default_factory=dict)


class StorageMaintenance(Protocol):
    """Looks at what really lies there, whatever the index says."""

    async def space(self) -> Space: ...

    async def remove_abandoned_partial_blobs(self, older_than: float = 0.0) -> int:
        """Remove the drafts that nobody fills, and nobody has written to for so many seconds; how many there were."""
        ...

    async def contents(self) -> dict[Digest, int]:
        """The digest and the size in bytes of all content."""
        ...
