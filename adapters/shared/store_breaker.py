"""StoreBreaker: after a failure of the shared store, no caller waits for it until it answers again."""

import asyncio
from collections.abc import Awaitable, Callable
from contextvars import Context

from application.ports.shared import SharedUnavailable
from application.ports.telemetry import EventSink
from domain.events import SharedStoreLost, SharedStoreRecovered

TRIAL_SECONDS = 5.0


class StoreBreaker:
    """A circuit breaker. While it is open, it tries the store in the background, so that no client waits for a trial:
    a silent store would cost each of them the whole time limit.
    """

    def __init__(
        self,
        address: str,
        trial: Callable[[], Awaitable[None]],
        events: EventSink,
        trial_seconds: float,
    ) -> None:
        """`address`: the store, for messages. `trial`: sends one small request within a bounded time; raises
        SharedUnavailable. `trial_seconds`: the pause before each trial.
        """
        self._address = address
        self._trial = trial
        self._events = events
        self._trial_seconds = trial_seconds
        self._trials: asyncio.Task[None] | None = None
        """Runs while the breaker is open."""
        self.failure = ""
        """Why the store is not available; empty if it is."""

    def check(self) -> None:
        """Raises SharedUnavailable while the breaker is open."""
        if self.failure:
            raise SharedUnavailable(self.failure)

    def open(self, reason: str) -> None:
        """Open the breaker. A second failure of a running call changes nothing."""
        if self.failure:
            return
        self.failure = reason
        self._events.emit(SharedStoreLost(self._address, reason))
        # With a new context, so that the work does not write into the access log record of the current request.
        self._trials = asyncio.get_running_loop().create_task(self._try(), context=Context())

    async def close(self) -> None:
        """Stop the trials."""
        if self._trials:
            self._trials.cancel()
            await asyncio.gather(self._trials, return_exceptions=True)

    async def _try(self) -> None:
        while self.failure:
            await asyncio.sleep(self._trial_seconds)
            try:
                await self._trial()
            except SharedUnavailable as error:
                self.failure = str(error)
            else:
                self.failure = ""
                self._events.emit(SharedStoreRecovered(self._address))
