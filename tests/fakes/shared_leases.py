"""The leases of several replicas, in memory."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count

from application.ports.shared import FollowedLease, SharedLease, SharedPart, SharedProgress, SharedUnavailable
from domain.digest import Digest
from domain.ports import Clock
from domain.upstreams import Upstream
from tests.fakes.clock import StoppedClock

LEASE_SECONDS = 4.0


@dataclass
class _Entry:
    """What the index knows of one blob of one upstream. `ends_at`: when the lease ends; None while it is renewed."""

    holder: "_FakeLease | None" = None
    ends_at: float | None = None
    parts: tuple[SharedPart, ...] = ()
    total: int | None = None


@dataclass
class FakeLeaseTable:
    """What the replicas share. `is_away`: the index does not answer. `lose()` empties it."""

    clock: Clock = field(default_factory=StoppedClock)
    is_away: bool = False
    entries: dict[tuple[str, Digest], _Entry] = field(default_factory=dict)
    ids: Iterator[int] = field(default_factory=count)

    def lose(self) -> None:
        """As a flushed index: the leases are lost when their holders or others ask next."""
        self.entries.clear()

    def entry(self, key: tuple[str, Digest]) -> _Entry:
        entry = self.entries.setdefault(key, _Entry())
        if entry.ends_at is not None and self.clock.now() >= entry.ends_at:
            entry.holder = entry.ends_at = None
        return entry

    async def answer(self) -> None:
        await asyncio.sleep(0)
        if self.is_away:
            raise SharedUnavailable("the fake shared index is away")


class FakeSharedLeases:
    """Implements SharedLeases for one replica. Its leases are renewed until `stop_renewals`. `is_cut_off`: the index
    hears nothing from this replica.
    """

    def __init__(self, table: FakeLeaseTable, replica: str = "a replica") -> None:
        self._table = table
        self._replica = replica
        self._leases: list[_FakeLease] = []
        self.is_cut_off = False

    async def answer(self) -> None:
        await self._table.answer()
        if self.is_cut_off:
            raise SharedUnavailable("the fake shared index cannot be reached")

    async def lease(self, upstream: Upstream, digest: Digest) -> SharedLease | FollowedLease:
        await self.answer()
        key = (upstream.fingerprint, digest)
        entry = self._table.entry(key)
        if entry.holder and entry.holder.replica != self._replica:
            return _FakeFollowedLease(self, self._table, key)
        lease = _FakeLease(self, self._table, key, self._replica)
        entry.holder, entry.ends_at = lease, None
        self._leases.append(lease)
        return lease

    async def progress(self, fingerprint: str, digest: Digest) -> SharedProgress:
        return await _FakeFollowedLease(self, self._table, (fingerprint, digest)).look()

    def stop_renewals(self) -> None:
        """As a killed or stopped process: its leases end after LEASE_SECONDS of the clock."""
        for lease in self._leases:
            lease.stop_renewals()


class _FakeLease:
    """Implements SharedLease."""

    def __init__(self, leases: FakeSharedLeases, table: FakeLeaseTable, key: tuple[str, Digest], replica: str) -> None:
        self.id = f"lease{next(table.ids)}"
        self.replica = replica
        self._leases = leases
        self._table = table
        self._key = key
        self._was_refused = False
        entry = table.entry(key)
        self.found = SharedProgress(entry.parts, entry.total, is_held=False)

    @property
    def is_lost(self) -> bool:
        return self._was_refused or self._table.entry(self._key).holder is not self

    async def publish(self, part: SharedPart, total: int | None) -> bool:
        try:
            await self._leases.answer()
        except SharedUnavailable:
            self._was_refused = True
        if self.is_lost:
            return False
        entry = self._table.entry(self._key)
        entry.parts = (*entry.parts, part)
        entry.total = total if total is not None else entry.total
        return True

    async def release(self, *, keep: bool) -> None:
        await asyncio.sleep(0)
        entry = self._table.entry(self._key)
        if entry.holder is self and not self._leases.is_cut_off:
            entry.holder = entry.ends_at = None
            if not keep:
                entry.parts, entry.total = (), None
        self._was_refused = True

    def stop_renewals(self) -> None:
        entry = self._table.entry(self._key)
        if entry.holder is self:
            entry.ends_at = self._table.clock.now() + LEASE_SECONDS


@dataclass
class _FakeFollowedLease:
    """Implements FollowedLease."""

    leases: FakeSharedLeases
    table: FakeLeaseTable
    key: tuple[str, Digest]

    async def look(self) -> SharedProgress:
        await self.leases.answer()
        entry = self.table.entry(self.key)
        return SharedProgress(entry.parts, entry.total, is_held=entry.holder is not None)
