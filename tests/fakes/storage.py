"""A content store in memory. It has real file descriptors, so that the delivery code can send the files."""

import asyncio
import os
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field

from application.ports.content import OpenFile, Space, StorageFull, StoredContent
from application.ports.file_backed import FileBacked
from application.ports.lease import PartialBlobState
from domain.byte_ranges import Span
from domain.digest import Bytes, Digest, DigestCheck
from domain.span_set import SpanSet
from domain.upstreams import Upstream


class MemoryInode:
    """A file, which may have several names and open descriptors. `lease`: the partial blob that is written to it;
    `followers`: the open partial blobs of other "processes".
    """

    def __init__(self, content: bytes = b"") -> None:
        self.descriptor = os.memfd_create("fake content")
        self.present = SpanSet()
        self.total: int | None = None
        self.lease: MemoryPartialBlob | None = None
        self.followers: list[MemoryFollowedPartialBlob] = []
        self.is_verified = False
        self.is_discarded = False
        self.write(0, content)

    @property
    def size(self) -> int:
        """The number of bytes that are present."""
        return self.present.length

    def write(self, offset: int, content: bytes) -> None:
        os.pwrite(self.descriptor, content, offset)
        self.present = self.present.plus(Span(offset, offset + len(content)))

    def read(self) -> bytes:
        """The bytes up to the last one that is present, with zeros in the gaps."""
        return os.pread(self.descriptor, os.fstat(self.descriptor).st_size, 0)

    def __del__(self) -> None:
        os.close(self.descriptor)


@dataclass
class MemoryDisk:
    """What the stores of several "processes" share. `capacity`: bytes for content and partial blobs together."""

    capacity: int | None = None
    inodes: dict[Digest, MemoryInode] = field(default_factory=dict)
    growing: dict[tuple[Upstream, Digest], MemoryInode] = field(default_factory=dict)

    def demand(self, size: int) -> None:
        """Raises StorageFull if `size` more bytes do not fit. With a capacity of 0 not even an empty file fits."""
        used = sum(inode.size for inode in (*self.inodes.values(), *self.growing.values()))
        if self.capacity is not None and (used + size > self.capacity or self.capacity == 0):
            raise StorageFull("the fake disk is full")


class MemoryFile(FileBacked):
    """Implements OpenFile. `is_closed` for tests."""

    def __init__(self, inode: MemoryInode, at_close: Callable[[], None] = lambda: None) -> None:
        self.descriptor = os.dup(inode.descriptor)
        self.identity: object = inode
        self.is_closed = False
        self._at_close = at_close

    async def read(self, start: int, stop: int) -> bytes:
        await asyncio.sleep(0)
        return os.pread(self.descriptor, max(0, stop - start), start)

    async def hash(self, check: DigestCheck, start: int, stop: int) -> None:
        check.update(await self.read(start, stop))

    def close(self) -> None:
        assert not self.is_closed, "closed twice"
        self.is_closed = True
        os.close(self.descriptor)
        self._at_close()


class MemoryPartialBlob:
    """Implements PartialBlob."""

    def __init__(self, disk: MemoryDisk, upstream: Upstream, digest: Digest, owner: object) -> None:
        self._disk, self._digest, self.owner = disk, digest, owner
        self._key = upstream, digest
        self._inode = disk.growing[self._key]
        self._inode.lease = self
        self._is_over = False
        # As with a file lock, closing the file ends the lease.
        self.file: OpenFile = MemoryFile(self._inode, lambda: self.end(keep=True))

    @property
    def present(self) -> SpanSet:
        return self._inode.present

    @property
    def total(self) -> int | None:
        return self._inode.total

    @total.setter
    def total(self, total: int | None) -> None:
        self._inode.total = total

    async def write(
        self,
        offset: int,
        pieces: deque[Bytes],
        expects_more: Callable[[], bool] = lambda: False,
        has_grown: Callable[[], None] = lambda: None,
    ) -> int:
        await asyncio.sleep(0)
        if self._is_over:
            raise StorageFull("its lease has ended")
        assert offset <= self.present.beginning or self.total is not None, "a gap before the total is known"
        content = b"".join(pieces)
        assert self.total is None or offset + len(content) <= self.total, "bytes after the end of the blob"
        assert not self.present.overlaps(Span(offset, offset + len(content))), "bytes that are present already"
        self._disk.demand(len(content))
        self._inode.write(offset, content)
        pieces.clear()
        return len(content)

    async def holds(self, offset: int, content: Bytes) -> bool:
        assert self.present.covers(Span(offset, offset + len(content))), "bytes that are not present"
        return os.pread(self._inode.descriptor, len(content), offset) == content

    async def commit(self) -> bool:
        await asyncio.sleep(0)
        is_whole = self.present.beginning == self.present.length == (self.total or self.present.length)
        if self._is_over or not is_whole or not self._digest.matches(self._inode.read()):
            self.end(keep=False)
            return False
        self._inode.is_verified = True
        self._disk.inodes.setdefault(self._digest, self._disk.growing.pop(self._key))
        self.end(keep=True)
        return True

    @property
    def wanted(self) -> SpanSet:
        return SpanSet.of(span for follower in self._inode.followers for span in follower.wants)

    def end(self, *, keep: bool) -> None:
        if self._is_over:
            return
        self._is_over = True
        self._inode.lease = None
        if not keep:
            self._inode.is_discarded = True
            del self._disk.growing[self._key]


