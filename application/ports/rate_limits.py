"""The port through which replicas tell each other the rate limits that upstreams have stated."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from domain.allowance import Allowance
from domain.records import CallerId


@dataclass(frozen=True)
class BackOffNews:
    """A back-off of one caller at one upstream has started or ended. `upstream`: its fingerprint; `manifests`: see
    Asker. `at`: when it happened; `until`: its end, not after `at` if it has ended. Both in seconds since 1970.
    """

    upstream: str
    caller: CallerId
    manifests: bool
    at: float
    until: float
    message: str = ""
    is_from_upstream: bool = False


@dataclass(frozen=True)
class AllowanceNews:
    """The upstream with this fingerprint has stated the allowance of this caller."""

    upstream: str
    caller: CallerId
    allowance: Allowance


RateLimitNews = BackOffNews | AllowanceNews


class RateLimitBoard(Protocol):
    """What the workers of all replicas have published. Of one upstream and caller it has only the newest of each kind.
    The number of entries is limited; those that changed first are removed first.
    """

    async def exchange(self, news: Sequence[RateLimitNews]) -> list[RateLimitNews]:
        """Publish the news, and return what has been published since the last call; it may contain the own news.
        Raises SharedUnavailable.
        """
