"""The ports to the history, which the page shows: the memory that all workers read, and the archive on the disk."""

from collections.abc import Collection, Iterable
from typing import Protocol

from domain.history import Bucket, Resolution


class History(Protocol):
    """The newest buckets of each resolution, over all workers. One worker records; every worker reads."""

    def begin(self, now: float) -> None:
        """What happened before is not recorded, if the last `record` was more than a minute ago."""

    def restore(self, buckets: Iterable[Bucket]) -> None:
        """Take over buckets of an earlier run, except for periods that are recorded already."""

    def record(self, now: float) -> list[Bucket]:
        """Add what all workers have done since the last `record`. Returns the buckets that have changed."""

    def buckets(self, resolution: Resolution, start: float, end: float) -> list[Bucket]:
        """The buckets that begin between these times, in seconds since 1970, in order. Periods in which nothing
        happened have none.
        """


class HistoryArchive(Protocol):
    """The buckets, kept over a restart. What cannot be stored or read is missing later; nothing is raised."""

    async def load(self) -> list[Bucket]:
        """All stored buckets."""

    async def save(self, buckets: Collection[Bucket], now: float) -> None:
        """Store these buckets, and remove those that are older than their resolution keeps, or begin after `now`."""
