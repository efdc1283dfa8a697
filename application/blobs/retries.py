"""Retries: how often, and after which pause, a body that the upstream broke off is requested again."""

import asyncio

from domain.allowance import seconds_to_wait
from domain.errors import UpstreamContentChanged, UpstreamThrottled, UpstreamUnavailable
from domain.ports import Clock

_FIRST_PAUSE = 0.25
_LONGEST_PAUSE = 10.0


class Retries:
    """The retries of one body. `limit` retries in a row may bring no byte; each byte starts the count again."""

    def __init__(self, limit: int, clock: Clock) -> None:
        self._limit = limit
        self._clock = clock
        self._in_a_row = 0

    async def wait(self, fault: UpstreamUnavailable, *, has_progressed: bool) -> None:
        """Wait for the `pause` before the next retry."""
        await asyncio.sleep(self.pause(fault, has_progressed=has_progressed))

    def pause(self, fault: UpstreamUnavailable, *, has_progressed: bool) -> float:
        """The seconds until the next retry: as many as the upstream asks for in Retry-After (RFC 9110 section 10.2.3),
        up to 10; else twice as many each time. Raises `fault` if no retry is left, or if another request would bring
        the same response. `has_progressed`: bytes have arrived since the last retry.
        """
        if has_progressed:
            self._in_a_row = 0
        if self._in_a_row >= self._limit or isinstance(fault, UpstreamContentChanged):
            raise fault
        field = fault.retry_after if isinstance(fault, UpstreamThrottled) else None
        asked = seconds_to_wait(field, self._clock.now())
        seconds = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2**self._in_a_row if asked is None else asked)
        self._in_a_row += 1
        return seconds
