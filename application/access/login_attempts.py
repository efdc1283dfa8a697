"""LoginAttempts: after wrong passwords, the next login waits before it is checked. The wait grows with each one."""

import asyncio
import hashlib
import math
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from application.concurrency import LruCache
from application.ports.telemetry import EventSink
from domain.errors import TooManyAttempts
from domain.events import LoginDelayed, LoginRejected
from domain.ports import Clock

_COUNTED_SECONDS = 300.0
"""A wrong attempt counts for this time."""
_PATIENCE = 10.0
"""Seconds. A login that would wait longer is refused at once, because clients do not wait much longer for a server."""
_MOST_COUNTED = 40
_DISTRUST = 20
"""After this number of wrong or refused attempts, a login that was correct before waits, too. See `trusts`."""
_LANES = 8192

Pause = Callable[[float], Awaitable[object]]


@dataclass(frozen=True)
class Pace:
    """How long an attempt waits. The first `free` wrong attempts cause no wait. The next one causes `first` seconds;
    each further one doubles the wait, up to `longest` seconds. `is_strict`: attempts that are still running count as
    wrong.
    """

    free: int
    first: float
    longest: float
    is_strict: bool

    def seconds(self, wrong: int) -> float:
        """The wait after this number of wrong attempts."""
        return min(self.first * 2.0 ** (wrong - self.free), self.longest) if wrong >= self.free else 0.0


OF_ACCOUNT = Pace(free=3, first=1, longest=8, is_strict=True)
"""For one account from one address."""
OF_RELAYED = Pace(free=3, first=1, longest=8, is_strict=False)
"""For one account of an upstream from one address. Some registries give all clients one user name and each client its
own token as the password (`AWS`, `oauth2accesstoken`, `gitlab-ci-token`), so many logins at once may all be correct.
"""
OF_ADDRESS = Pace(free=30, first=0.5, longest=4, is_strict=False)
"""For one address and all accounts. Many people may use the same address, for example a whole office."""


@dataclass(frozen=True)
class Attempt:
    """A login to this account from this address. `exists`: the account exists."""

    address: str
    account: str
    exists: bool


class _TooLongError(Exception):
    """The turn of the attempt would come too late."""


