"""Two replicas that share leases, on a real Valkey or on the fake."""

import hashlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

from adapters.shared.redis_connection import RedisConnection
from adapters.shared.redis_leases import RedisLeases
from application.ports.shared import FollowedLease, SharedLease, SharedLeases, SharedPart
from domain.digest import Digest
from domain.upstreams import Upstream
from tests.contracts.replicas import connected, let_expire, silence, with_each_kind
from tests.contracts.storage import HUB
from tests.e2e.support.valkey import Valkey
from tests.fakes.shared_leases import LEASE_SECONDS, FakeLeaseTable, FakeSharedLeases

DIGEST = Digest.of(b"a layer")
REAL_SECONDS = 60.0
"""Much longer than a test: only `let_leases_end` ends a lease that nobody releases."""


class Index(Protocol):
    """What the replicas share."""

    async def let_leases_end(self, holder: SharedLeases) -> None:
        """The replica does not renew its leases any more, and their time passes."""

    async def stop(self) -> None:
        """The index does not answer any more."""


@dataclass(frozen=True)
class TwoReplicas:
    """The replicas `one` and `other`, and another worker of `one`."""

    one: SharedLeases
    other: SharedLeases
    worker_of_one: SharedLeases
    index: Index


class _RealIndex:
    def __init__(self, server: Valkey, connections: Sequence[RedisConnection]) -> None:
        self._server = server
        self._connections = connections

    async def let_leases_end(self, holder: SharedLeases) -> None:
        assert isinstance(holder, _ObservedLeases)
        for lease in holder.taken:
            lease._renewal.cancel()
            lease._renewed_at -= REAL_SECONDS
            let_expire(self._server, lease._index.keys[0], within=REAL_SECONDS)

    async def stop(self) -> None:
        silence(self._server, self._connections)


class _ObservedLeases(RedisLeases):
    """Remembers its leases."""

    def __init__(self, connection: RedisConnection, replica: str) -> None:
        super().__init__(connection, replica, REAL_SECONDS)
        self.taken: list = []

    async def lease(self, upstream: Upstream, digest: Digest) -> SharedLease | FollowedLease:
        lease = await super().lease(upstream, digest)
        if not isinstance(lease, FollowedLease):
            self.taken.append(lease)
        return lease


class _FakeIndex:
    def __init__(self, table: FakeLeaseTable) -> None:
        self._table = table

    async def let_leases_end(self, holder: SharedLeases) -> None:
        assert isinstance(holder, FakeSharedLeases)
        holder.stop_renewals()
        self._table.clock.advance(1.2 * LEASE_SECONDS)

    async def stop(self) -> None:
        self._table.is_away = True


@asynccontextmanager
async def two_replicas(kind: str, server: Valkey) -> AsyncIterator[TwoReplicas]:
    if kind == "fake":
        table = FakeLeaseTable()
        yield TwoReplicas(
            FakeSharedLeases(table, "one"),
            FakeSharedLeases(table, "other"),
            FakeSharedLeases(table, "one"),
            _FakeIndex(table),
        )
        return
    async with connected(server, 3) as connections:
        replicas = [_ObservedLeases(one, name) for one, name in zip(connections, ("one", "other", "one"), strict=True)]
        try:
            yield TwoReplicas(*replicas, _RealIndex(server, connections))
        finally:
            server.resume()
            for lease in (lease for replica in replicas for lease in replica.taken):
                await lease.release(keep=False)


by_two_replicas = with_each_kind(two_replicas)


async def held(replica: SharedLeases, digest: Digest = DIGEST, upstream: Upstream = HUB) -> SharedLease:
    """The lease, which no other replica has."""
    lease = await replica.lease(upstream, digest)
    assert not isinstance(lease, FollowedLease)
    return lease


async def followed(replica: SharedLeases, digest: Digest = DIGEST, upstream: Upstream = HUB) -> FollowedLease:
    """The lease of another replica."""
    lease = await replica.lease(upstream, digest)
    assert isinstance(lease, FollowedLease)
    return lease


def part(offset: int, lease: SharedLease, size: int = 10) -> SharedPart:
    sha256 = hashlib.sha256(str(offset).encode()).hexdigest()
    return SharedPart(f"parts/sha256/ab/{DIGEST.encoded}/{HUB.fingerprint}/{lease.id}/{offset}", offset, size, sha256)
