"""SharedContent: what the shared store has, and how it is removed while replicas write to it."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from application.ports.shared import SharedKnowledge, SharedLeases, SharedStore, SharedUses, StoredPart
from application.ports.telemetry import EventSink
from domain.digest import Digest
from domain.events import SharedContentEvicted
from domain.ports import Clock

_KEPT_SECONDS = 24 * 3600.0
"""Parts that no record names are kept this long, because a replica may continue the download."""


@dataclass
class Stored:
    """What the store has of one digest. `record_size`: the bytes of its record; `recorded_at`: when the record was
    written, in seconds since 1970; None without a record. `used_at`: the time of the last use.
    """

    record_size: int = 0
    used_at: float = 0.0
    recorded_at: float | None = None
    parts: list[StoredPart] = field(default_factory=list)

    @property
    def size(self) -> int:
        """The bytes of the record and of all parts."""
        return self.record_size + sum(part.size for part in self.parts)


class SharedContent:
    """Lists and removes content without a lock, while replicas write: no record in the store ever names a part that was
    removed here. This follows from the order of the requests.

    A record names parts of one upstream only: those that its replica has written while it had the lease, and those that
    it found in the list of published parts when it got the lease. The replica releases the lease after it has written
    the record. So when a part is in a listing of the store, and the leases say afterwards that no replica has the lease
    and that the part is not published, then no record will be written that names it. A record that is there already can
    name it, and is therefore read, or removed, after the leases were asked.

    Two things could still break this: a replica that is paused, between its last look at its lease and the end of the
    record's upload, for longer than the lease; and an index that has lost its data, until the replicas renew their
    leases a second later. A replica that reads such a record finds the part missing, drops the record, and fetches the
    content from the upstream.
    """

    def __init__(
        self,
        store: SharedStore,
        leases: SharedLeases,
        uses: SharedUses,
        knowledge: SharedKnowledge,
        clock: Clock,
        events: EventSink,
    ) -> None:
        self._store = store
        self._leases = leases
        self._uses = uses
        self._knowledge = knowledge
        self._clock = clock
        self._events = events

    # All methods raise SharedUnavailable.

    async def stored(self, shard: str) -> dict[Digest, Stored]:
        """What the store has in one of SHARDS. Content without a known use counts as used when it was written."""
        found: dict[Digest, Stored] = {}
        async for digest, record in self._store.records(shard):
            one = found.setdefault(digest, Stored())
            one.recorded_at = one.used_at = record.changed_at
            one.record_size = record.size
        async for part in self._store.parts(shard):
            found.setdefault(part.digest, Stored()).parts.append(part)
        for digest, used_at in (await self._uses.last(list(found))).items():
            found[digest].used_at = max(found[digest].used_at, used_at)
        return found

    async def of(self, digest: Digest) -> Stored | None:
        """What the store has of one digest; None if it has nothing. Without the times."""
        record = await self._store.find(digest)
        parts = [part async for part in self._store.parts_of(digest)]
        if record is None and not parts:
            return None
        return Stored(record_size=len(record.content or b"") if record else 0, parts=parts)

    async def sweep(self, digest: Digest, stored: Stored) -> int:
        """Remove the abandoned parts of one digest, and return their bytes."""
        old = self._clock.now() - _KEPT_SECONDS
        candidates = [part for part in stored.parts if part.changed_at < old]
        if not candidates or (stored.recorded_at is not None and len({_lease_of(part) for part in stored.parts}) == 1):
            return 0  # the parts of one lease are all named by its record
        candidates = await self._unpublished(digest, candidates)
        record = await self._store.find(digest) if candidates else None
        if record is None and stored.recorded_at is not None:
            return 0  # of another release, or removed meanwhile
        named = {part.key for part in record.parts} if record else set()
        abandoned = [part for part in candidates if part.key not in named]
        if not abandoned:
            return 0
        await self._store.remove([part.key for part in abandoned])
        size = sum(part.size for part in abandoned)
        self._events.emit(SharedContentEvicted(len(abandoned), size))
        return size

    async def drop(self, digest: Digest, stored: Stored) -> int:
        """Remove the record and its parts, and return their bytes. The sweep removes later what a replica publishes or
        has published. A replica that reads the content meanwhile fetches the rest from the upstream.
        """
        parts = await self._unpublished(digest, stored.parts)
        await self._store.drop(digest)
        await self._store.remove([part.key for part in parts])
        size = stored.record_size + sum(part.size for part in parts)
        self._events.emit(SharedContentEvicted(1 + len(parts), size))
        return size

    async def forget(self, digests: Sequence[Digest]) -> None:
        """Forget what all replicas know of content that has left the store."""
        if digests:
            await self._uses.forget(digests)
            await self._knowledge.forget_content(digests)

    async def _unpublished(self, digest: Digest, parts: Sequence[StoredPart]) -> list[StoredPart]:
        """The parts that no record can name which is written from now on."""
        found: list[StoredPart] = []
        for upstream in {part.upstream for part in parts}:
            progress = await self._leases.progress(upstream, digest)
            published = {part.key for part in progress.parts}
            if not progress.is_held:
                found += [part for part in parts if part.upstream == upstream and part.key not in published]
        return found


def _lease_of(part: StoredPart) -> str:
    return part.key.rpartition("/")[0]
