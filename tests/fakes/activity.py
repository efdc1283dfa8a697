"""What workers are doing, in memory that several of them share."""

from application.ports.activity import Activity
from domain.ports import Clock

_VALID_SECONDS = 5.0


class MemoryActivityTable:
    """Implements ActivityTable. Workers with the same `reports` see each other's activity."""

    def __init__(self, worker: int, clock: Clock, reports: dict[int, tuple[float, Activity]] | None = None) -> None:
        self._worker = worker
        self._clock = clock
        self._reports = {} if reports is None else reports

    def report(self, activity: Activity) -> None:
        self._reports[self._worker] = self._clock.now(), activity

    def all(self) -> list[Activity]:
        since = self._clock.now() - _VALID_SECONDS
        return [one for at, one in self._reports.values() if at >= since and (one.downloads or one.troubles)]