class _Counted:
    """Counts events of the last minutes, up to `_MOST_COUNTED`."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._times: deque[float] = deque(maxlen=_MOST_COUNTED)

    def add(self) -> None:
        self._times.append(self._clock.now())

    def clear(self) -> None:
        self._times.clear()

    def count(self) -> int:
        now = self._clock.now()
        if self._times and self._times[-1] > now:
            self._times.clear()  # the clock was set back, so the age of the events is not known
        while self._times and now - self._times[0] >= _COUNTED_SECONDS:
            self._times.popleft()
        return len(self._times)

    def seconds_since(self) -> float:
        """The age of the last event, which must exist."""
        return self._clock.now() - self._times[-1]


class _Lane:
    """The queue of attempts for one account or address, in the order of arrival. The first wrong attempts cause no wait
    (`Pace.free`). As many attempts run at the same time as there are free ones left; when none is left, attempts run
    one at a time. So a client that sends attempts in parallel cannot try more passwords than one that does not.
    """

    def __init__(self, pace: Pace, clock: Clock) -> None:
        self._pace = pace
        self._clock = clock
        self.wrong = _Counted(clock)
        self.refused = _Counted(clock)
        self._running = 0
        self._waiting = 0
        self._turn = asyncio.Lock()
        self._ended = asyncio.Event()

    def expected(self) -> float:
        """The seconds that an attempt would wait if it came now."""
        wrong = self.wrong.count()
        is_counted = self._pace.is_strict or wrong >= self._pace.free
        ahead = min(self._running + self._waiting, _MOST_COUNTED) if is_counted else 0
        return self._due() + sum(self._pace.seconds(wrong + place) for place in range(1, ahead + 1))

    @asynccontextmanager
    async def turn(self, until: float, pause: Pause) -> AsyncIterator[None]:
        """The context of one attempt; it is entered when the turn comes. Raises _TooLongError if the wait after wrong
        attempts would last beyond the time `until`.
        """
        self._waiting += 1
        try:
            async with self._turn:
                await self._wait(until, pause)
                self._running += 1
        finally:
            self._waiting -= 1
        try:
            yield
        finally:
            self._running -= 1
            self._ended.set()

    def _due(self) -> float:
        """The seconds until the next attempt may be checked."""
        wrong = self.wrong.count()
        return max(self._pace.seconds(wrong) - self.wrong.seconds_since(), 0.0) if wrong else 0.0

    async def _wait(self, until: float, pause: Pause) -> None:
        while True:
            if self._running and self._running >= self._pace.free - self.wrong.count():
                self._ended.clear()
                await self._ended.wait()
            elif not (due := self._due()):
                return
            elif self._clock.now() + due > until:
                raise _TooLongError
            else:
                await pause(due)


class LoginAttempts:
    """Counts wrong logins for each account and address, and for each address, in the memory of this process.

    An account is slowed down only for the address that sent the wrong logins. So an attacker at another address cannot
    lock out the owner.
    """

    def __init__(
        self, clock: Clock, events: EventSink, pause: Pause = asyncio.sleep, of_account: Pace = OF_ACCOUNT
    ) -> None:
        self._clock = clock
        self._events = events
        self._pause = pause
        self._pace = of_account
        self._of_account: LruCache[tuple[str, bytes], _Lane] = LruCache(_LANES)
        self._of_address: LruCache[str, _Lane] = LruCache(_LANES)

    def trusts(self, attempt: Attempt) -> bool:
        """Whether a login that was correct from this address before is accepted without a wait.

        An attacker at the same address could recognise the correct password by the missing wait. So this ends after
        some wrong or refused logins.
        """
        lane = self._of_account.get(_key(attempt))
        return lane is None or lane.wrong.count() + lane.refused.count() < _DISTRUST

    @asynccontextmanager
    async def turn(self, attempt: Attempt) -> AsyncIterator[None]:
        """The turn of one attempt; the context is entered when it comes. Raises TooManyAttempts.

        The attempt waits for the account's turn first, because that delays no other account.
        """
        address = self._lane_of_address(attempt)
        if address.expected() > _PATIENCE:
            # Checked before the account gets a lane. Otherwise a flood of invented names would displace other lanes.
            raise self._refusal(attempt, address.expected())
        account = self._lane_of_account(attempt)
        expected = max(account.expected(), address.expected())
        if expected > _PATIENCE:
            raise self._refusal(attempt, expected)
        if expected > 0:
            self._events.emit(LoginDelayed(_shown(attempt), attempt.address, math.ceil(expected)))
        until = self._clock.now() + _PATIENCE
        try:
            async with account.turn(until, self._pause), address.turn(until, self._pause):
                yield
        except _TooLongError:
            raise self._refusal(attempt, max(account.expected(), address.expected())) from None

    def wrong(self, attempt: Attempt) -> None:
        self._lane_of_account(attempt).wrong.add()
        self._lane_of_address(attempt).wrong.add()

    def right(self, attempt: Attempt) -> None:
        """The login was correct. That says nothing about other accounts at this address."""
        lane = self._lane_of_account(attempt)
        lane.wrong.clear()
        lane.refused.clear()

    def _refusal(self, attempt: Attempt, seconds: float) -> TooManyAttempts:
        """Record a refusal. It does not make the wait longer: a client that keeps trying could never log in again."""
        if attempt.exists:
            self._lane_of_account(attempt).refused.add()
        wait = max(math.ceil(seconds), 1)
        self._events.emit(LoginRejected(_shown(attempt), attempt.address, wait))
        return TooManyAttempts(f"too many wrong logins; try again in {wait} seconds", retry_after=wait)

    def _lane_of_account(self, attempt: Attempt) -> _Lane:
        key = _key(attempt)
        if (lane := self._of_account.get(key)) is None:
            self._of_account.put(key, lane := _Lane(self._pace, self._clock))
        return lane

    def _lane_of_address(self, attempt: Attempt) -> _Lane:
        if (lane := self._of_address.get(attempt.address)) is None:
            self._of_address.put(attempt.address, lane := _Lane(OF_ADDRESS, self._clock))
        return lane


def _key(attempt: Attempt) -> tuple[str, bytes]:
    """The key of a lane. The name is hashed, because an invented name may be very long, and there are thousands of
    lanes.
    """
    return attempt.address, hashlib.sha256(attempt.account.encode(errors="surrogatepass")).digest()


def _shown(attempt: Attempt) -> str:
    """The account for events; "" if it does not exist, because a user may type a password as a name."""
    return attempt.account if attempt.exists else ""
