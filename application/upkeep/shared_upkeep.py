"""SharedUpkeep: keeps the shared store below its bound, and removes the parts that no content needs."""

from collections import Counter

from application.ports.shared import SHARDS, SharedPins, SharedUnavailable, SharedUses
from application.upkeep.shared_content import SharedContent
from domain.cache_policy import CacheCapacity
from domain.digest import Digest
from domain.ports import Clock

_PAUSE_SECONDS = 600.0
"""The least time between two runs, whichever replica makes them."""
_PAUSE_FACTOR = 20.0
"""The pause after a run is this many times as long as the run, because stores charge for each list request."""
_LONGEST_PAUSE_SECONDS = 6 * 3600.0
_LEASE_SECONDS = 60.0
"""Another worker begins this long after the one that looks after the store has ended. It renews the lease for each of
the SHARDS, and lists one of a million objects in a few seconds.
"""
_HOUR = 3600.0
_KEPT_USES_SECONDS = 90 * 86400.0
"""Earlier uses are forgotten. Otherwise those of content that is only in the folders of replicas would stay."""
_REMEMBERED = 100_000
"""Uses that wait for the shared index."""


class SharedUpkeep:
    """One worker of all replicas runs it at a time. It lists the store in 256 shards, so that it never has all names in
    memory: first to measure how many bytes were last used in which hour, and to remove abandoned parts; then, if there
    are too many bytes, once more to remove the content that was used least recently. Content of pinned images counts,
    and is not removed.
    """

    def __init__(self, content: SharedContent, uses: SharedUses, pins: SharedPins, size: int, clock: Clock) -> None:
        """`size`: the bound in bytes."""
        self._content = content
        self._uses = uses
        self._pins = pins
        self._capacity = CacheCapacity(size)
        self._clock = clock
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
        """Look after the store, unless another worker does so now or did so within the last minutes."""
        began = self._clock.now()
        try:
            if await self._uses.take_upkeep(_LEASE_SECONDS) and await self._run():
                pause = max(_PAUSE_SECONDS, _PAUSE_FACTOR * (self._clock.now() - began))
                await self._uses.keep_upkeep(min(pause, _LONGEST_PAUSE_SECONDS))
        except SharedUnavailable:
            pass  # the adapter reports it; the next run follows in some minutes

    async def _run(self) -> bool:
        """Whether all is done. False: another worker has the lease now."""
        await self._uses.forget_before(self._clock.now() - _KEPT_USES_SECONDS)
        by_hour: Counter[int] = Counter()
        pinned = 0
        for shard in SHARDS:
            if not await self._uses.keep_upkeep(_LEASE_SECONDS):
                return False
            protected = await self._pins.protected()
            for digest, stored in (await self._content.stored(shard)).items():
                removed = await self._content.sweep(digest, stored)
                if digest in protected:
                    pinned += stored.size - removed
                elif stored.recorded_at is not None:
                    by_hour[int(stored.used_at // _HOUR)] += stored.size - removed
        excess = self._capacity.bytes_to_free(by_hour.total() + pinned)
        return excess <= 0 or not by_hour or await self._evict(by_hour, excess)

    async def _evict(self, by_hour: Counter[int], excess: int) -> bool:
        """Remove the content that was last used in the earliest hours, until `excess` bytes are free. Returns whether
        all is done, as `_run`.
        """
        last_hour = 0
        for last_hour in sorted(by_hour):
            if by_hour[last_hour] >= excess:
                break
            excess -= by_hour[last_hour]
        # All content of the earlier hours goes, and of the last hour as much as is still needed then.
        evicted: list[Digest] = []
        is_leased = True
        for shard in SHARDS:
            is_leased = await self._uses.keep_upkeep(_LEASE_SECONDS)
            if not is_leased:
                break
            protected = await self._pins.protected()
            for digest, stored in sorted((await self._content.stored(shard)).items(), key=lambda one: one[1].used_at):
                hour = stored.used_at // _HOUR
                if stored.recorded_at is None or digest in protected or hour > last_hour:
                    continue
                if hour == last_hour and excess <= 0:
                    continue
                freed = await self._content.drop(digest, stored)
                excess -= freed if hour == last_hour else 0
                evicted.append(digest)
        await self._content.forget(evicted)
        return is_leased
