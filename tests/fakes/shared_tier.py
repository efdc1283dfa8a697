"""What replicas share, in memory."""

from dataclasses import replace

from entrypoints.wiring.shared_tier import SharedTier
from entrypoints.wiring.storage import Storage
from tests.fakes.clock import StoppedClock
from tests.fakes.index import MemoryImageIndex, MemoryKnowledgeIndex, MemoryUsageIndex
from tests.fakes.login_counts import FakeLoginCounts
from tests.fakes.parts import memory_storage
from tests.fakes.pins import MemoryPinIndex
from tests.fakes.rate_limits import FakeRateLimits, RateLimitTable
from tests.fakes.shared_leases import FakeLeaseTable, FakeSharedLeases
from tests.fakes.shared_store import FakeSharedStore
from tests.fakes.shared_uses import FakeSharedUses
from tests.fakes.turns import FakeTurns


class FakeTier:
    """A shared store and a shared index. `storage`: of a new replica, with an empty folder."""

    def __init__(self, clock: StoppedClock | None = None) -> None:
        self.clock = clock or StoppedClock()
        self.store = FakeSharedStore(self.clock)
        self.leases = FakeLeaseTable(self.clock)
        self.knowledge = MemoryKnowledgeIndex()
        self.pins = MemoryPinIndex()
        self._rate_limits = RateLimitTable()
        self._turns, self._logins, self._uses = FakeTurns(), FakeLoginCounts(self.clock), FakeSharedUses(self.clock)

    def storage(self, replica: str = "a replica") -> Storage:
        tier = SharedTier(
            store=self.store,
            leases=FakeSharedLeases(self.leases, replica),
            turns=self._turns,
            rate_limits=FakeRateLimits(self._rate_limits),
            login_counts=self._logins,
            index=self.knowledge,
            knowledge=self.knowledge,
            uses=self._uses,
            pins=self.pins,
            protection=self.pins,
            services=(),
        )
        return replace(
            memory_storage(),
            index=self.knowledge,
            usage=MemoryUsageIndex(self.pins),
            images=MemoryImageIndex(self.knowledge),
            pins=self.pins,
            shared=tier,
        )
