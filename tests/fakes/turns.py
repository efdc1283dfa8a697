"""Turns of several replicas, in memory. Their time is that of the event loop."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count

from application.ports.turns import TURN_SECONDS, Turn
from domain.upstreams import Source

_numbers = count(1)


@dataclass
class FakeTurns:
    """Implements Turns; all replicas use the same object. `is_away`: the index does not answer."""

    seconds: float = TURN_SECONDS
    is_away: bool = False
    running: dict[tuple[Source, str], tuple[str, float]] = field(default_factory=dict)
    """The id and the end of each turn."""

    async def take(self, source: Source, names: Sequence[str]) -> Turn | None:
        if self.is_away:
            return Turn(source, tuple(names), "")
        if not await self.is_over(source, names):
            return None
        turn = Turn(source, tuple(names), str(next(_numbers)))
        end = asyncio.get_running_loop().time() + self.seconds
        self.running.update({(source, name): (turn.id, end) for name in names})
        return turn

    async def add(self, source: Source, name: str, other: str) -> None:
        if not await self.is_over(source, (name,)) and await self.is_over(source, (other,)):
            self.running[source, other] = self.running[source, name]

    async def is_over(self, source: Source, names: Sequence[str]) -> bool:
        now = asyncio.get_running_loop().time()
        known = [self.running.get((source, name)) for name in names]
        return self.is_away or not any(one and now < one[1] for one in known)

    async def end(self, turn: Turn, added: Sequence[str] = ()) -> None:
        for name in (*turn.names, *added):
            known = self.running.get((turn.source, name))
            if known and known[0] == turn.id and not self.is_away:
                del self.running[turn.source, name]
