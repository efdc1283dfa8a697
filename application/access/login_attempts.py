"""LoginAttempts: after wrong passwords, the next login waits before it is checked. The wait grows with each one."""

import asyncio
import hashlib
import math
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from application.access.shared_lane import SharedCounting, SharedLane
from application.concurrency import LruCache
from application.ports.login_counts import LoginResult
from application.ports.telemetry import EventSink
from domain.errors import TooManyAttempts
from domain.events import LoginDelayed, LoginRejected
from domain.login_pace import COUNTED_SECONDS, MOST_COUNTED, Pace
from domain.ports import Clock
from domain.value import Value

_PATIENCE = 10.0
"""Seconds. A login that would wait longer is refused at once, because clients do not wait much longer for a server."""
_DISTRUST = 20
"""After this number of wrong or refused attempts, a login that was correct before waits, too. See `trusts`."""
_LANES = 8192

Pause = Callable[[float], Awaitable[object]]


OF_ACCOUNT = Pace(free=3, first=1, longest=8, is_strict=True)
"""For one account from one address."""
OF_RELAYED = Pace(free=3, first=1, longest=8, is_strict=False)
"""For one account of an upstream from one address. Some registries give all clients one user name and each client its
own token as the password (`AWS`, `oauth2accesstoken`, `gitlab-ci-token`), so many logins at once may all be correct.
"""
OF_ADDRESS = Pace(free=30, first=0.5, longest=4, is_strict=False)
"""For one address and all accounts. Many people may use the same address, for example a whole office."""


class Attempt(Value, frozen=True):
    """A login to this account from this address. `exists`: the account exists."""

    address: str
    account: str
    exists: bool


class ExpectedWait(Value, frozen=True):
    """`seconds`: how long a login would wait if it came now; `is_refused`: it would be refused instead."""

    seconds: float = 0.0
    is_refused: bool = False


class _TooLongError(Exception):
    """The turn of the attempt would come too late."""


