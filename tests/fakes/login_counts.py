"""The wrong logins that several replicas count together, in memory."""

from collections import defaultdict
from dataclasses import dataclass, field

from application.ports.login_counts import Admission, LoginCounts, LoginResult
from application.ports.shared import SharedUnavailable
from domain.login_pace import COUNTED_SECONDS, MOST_COUNTED, Pace
from domain.ports import Clock

RUNNING_SECONDS = 10.0


@dataclass
class _Lane:
    running: dict[str, float] = field(default_factory=dict)
    wrong: list[float] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)


class FakeLoginCounts:
    """Implements SharedLoginCounts; all replicas use the same object. `is_away`: the index does not answer."""

    def __init__(self, clock: Clock) -> None:
        self.is_away = False
        self.requests = 0
        self.lanes: defaultdict[str, _Lane] = defaultdict(_Lane)
        self._clock = clock

    async def begin(self, lane: str, pace: Pace) -> Admission:
        known, now = self._lane(lane), self._clock.now()
        wrong, running = len(known.wrong), len(known.running)
        due = max(pace.seconds(wrong) - (now - known.wrong[-1]), 0.0) if wrong else 0.0
        if (pace.is_strict or wrong >= pace.free) and running and running >= pace.free - wrong:
            due = max(due, 0.1)
        attempt = str(self.requests)
        if not due:
            known.running[attempt] = now
        return Admission(LoginCounts(wrong, len(known.refused)), due, attempt)

    async def end(self, lane: str, attempt: str) -> None:
        self._lane(lane).running.pop(attempt, None)

    async def record(self, lane: str, result: LoginResult) -> LoginCounts:
        known = self._lane(lane)
        if result is LoginResult.RIGHT:
            known.wrong, known.refused = [], []
        else:
            times = known.wrong if result is LoginResult.WRONG else known.refused
            times.append(self._clock.now())
            del times[:-MOST_COUNTED]
        return LoginCounts(len(known.wrong), len(known.refused))

    async def counts(self, lane: str) -> LoginCounts:
        known = self._lane(lane)
        return LoginCounts(len(known.wrong), len(known.refused))

    def _lane(self, name: str) -> _Lane:
        self.requests += 1
        if self.is_away:
            raise SharedUnavailable("the index does not answer")
        lane, now = self.lanes[name], self._clock.now()
        lane.wrong = [time for time in lane.wrong if now - time < COUNTED_SECONDS]
        lane.refused = [time for time in lane.refused if now - time < COUNTED_SECONDS]
        lane.running = {one: time for one, time in lane.running.items() if now - time < RUNNING_SECONDS}
        return lane
