"""SharedUpkeep: keeps the shared store below its bound, and removes the parts that no content needs."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from application.ports.shared import (
    SHARDS,
    SharedKnowledge,
    SharedLeases,
    SharedStore,
    SharedUnavailable,
    SharedUses,
    StoredPart,
)
from application.ports.telemetry import EventSink
from domain.digest import Digest
from domain.events import SharedContentEvicted
from domain.ports import Clock

_PAUSE_SECONDS = 600.0
"""The time between two runs, whichever replica makes them."""
_KEPT_SECONDS = 24 * 3600.0
"""Parts that no record names are kept this long, because a replica may continue the download."""
_KEPT_USES_SECONDS = 90 * 24 * 3600.0
_HOUR = 3600.0
_REMEMBERED = 100_000
"""Uses that wait for the shared index."""


@dataclass
class _Stored:
    """What the store has of one digest. `recorded_at`: when its record was written; None without a record."""

    size: int = 0
    used_at: float = 0.0
    recorded_at: float | None = None
    parts: list[StoredPart] = field(default_factory=list)


class SharedUpkeep:
    """One worker of all replicas runs it at a time. It lists the store in 256 shards, so that it never has all names in
    memory: first to measure how many bytes were last used in which hour, and to remove abandoned parts; then, if there
    are too many bytes, once more to remove the content that was used least recently.
    """

    def __init__(
        self,
        store: SharedStore,
        leases: SharedLeases,
        uses: SharedUses,
        knowledge: SharedKnowledge,
        size: int,
        clock: Clock,
        events: EventSink,
    ) -> None:
        """`size`: the bound in bytes."""
        self._store = store
        self._leases = leases
        self._uses = uses
        self._knowledge = knowledge
        self._size = size
        self._clock = clock
        self._events = events
        self._unsent: dict[Digest, float] = {}

    async def used(self, times: dict[Digest, float]) -> None:
        """Store the uses of content by this replica. Uses that cannot be stored now are stored later."""
        self._unsent = {**self._unsent, **times} if len(self._unsent) < _REMEMBERED else times
        if self._unsent:
            try:
                await self._uses.touch(self._unsent)
            except SharedUnavailable:
                return
            self._unsent = {}

    async def run_if_due(self) -> None:
        """Look after the store, unless another worker did so within the last minutes."""
        try:
            if await self._uses.take_upkeep(_PAUSE_SECONDS):
                await self.run()
        except SharedUnavailable:
            pass  # the adapter reports it; the next run follows in some minutes

    async def run(self) -> None:
        """Raises SharedUnavailable."""
        await self._uses.forget_before(self._clock.now() - _KEPT_USES_SECONDS)
        by_hour: Counter[int] = Counter()
        for shard in SHARDS:
            for digest, stored in (await self._stored(shard)).items():
                removed = await self._sweep(digest, stored)
                if stored.recorded_at is not None:
                    by_hour[int(stored.used_at // _HOUR)] += stored.size - removed
        excess = by_hour.total() - self._size
        if excess > 0:
            await self._evict(by_hour, excess)

    async def _stored(self, shard: str) -> dict[Digest, _Stored]:
        found: dict[Digest, _Stored] = {}
        async for digest, record in self._store.records(shard):
            one = found.setdefault(digest, _Stored())
            one.recorded_at = one.used_at = record.changed_at
            one.size += record.size
        async for part in self._store.parts(shard):
            one = found.setdefault(part.digest, _Stored())
            one.size += part.size
            one.parts.append(part)
        for digest, used_at in (await self._uses.last(list(found))).items():
            found[digest].used_at = max(found[digest].used_at, used_at)
        return found

    # --- parts that no record names ---

    async def _sweep(self, digest: Digest, stored: _Stored) -> int:
        """Remove the abandoned parts of one digest, and return their bytes.

        The order protects the parts of a download that ends meanwhile. They are old when they were listed. Then the
        leases say that no replica publishes the blob and that none would find these parts, so only a record that was
        written before can name them; and the record is read last.
        """
        old = self._clock.now() - _KEPT_SECONDS
        candidates = [part for part in stored.parts if part.changed_at < old]
        if not candidates or (stored.recorded_at is not None and len({_lease_of(part) for part in stored.parts}) == 1):
            return 0  # the parts of one lease are all named by its record
        used = await self._in_use(digest, candidates)
        candidates = [part for part in candidates if part.key not in used]
        record = await self._store.find(digest) if candidates else None
        if record is None and stored.recorded_at is not None:
            return 0  # of another release, or removed meanwhile
        named = {part.key for part in record.parts} if record else set()
        return await self._remove([part for part in candidates if part.key not in named])

    async def _in_use(self, digest: Digest, parts: Sequence[StoredPart]) -> set[str]:
        """The keys of the parts that a replica publishes, or that the next lease would find."""
        used: set[str] = set()
        for upstream in {part.upstream for part in parts}:
            progress = await self._leases.progress(upstream, digest)
            used |= {part.key for part in progress.parts}
            if progress.is_held:
                used |= {part.key for part in parts if part.upstream == upstream}
        return used

    async def _remove(self, parts: Sequence[StoredPart]) -> int:
        if not parts:
            return 0
        await self._store.remove([part.key for part in parts])
        size = sum(part.size for part in parts)
        self._events.emit(SharedContentEvicted(len(parts), size))
        return size

    # --- the bound ---

    async def _evict(self, by_hour: Counter[int], excess: int) -> None:
        """Remove the content that was last used in the earliest hours, until `excess` bytes are free."""
        last_hour = 0
        for last_hour in sorted(by_hour):
            if by_hour[last_hour] >= excess:
                break
            excess -= by_hour[last_hour]
        # All content of the earlier hours goes, and of the last hour as much as is still needed then.
        evicted: list[Digest] = []
        for shard in SHARDS:
            for digest, stored in sorted((await self._stored(shard)).items(), key=lambda one: one[1].used_at):
                hour = stored.used_at // _HOUR
                if stored.recorded_at is None or hour > last_hour or (hour == last_hour and excess <= 0):
                    continue
                freed = await self._drop(digest, stored)
                excess -= freed if hour == last_hour else 0
                evicted.append(digest)
        if evicted:
            await self._uses.forget(evicted)
            await self._knowledge.forget_content(evicted)

    async def _drop(self, digest: Digest, stored: _Stored) -> int:
        """Remove one content, and return its bytes. Parts that a replica publishes stay, and those that the next lease
        would find: they are asked for first, because from the end of a lease on, its record may name them. A replica
        that reads the other parts meanwhile fetches the rest from the upstream.
        """
        used = await self._in_use(digest, stored.parts)
        await self._store.drop(digest)
        parts = [part for part in stored.parts if part.key not in used]
        await self._store.remove([part.key for part in parts])
        freed = stored.size - sum(part.size for part in stored.parts if part.key in used)
        self._events.emit(SharedContentEvicted(1 + len(parts), freed))
        return freed


def _lease_of(part: StoredPart) -> str:
    return part.key.rpartition("/")[0]
