"""What replicas share, in memory: one FakeSharedStore and one FakeLeaseBoard for all replicas of a test."""

import asyncio
import hashlib
import itertools
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace

from application.ports.shared import (
    SharedContentDamaged,
    SharedObject,
    SharedPart,
    SharedProgress,
    SharedRecord,
    SharedUnavailable,
)
from domain.digest import Bytes, Digest
from domain.upstreams import Upstream

LEASE_SECONDS = 4.0


class FakeSharedStore:
    """Implements SharedStore. `seconds`: the duration of each call; `is_gone`: all calls fail."""

    def __init__(self) -> None:
        self.objects: dict[str, SharedRecord | bytes] = {}
        self.times: dict[str, float] = {}
        self.now = 0.0
        self.calls: list[str] = []
        self.seconds = 0.001
        self.is_gone = False

    async def find(self, digest: Digest) -> SharedRecord | None:
        await self._called("find")
        found = self.objects.get(_record_key(digest))
        return found if isinstance(found, SharedRecord) else None

    async def put(self, digest: Digest, record: SharedRecord) -> None:
        await self._called("put")
        self._write(_record_key(digest), record)

    async def drop(self, digest: Digest) -> None:
        await self._called("drop")
        self.objects.pop(_record_key(digest), None)

    async def put_part(
        self, upstream: Upstream, digest: Digest, lease_id: str, offset: int, content: Bytes
    ) -> SharedPart:
        await self._called("put_part")
        key = f"parts/{digest.algorithm}/{digest.encoded}/{upstream.fingerprint}/{lease_id}/{offset}"
        self._write(key, bytes(content))
        return SharedPart(key, offset, len(content), hashlib.sha256(content).hexdigest())

    async def get_part(self, part: SharedPart) -> bytes:
        await self._called("get_part")
        found = self.objects.get(part.key)
        if not isinstance(found, bytes) or hashlib.sha256(found).hexdigest() != part.sha256:
            raise SharedContentDamaged(f"{part.key} is missing or wrong")
        return found

    async def records(self) -> AsyncIterator[tuple[Digest, SharedObject]]:
        await self._called("records")
        for key, found in list(self.objects.items()):
            if isinstance(found, SharedRecord):
                yield Digest.parse(key.removeprefix("content/")), self._object(key, len(found.content or b""))

    async def parts(self) -> AsyncIterator[SharedObject]:
        await self._called("parts")
        for key, found in list(self.objects.items()):
            if isinstance(found, bytes):
                yield self._object(key, len(found))

    async def remove(self, keys: list[str]) -> None:
        await self._called("remove")
        for key in keys:
            self.objects.pop(key, None)

    def _object(self, key: str, size: int) -> SharedObject:
        return SharedObject(key, size, self.times[key])

    def _write(self, key: str, content: SharedRecord | bytes) -> None:
        self.objects[key] = content
        self.times[key] = self.now

    async def _called(self, name: str) -> None:
        self.calls.append(name)
        await asyncio.sleep(self.seconds)
        if self.is_gone:
            raise SharedUnavailable("the store is gone")


def _record_key(digest: Digest) -> str:
    return f"content/{digest}"


@dataclass
class _Board:
    """The state of the leases of one blob and upstream."""

    holder: str | None = None
    ends_at: float = 0.0
    total: int | None = None
    parts: list[SharedPart] = field(default_factory=list)


class FakeLeaseBoard:
    """The shared index of leases. `is_gone`: all calls fail."""

    def __init__(self) -> None:
        self.is_gone = False
        self.deaf: set[str] = set()
        """Replicas whose calls fail, as if they were behind a partition."""
        self.taken = 0
        self._boards: dict[tuple[str, Digest], _Board] = {}
        self._ids = itertools.count()

    def of(self, replica: str) -> "FakeSharedLeases":
        return FakeSharedLeases(self, replica)

    def board(self, replica: str, upstream: Upstream, digest: Digest) -> _Board:
        if self.is_gone or replica in self.deaf:
            raise SharedUnavailable("the index is gone")
        return self._boards.setdefault((upstream.fingerprint, digest), _Board())

    def new_id(self) -> str:
        self.taken += 1
        return f"lease-{next(self._ids)}"