class _Counted:
    """Counts events of the last minutes, up to `MOST_COUNTED`."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._times: deque[float] = deque(maxlen=MOST_COUNTED)

    def add(self) -> None:
        self._times.append(self._clock.now())

    def clear(self) -> None:
        self._times.clear()

    def count(self) -> int:
        now = self._clock.now()
        if self._times and self._times[-1] > now:
            self._times.clear()  # the clock was set back, so the age of the events is not known
        while self._times and now - self._times[0] >= COUNTED_SECONDS:
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

    def __init__(self, pace: Pace, clock: Clock, shared: SharedLane | None) -> None:
        """`shared`: the lane of all replicas; None if this replica shares nothing."""
        self._pace = pace
        self._clock = clock
        self._shared = shared
        self._wrong = _Counted(clock)
        self._refused = _Counted(clock)
        self._running = 0
        self._waiting = 0
        self._turn = asyncio.Lock()
        self._ended = asyncio.Event()

    def record(self, result: LoginResult) -> None:
        """Count a result. A right one sets the counts to zero."""
        if result is LoginResult.RIGHT:
            self._wrong.clear()
            self._refused.clear()
        else:
            (self._wrong if result is LoginResult.WRONG else self._refused).add()
        # A flood of refused attempts must not become a flood of requests to the shared index.
        is_flood = result is LoginResult.REFUSED and self._refused.count() > _DISTRUST
        if self._shared and not is_flood:
            self._shared.record(result)

    def distrusted(self) -> int:
        """The number of wrong and refused attempts."""
        here = self._wrong.count() + self._refused.count()
        return max(here, self._shared.distrusted()) if self._shared else here

    def expected(self) -> float:
        """The seconds that an attempt would wait if it came now."""
        wrong = self._wrong.count()
        is_counted = self._pace.is_strict or wrong >= self._pace.free
        ahead = min(self._running + self._waiting, MOST_COUNTED) if is_counted else 0
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
                attempt = await self._shared.begin(until, pause) if self._shared else ""
                if attempt is None:
                    raise _TooLongError
                self._running += 1
        finally:
            self._waiting -= 1
        try:
            yield
        finally:
            self._running -= 1
            self._ended.set()
            if self._shared:
                self._shared.end(attempt)

    def _due(self) -> float:
        """The seconds until the next attempt may be checked."""
        wrong = self._wrong.count()
        return max(self._pace.seconds(wrong) - self._wrong.seconds_since(), 0.0) if wrong else 0.0

    async def _wait(self, until: float, pause: Pause) -> None:
        while True:
            if self._running and self._running >= self._pace.free - self._wrong.count():
                self._ended.clear()
                await self._ended.wait()
            elif not (due := self._due()):
                return
            elif self._clock.now() + due > until:
                raise _TooLongError
            else:
                await pause(due)


class LoginAttempts:
    """Counts wrong logins for each account and address, and for each address, in the memory of this process, and for
    all workers of all replicas if they share an index.

    An account is slowed down only for the address that sent the wrong logins. So an attacker at another address cannot
    lock out the owner.
    """

    def __init__(
        self,
        clock: Clock,
        events: EventSink,
        pause: Pause = asyncio.sleep,
        of_account: Pace = OF_ACCOUNT,
        shared: SharedCounting | None = None,
    ) -> None:
        """`shared`: None if this replica shares nothing."""
        self._clock = clock
        self._events = events
        self._pause = pause
        self._pace = of_account
        self._shared = shared
        self._of_account: LruCache[tuple[str, bytes], _Lane] = LruCache(_LANES)
        self._of_address: LruCache[str, _Lane] = LruCache(_LANES)

    def trusts(self, attempt: Attempt) -> bool:
        """Whether a login that was correct from this address before is accepted without a wait.

        An attacker at the same address could recognise the correct password by the missing wait. So this ends after
        some wrong or refused logins.
        """
        # Other replicas may have counted wrong logins of an account that has no lane here.
        lane = self._lane_of_account(attempt) if self._shared else self._of_account.get(_key(attempt))
        return lane is None or lane.distrusted() < _DISTRUST

    def expected(self, attempt: Attempt) -> ExpectedWait:
        """What this attempt would meet now, as far as this process has counted. Records nothing."""
        lanes = (self._of_account.get(_key(attempt)), self._of_address.get(attempt.address))
        seconds = max((lane.expected() for lane in lanes if lane), default=0.0)
        return ExpectedWait(seconds, seconds > _PATIENCE)

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
        self._lane_of_account(attempt).record(LoginResult.WRONG)
        self._lane_of_address(attempt).record(LoginResult.WRONG)

    def right(self, attempt: Attempt) -> None:
        """The login was correct. That says nothing about other accounts at this address."""
        self._lane_of_account(attempt).record(LoginResult.RIGHT)

    def _refusal(self, attempt: Attempt, seconds: float) -> TooManyAttempts:
        """Record a refusal. It does not make the wait longer: a client that keeps trying could never log in again."""
        if attempt.exists:
            self._lane_of_account(attempt).record(LoginResult.REFUSED)
        wait = max(math.ceil(seconds), 1)
        self._events.emit(LoginRejected(_shown(attempt), attempt.address, wait))
        return TooManyAttempts(f"too many wrong logins; try again in {wait} seconds", retry_after=wait)

    def _lane_of_account(self, attempt: Attempt) -> _Lane:
        key = _key(attempt)
        if (lane := self._of_account.get(key)) is None:
            shared = self._shared_lane(f"{len(attempt.address)}:{attempt.address}:{key[1].hex()}", self._pace)
            self._of_account.put(key, lane := _Lane(self._pace, self._clock, shared))
        return lane

    def _lane_of_address(self, attempt: Attempt) -> _Lane:
        if (lane := self._of_address.get(attempt.address)) is None:
            shared = self._shared_lane(attempt.address, OF_ADDRESS)
            self._of_address.put(attempt.address, lane := _Lane(OF_ADDRESS, self._clock, shared))
        return lane

    def _shared_lane(self, name: str, pace: Pace) -> SharedLane | None:
        return SharedLane(self._shared, name, pace, self._clock) if self._shared else None


def _key(attempt: Attempt) -> tuple[str, bytes]:
    """The key of a lane. The name is hashed, because an invented name may be very long, and there are thousands of
    lanes.
    """
    return attempt.address, hashlib.sha256(attempt.account.encode(errors="surrogatepass")).digest()


def _shown(attempt: Attempt) -> str:
    """The account for events; "" if it does not exist, because a user may type a password as a name."""
    return attempt.account if attempt.exists else ""
