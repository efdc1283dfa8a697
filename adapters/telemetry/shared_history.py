"""The history in memory that all workers share: a ring of buckets for each resolution."""

from array import array
from collections.abc import Callable, Iterable

from adapters.telemetry.shared_numbers import shared_integers
from domain.history import NUMBERS, RESOLUTIONS, SAMPLE_SECONDS, Bucket, Resolution, Totals

_LONGEST_GAP = 60.0
"""Seconds. A worker that replaces a dead one starts earlier; a page that was off may have been so for days."""
_WIDTH = 1 + NUMBERS
"""A slot has the start of its bucket, 0 if it is empty, and then the numbers."""


class SharedHistory:
    """Implements History. The main process creates the memory before it forks the workers; only one worker writes.

    The numbers of the metrics are in memory too, and both are new after a restart of the service. So the numbers never
    decrease, and the time between the last sample and a restart is all that can be missing.
    """

    def __init__(self, totals: Callable[[], Totals]) -> None:
        """`totals`: what all workers have done since the start of the service."""
        self._totals = totals
        self._rings = {one: shared_integers(one.kept * _WIDTH) for one in RESOLUTIONS}
        self._last = shared_integers(_WIDTH)
        """The time of the last sample, 0 before the first one, and its numbers."""

    def begin(self, now: float) -> None:
        if not 0 <= now - self._last[0] <= _LONGEST_GAP:
            self._remember(now, self._totals().numbers)

    def restore(self, buckets: Iterable[Bucket]) -> None:
        resolutions = {one.seconds: one for one in RESOLUTIONS}
        for bucket in buckets:
            resolution = resolutions.get(bucket.seconds)
            if resolution and bucket.start > self._rings[resolution][_slot(resolution, bucket.start)]:
                self._add(resolution, bucket.start, bucket.totals.numbers)

    def record(self, now: float) -> list[Bucket]:
        began = self._last[0]
        before, numbers = self._last.tolist()[1:], self._totals().numbers
        # A number that another worker is changing may be read a little too small.
        self._remember(now, tuple(map(max, numbers, before)))
        added = [max(0, number - earlier) for number, earlier in zip(numbers, before, strict=True)]
        if not any(added):
            return []
        # Samples are taken at the ends of buckets, but never exactly. So what happened belongs to the bucket in which
        # the middle of the time since the last sample is, unless the machine has slept.
        at = now - min(max(0.0, now - began), SAMPLE_SECONDS) / 2
        return [self._add(resolution, resolution.start_of(at), added) for resolution in RESOLUTIONS]

    def buckets(self, resolution: Resolution, start: float, end: float) -> list[Bucket]:
        ring = self._rings[resolution]
        numbers = ring.tolist()
        found = []
        for slot in range(0, len(numbers), _WIDTH):
            begins = numbers[slot]
            # It may have been given to another bucket since the numbers were read.
            if begins and start <= begins < end and ring[slot] == begins:
                found.append(Bucket(resolution.seconds, begins, Totals.of(numbers[slot + 1 : slot + _WIDTH])))
        return sorted(found, key=lambda one: one.start)

    def _remember(self, now: float, numbers: Iterable[int]) -> None:
        self._last[:] = memoryview(array("Q", (int(now), *numbers)))

    def _add(self, resolution: Resolution, start: int, added: Iterable[int]) -> Bucket:
        ring, slot = self._rings[resolution], _slot(resolution, start)
        if ring[slot] != start:
            ring[slot] = 0  # so that no reader takes the old numbers for those of the new bucket
            ring[slot + 1 : slot + _WIDTH] = memoryview(array("Q", bytes(8 * NUMBERS)))
            ring[slot] = start
        for place, number in enumerate(added, slot + 1):
            ring[place] += number
        return Bucket(resolution.seconds, start, Totals.of(ring[slot + 1 : slot + _WIDTH].tolist()))


def _slot(resolution: Resolution, start: int) -> int:
    """Where the slot of the bucket begins."""
    return start // resolution.seconds % resolution.kept * _WIDTH
