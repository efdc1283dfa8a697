"""A shared store in memory, which several replicas can use at once."""

import asyncio
import hashlib
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from application.ports.shared import (
    SHARDS,
    SharedContentDamaged,
    SharedObject,
    SharedPart,
    SharedRecord,
    SharedUnavailable,
    StoredPart,
)
from domain.digest import Bytes, Digest
from domain.upstreams import Upstream
from tests.fakes.clock import StoppedClock


@dataclass
class FakeSharedStore:
    """Implements SharedStore. `is_away`: every method raises SharedUnavailable; `failing`: the names of methods that
    do. `asked`: how often each method was called.
    """

    clock: StoppedClock = field(default_factory=StoppedClock)
    is_away: bool = False
    failing: frozenset[str] = frozenset()
    asked: Counter[str] = field(default_factory=Counter)
    contents: dict[str, bytes] = field(default_factory=dict)
    """The bytes of the parts, by key."""
    changed: dict[str, float] = field(default_factory=dict)
    """When each object was written, by key."""
    kept: dict[Digest, SharedRecord] = field(default_factory=dict)

    async def find(self, digest: Digest) -> SharedRecord | None:
        await self._answer("find")
        return self.kept.get(digest)

    async def put(self, digest: Digest, record: SharedRecord) -> None:
        await self._answer("put")
        self.kept[digest] = record
        self.changed[record_key(digest)] = self.clock.now()

    async def drop(self, digest: Digest) -> None:
        await self._answer("drop")
        self._forget(record_key(digest))

    async def put_part(
        self, upstream: Upstream, digest: Digest, lease_id: str, offset: int, content: Bytes
    ) -> SharedPart:
        await self._answer("put_part")
        folder = record_key(digest).replace("content/", "parts/", 1)
        key = f"{folder}/{upstream.fingerprint}/{lease_id}/{offset}"
        self.contents[key] = bytes(content)
        self.changed[key] = self.clock.now()
        return SharedPart(key, offset, len(content), hashlib.sha256(content).hexdigest())

    async def get_part(self, part: SharedPart) -> bytes:
        await self._answer("get_part")
        content = self.contents.get(part.key, b"")
        if len(content) != part.size or hashlib.sha256(content).hexdigest() != part.sha256:
            raise SharedContentDamaged(f"{part.key} is missing or damaged")
        return content

    async def records(self, shard: str = "") -> AsyncIterator[tuple[Digest, SharedObject]]:
        await self._answer("records")
        for digest, record in list(self.kept.items()):
            key = record_key(digest)
            if shard in {"", shard_of(digest)}:
                yield digest, SharedObject(key, len(record.content or b""), self.changed[key])

    async def parts(self, shard: str = "") -> AsyncIterator[StoredPart]:
        await self._answer("parts")
        for part in self._stored_parts():
            if shard in {"", shard_of(part.digest)}:
                yield part

    async def parts_of(self, digest: Digest) -> AsyncIterator[StoredPart]:
        await self._answer("parts_of")
        for part in self._stored_parts():
            if part.digest == digest:
                yield part

    def _stored_parts(self) -> list[StoredPart]:
        found = []
        for key, content in sorted(self.contents.items()):
            _, algorithm, _, encoded, upstream, *_ = key.split("/")
            found.append(StoredPart(key, len(content), self.changed[key], Digest(algorithm, encoded), upstream))
        return found

    async def remove(self, keys: list[str]) -> None:
        await self._answer("remove")
        for key in keys:
            self._forget(key)

    def damage(self, key: str) -> None:
        """Change one bit of the part."""
        content = self.contents[key]
        self.contents[key] = bytes([content[0] ^ 1]) + content[1:]

    def _forget(self, key: str) -> None:
        self.contents.pop(key, None)
        self.changed.pop(key, None)
        self.kept = {digest: record for digest, record in self.kept.items() if record_key(digest) != key}

    async def _answer(self, method: str) -> None:
        self.asked[method] += 1
        await asyncio.sleep(0)
        if self.is_away or method in self.failing:
            raise SharedUnavailable("the fake shared store is away")


def shard_of(digest: Digest) -> str:
    """The shard to which the content belongs."""
    return digest.encoded[:2] if digest.algorithm == "sha256" else SHARDS[0]


def record_key(digest: Digest) -> str:
    """The name of the object with the record."""
    return f"content/{digest.algorithm}/{digest.encoded[:2]}/{digest.encoded}"
