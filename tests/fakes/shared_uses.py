"""The uses of shared content, in memory."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from application.ports.shared import SharedUnavailable
from domain.digest import Digest
from domain.ports import Clock
from tests.fakes.clock import StoppedClock


@dataclass
class Upkeep:
    """Who looks after the store, and until when."""

    holder: object = None
    until: float = 0.0


@dataclass(eq=False)
class FakeSharedUses:
    """Implements SharedUses. `is_away`: every method raises SharedUnavailable."""

    clock: Clock = field(default_factory=StoppedClock)
    is_away: bool = False
    times: dict[Digest, float] = field(default_factory=dict)
    upkeep: Upkeep = field(default_factory=Upkeep)

    def of_another_worker(self) -> "FakeSharedUses":
        """What another worker uses at the same time."""
        return replace(self)

    async def touch(self, times: Mapping[Digest, float]) -> None:
        await self._answer()
        for digest, time in times.items():
            self.times[digest] = max(time, self.times.get(digest, time))

    async def last(self, digests: Sequence[Digest]) -> dict[Digest, float]:
        await self._answer()
        return {digest: self.times[digest] for digest in digests if digest in self.times}

    async def forget(self, digests: Sequence[Digest]) -> None:
        await self._answer()
        for digest in digests:
            self.times.pop(digest, None)

    async def forget_before(self, time: float) -> None:
        await self._answer()
        for digest in [digest for digest, used_at in self.times.items() if used_at < time]:
            del self.times[digest]

    async def take_upkeep(self, seconds: float) -> bool:
        await self._answer()
        if self.clock.now() < self.upkeep.until:
            return False
        self.upkeep.holder, self.upkeep.until = self, self.clock.now() + seconds
        return True

    async def keep_upkeep(self, seconds: float) -> bool:
        await self._answer()
        if self.clock.now() < self.upkeep.until and self.upkeep.holder is not self:
            return False
        self.upkeep.holder, self.upkeep.until = self, self.clock.now() + seconds
        return True

    async def _answer(self) -> None:
        await asyncio.sleep(0)
        if self.is_away:
            raise SharedUnavailable("the fake shared index is away")
