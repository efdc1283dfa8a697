"""Several replicas before one slow upstream. Each has its own storage; they share an index, a store, leases,
turns and rate limits.
"""

import asyncio
from dataclasses import replace
from typing import Any

from dependency_injector import providers

from application.blobs.shared_download import SharedDownloads
from application.upstreams.rate_limit_outbox import RateLimitOutbox
from domain.events import BytesFetched, SharedDownloadStarted
from tests.application.support.line import Line, VirtualTimeLoop, elapsed
from tests.application.support.watched import watched
from tests.fakes.clock import StoppedClock
from tests.fakes.index import MemoryKnowledgeIndex
from tests.fakes.parts import memory_storage
from tests.fakes.rate_limits import FakeRateLimits, RateLimitTable
from tests.fakes.shared_leases import FakeLeaseTable, FakeSharedLeases
from tests.fakes.shared_store import FakeSharedStore
from tests.fakes.turns import FakeTurns


class Replica(Line):
    """One replica and its clients."""

    leases: FakeSharedLeases

    @property
    def roles(self) -> list[str]:
        """What it did for its downloads."""
        return [event.role for event in self.service.events if isinstance(event, SharedDownloadStarted)]

    async def crash(self) -> None:
        """End the replica as kill -9 does: it says nothing to anybody. Its clients lose their connections."""
        self.cut_off()
        parts = self.service.parts
        await asyncio.gather(parts.downloads().close(), parts.replicas().close())

    def cut_off(self) -> None:
        """The index hears nothing from it any more."""
        self.leases.is_cut_off = True
        self.leases.stop_renewals()


class LoopClock:
    """Implements Clock with the time of the event loop."""

    def now(self) -> float:
        return elapsed()


class SlowStore(FakeSharedStore):
    """`seconds`: the time that each call takes."""

    seconds = 0.001

    async def _answer(self, method: str) -> None:
        await asyncio.sleep(self.seconds)
        await super()._answer(method)


class Replicas:
    """`settings`: of each replica."""

    def __init__(self, count: int = 2, **settings: Any) -> None:
        self.upstream = watched()
        self.store = SlowStore()
        self.index = FakeLeaseTable(LoopClock())
        self.knowledge = MemoryKnowledgeIndex()
        self.turns = FakeTurns()
        self.rate_limits = RateLimitTable()
        self.clock = StoppedClock()
        self._settings = settings
        self.all = [self.added(number) for number in range(count)]

    def added(self, number: int) -> Replica:
        """A new replica with an empty storage."""
        storage = replace(memory_storage(), index=self.knowledge)
        replica = Replica(upstream=self.upstream, storage=storage, clock=self.clock, **self._settings)
        replica.leases = FakeSharedLeases(self.index, f"replica{number}")
        parts = replica.service.parts
        parts.replicas.override(
            providers.Singleton(
                SharedDownloads,
                store=self.store,
                leases=replica.leases,
                provenance=parts.provenance,
                events=parts.events,
            )
        )
        parts.manifest_cache.add_kwargs(shared=self.store)
        parts.fetch_manifest.add_kwargs(turns=self.turns)
        parts.outbox.override(providers.Singleton(RateLimitOutbox))
        parts.rate_limits.add_kwargs(board=FakeRateLimits(self.rate_limits))
        return replica

    @property
    def fetched(self) -> int:
        """Bytes that the upstream has sent to all replicas."""
        return sum(event.count for one in self.all for event in one.service.events if isinstance(event, BytesFetched))

    def run(self, action: Any) -> Any:
        async def whole() -> Any:
            for one in self.all:
                await one.logged_in()
            try:
                return await action
            finally:
                for one in self.all:
                    await one.service._finish(asyncio.sleep(0))

        with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
            return runner.run(whole())