class MemoryDownloadLease:
    """Implements DownloadLease."""

    def __init__(self, partial_blob: MemoryPartialBlob) -> None:
        self.partial_blob = partial_blob

    def wanted(self) -> SpanSet:
        return self.partial_blob.wanted

    async def release(self, *, keep: bool) -> None:
        await asyncio.sleep(0)
        self.partial_blob.end(keep=keep)


class MemoryFollowedPartialBlob:
    """Implements FollowedPartialBlob."""

    def __init__(self, inode: MemoryInode, owner: object) -> None:
        self._inode, self.owner = inode, owner
        self.wants = SpanSet()
        inode.followers.append(self)
        self.file: OpenFile = MemoryFile(inode, lambda: inode.followers.remove(self))

    def look(self) -> PartialBlobState:
        inode = self._inode
        total = inode.size if inode.is_verified else inode.total
        return PartialBlobState(inode.present, total, inode.is_verified, inode.is_discarded)

    def want(self, spans: SpanSet) -> None:
        self.wants = spans


class MemoryContentStore:
    """Implements ContentStore and DownloadLeases. A second store with the same disk stands for another process."""

    def __init__(self, disk: MemoryDisk | None = None) -> None:
        self.disk = disk or MemoryDisk()

    @property
    def capacity(self) -> int | None:
        return self.disk.capacity

    @capacity.setter
    def capacity(self, capacity: int | None) -> None:
        self.disk.capacity = capacity

    @property
    def content(self) -> dict[Digest, bytes]:
        return {digest: inode.read() for digest, inode in self.disk.inodes.items()}

    @property
    def partial_blobs(self) -> dict[Digest, bytes]:
        return {digest: inode.read() for (_, digest), inode in self.disk.growing.items()}

    def die(self) -> None:
        """Act like a process that is killed: its leases and wants end, its partial blobs stay as they
        are.
        """
        for inode in self.disk.growing.values():
            for follower in inode.followers:
                if follower.owner is self:
                    follower.want(SpanSet())
            if inode.lease and inode.lease.owner is self:
                inode.lease.end(keep=True)

    async def open(self, digest: Digest) -> StoredContent | None:
        await asyncio.sleep(0)
        inode = self.disk.inodes.get(digest)
        return StoredContent(MemoryFile(inode), inode.size) if inode else None

    async def put(self, digest: Digest, content: bytes) -> None:
        await asyncio.sleep(0)
        if digest not in self.disk.inodes:
            self.disk.demand(len(content))
            self.disk.inodes[digest] = MemoryInode(content)

    async def lease(
        self, upstream: Upstream, digest: Digest, *, refetch: bool = False
    ) -> MemoryDownloadLease | MemoryFollowedPartialBlob | None:
        await asyncio.sleep(0)
        if digest in self.disk.inodes and not refetch:
            return None
        inode = self.disk.growing.get((upstream, digest))
        if inode is None:
            self.disk.demand(0)
            inode = self.disk.growing[upstream, digest] = MemoryInode()
        if inode.lease:
            return MemoryFollowedPartialBlob(inode, self)
        return MemoryDownloadLease(MemoryPartialBlob(self.disk, upstream, digest, self))

    async def drop(self, digest: Digest) -> int:
        await asyncio.sleep(0)
        inode = self.disk.inodes.pop(digest, None)
        return inode.size if inode else 0


class MemoryStorageMaintenance:
    """Implements StorageMaintenance. A disk without a capacity counts as one terabyte."""

    def __init__(self, disk: MemoryDisk) -> None:
        self._disk = disk

    async def space(self) -> Space:
        partial_blobs = sum(inode.size for inode in self._disk.growing.values())
        total = 1 << 40 if self._disk.capacity is None else self._disk.capacity
        partial_blobs_of: Counter[str] = Counter()
        for (upstream, _), inode in self._disk.growing.items():
            partial_blobs_of[upstream.fingerprint] += inode.size
        return Space(
            partial_blobs,
            max(0, total - partial_blobs - sum((await self.contents()).values())),
            total,
            partial_blobs_of,
        )

    async def remove_abandoned_partial_blobs(self, older_than: float = 0.0) -> int:
        # The fake stores no times, so every partial blob counts as just written.
        idle = [] if older_than else [key for key, inode in self._disk.growing.items() if not inode.lease]
        for key in idle:
            self._disk.growing.pop(key).is_discarded = True
        return len(idle)

    async def contents(self) -> dict[Digest, int]:
        return {digest: inode.size for digest, inode in self._disk.inodes.items()}
