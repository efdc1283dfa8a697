"""SharedLane: the attempts of one account or address at all workers of all replicas."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from application.concurrency import BackgroundTasks
from application.ports.login_counts import LoginCounts, LoginResult, SharedLoginCounts
from application.ports.shared import SharedUnavailable
from domain.login_pace import COUNTED_SECONDS, Pace
from domain.ports import Clock
from domain.value import Value

_READ_AGAIN_SECONDS = 5.0


class SharedCounting(Value, frozen=True):
    """What all lanes of one kind have in common. `kind`: separates the logins of accounts from those of upstreams."""

    counts: SharedLoginCounts
    kind: str
    background: BackgroundTasks


class SharedLane:
    """If the shared index does not answer, nothing is counted here, and the lane of this worker decides alone."""

    def __init__(self, shared: SharedCounting, name: str, pace: Pace, clock: Clock) -> None:
        self._shared = shared
        self._name = f"{shared.kind} {name}"
        self._pace = pace
        self._clock = clock
        self._known = LoginCounts()
        self._known_at = float("-inf")
        self._asked_at = float("-inf")
        self._writing = asyncio.Lock()
        """Held by each write, so that a wrong attempt is counted before it ends."""

    def distrusted(self) -> int:
        """The number of wrong and refused attempts at all replicas, as far as this worker knows. It may be read again
        in the background.
        """
        now = self._clock.now()
        if abs(now - self._asked_at) >= _READ_AGAIN_SECONDS:
            self._asked_at = now
            self._in_background(self._read())
        return self._known.wrong + self._known.refused if now - self._known_at < COUNTED_SECONDS else 0

    async def begin(self, until: float, pause: Callable[[float], Awaitable[object]]) -> str | None:
        """The id of the attempt, when it has begun; "" if the index does not answer. None if it could not begin before
        the time `until`.
        """
        while True:
            try:
                admission = await self._shared.counts.begin(self._name, self._pace)
            except SharedUnavailable:
                return ""
            self._learn(admission.counts)
            if not admission.wait:
                return admission.attempt
            if self._clock.now() + admission.wait > until:
                return None
            await pause(admission.wait)

    def end(self, attempt: str) -> None:
        if attempt:
            self._in_background(self._end(attempt))

    def record(self, result: LoginResult) -> None:
        self._in_background(self._record(result))

    async def _end(self, attempt: str) -> None:
        async with self._writing:
            await self._shared.counts.end(self._name, attempt)

    async def _record(self, result: LoginResult) -> None:
        async with self._writing:
            self._learn(await self._shared.counts.record(self._name, result))

    async def _read(self) -> None:
        self._learn(await self._shared.counts.counts(self._name))

    def _learn(self, counts: LoginCounts) -> None:
        self._known, self._known_at = counts, self._clock.now()

    def _in_background(self, work: Coroutine[Any, Any, None]) -> None:
        self._shared.background.start(_attempted(work))


async def _attempted(work: Coroutine[Any, Any, None]) -> None:
    try:
        await work
    except SharedUnavailable:
        return  # this worker has counted it