class FakeSharedLeases:
    """Implements SharedLeases for one replica. `is_paused`: its leases are not renewed, as if its processes were
    stopped.
    """

    def __init__(self, index: FakeLeaseBoard, replica: str) -> None:
        self.index = index
        self.replica = replica
        self.is_paused = False

    async def lease(self, upstream: Upstream, digest: Digest) -> "FakeSharedLease | FakeFollowedLease":
        await asyncio.sleep(0.001)
        board, now = self.index.board(self.replica, upstream, digest), asyncio.get_running_loop().time()
        is_held = board.holder is not None and now < board.ends_at
        if is_held and not str(board.holder).startswith(f"{self.replica}:"):
            return FakeFollowedLease(self, upstream, digest)
        return FakeSharedLease(self, upstream, digest, board)


class FakeSharedLease:
    """Implements SharedLease."""

    def __init__(self, leases: FakeSharedLeases, upstream: Upstream, digest: Digest, board: _Board) -> None:
        self._leases = leases
        self._key = upstream, digest
        self.id = leases.index.new_id()
        self._token = f"{leases.replica}:{self.id}"
        self.found = SharedProgress(tuple(board.parts), board.total, is_held=True)
        board.holder, board.ends_at = self._token, asyncio.get_running_loop().time() + LEASE_SECONDS
        self._renewing = asyncio.create_task(self._renew())
        self._has_lost = False

    @property
    def is_lost(self) -> bool:
        return self._has_lost

    async def _renew(self) -> None:
        while not self._has_lost:
            await asyncio.sleep(1.0)
            if not self._leases.is_paused:
                self._checked()

    def _checked(self) -> bool:
        now = asyncio.get_running_loop().time()
        try:
            board = self._leases.index.board(self._leases.replica, *self._key)
        except SharedUnavailable:
            self._has_lost = True
            return False
        self._has_lost = board.holder != self._token or now >= board.ends_at
        if not self._has_lost:
            board.ends_at = now + LEASE_SECONDS
        return not self._has_lost

    async def publish(self, part: SharedPart, total: int | None) -> bool:
        await asyncio.sleep(0.001)
        if not self._checked():
            return False
        board = self._leases.index.board(self._leases.replica, *self._key)
        board.parts.append(part)
        board.total = total
        return True

    async def release(self, *, keep: bool) -> None:
        self._renewing.cancel()
        await asyncio.sleep(0.001)
        if self._checked():
            board = self._leases.index.board(self._leases.replica, *self._key)
            board.holder = None
            if not keep:
                board.parts, board.total = [], None


class FakeFollowedLease:
    """Implements FollowedLease."""

    def __init__(self, leases: FakeSharedLeases, upstream: Upstream, digest: Digest) -> None:
        self._leases = leases
        self._key = upstream, digest

    async def look(self) -> SharedProgress:
        await asyncio.sleep(0.001)
        board = self._leases.index.board(self._leases.replica, *self._key)
        is_held = board.holder is not None and asyncio.get_running_loop().time() < board.ends_at
        return SharedProgress(tuple(board.parts), board.total, is_held)


def flip_a_bit(store: FakeSharedStore, key: str) -> None:
    """Damage one object."""
    content = store.objects[key]
    assert isinstance(content, bytes)
    store.objects[key] = bytes([content[0] ^ 1]) + content[1:]


def without_senders(store: FakeSharedStore, digest: Digest) -> None:
    """The record of content that only other upstreams have sent."""
    record = store.objects[_record_key(digest)]
    assert isinstance(record, SharedRecord)
    store.objects[_record_key(digest)] = replace(record, senders=frozenset(), is_public=False)
