"""The port through which replicas count wrong logins together."""

from enum import Enum
from typing import Protocol

from domain.login_pace import Pace
from domain.value import Value


class LoginResult(Enum):
    """The result of an attempt. REFUSED: it was not checked, because too many were waiting."""

    WRONG = "wrong"
    REFUSED = "refused"
    RIGHT = "right"


class LoginCounts(Value, frozen=True):
    """The wrong and refused attempts of the last minutes, at all replicas."""

    wrong: int = 0
    refused: int = 0


class Admission(Value, frozen=True):
    """Whether an attempt may begin. `wait`: the seconds until it may ask again; 0 if it has begun. `attempt`: the id of
    the attempt if it has begun.
    """

    counts: LoginCounts
    wait: float
    attempt: str


class SharedLoginCounts(Protocol):
    """Counts attempts for each lane: an account at an address, or an address. An implementation stores no names of
    lanes that can be guessed. Each method raises SharedUnavailable.
    """

    async def begin(self, lane: str, pace: Pace) -> Admission:
        """Let an attempt begin if the pace allows it now. For a strict pace, and after the free wrong
        attempts, running attempts of all replicas count.
        """

    async def end(self, lane: str, attempt: str) -> None:
        """The attempt does not run any more."""

    async def record(self, lane: str, result: LoginResult) -> LoginCounts:
        """Count a result. A right one sets the counts to zero."""

    async def counts(self, lane: str) -> LoginCounts: ...
