"""Retries: how often, and after which pause, a body that the upstream broke off is requested again."""

import asyncio

from domain.allowance import seconds_to_wait
from domain.errors import RegistryError, UpstreamThrottled
from domain.ports import Clock

_FIRST_PAUSE = 0.25
_LONGEST_PAUSE = 10.0


class Retries:
    """The retries of one body. `limit` retries in a row may bring no byte; each byte starts the count again."""

    def __init__(self, limit: int, clock: Clock) -> None:
        self._limit = limit
        self._clock = clock
        self._left = limit
        self._pause = _FIRST_PAUSE

    def progressed(self) -> None:
        """Bytes have arrived since the last retry."""
        self._left, self._pause = self._limit, _FIRST_PAUSE

    async def wait(self, fault: RegistryError) -> None:
        """Wait before the next retry: for as long as the upstream asks in Retry-After (RFC 9110 section 10.2.3), up to
        10 seconds; else twice as long each time. Raises `fault` where no retry is left.
        """
        if not self._left:
            raise fault
        field = fault.retry_after if isinstance(fault, UpstreamThrottled) else None
        asked = seconds_to_wait(field, self._clock.now())
        await asyncio.sleep(self._pause if asked is None else min(asked, _LONGEST_PAUSE))
        self._left, self._pause = self._left - 1, min(2 * self._pause, _LONGEST_PAUSE)
