"""The rate limits that several replicas share, in memory."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from application.ports.rate_limits import AllowanceNews, RateLimitNews
from application.ports.shared import SharedUnavailable


@dataclass
class RateLimitTable:
    """What the replicas share. `is_away`: the index does not answer."""

    is_away: bool = False
    version: int = 0
    entries: dict[tuple[object, ...], tuple[int, RateLimitNews]] = field(default_factory=dict)

    def lose(self) -> None:
        self.version += 1000  # as in Redis, where the first version is the time
        self.entries.clear()


class FakeRateLimits:
    """Implements RateLimitBoard for one worker."""

    def __init__(self, table: RateLimitTable) -> None:
        self._table = table
        self._version = 0

    async def exchange(self, news: Sequence[RateLimitNews]) -> list[RateLimitNews]:
        table = self._table
        if table.is_away:
            raise SharedUnavailable("the index does not answer")
        since = self._version if self._version <= table.version else 0
        for one in news:
            known = table.entries.get(_key(one))
            if known is None or _time(known[1]) <= _time(one):
                table.version += 1
                table.entries[_key(one)] = table.version, one
        self._version = table.version
        return [one for version, one in sorted(table.entries.values(), key=lambda entry: entry[0]) if version > since]


def _key(news: RateLimitNews) -> tuple[object, ...]:
    return news.upstream, news.caller, None if isinstance(news, AllowanceNews) else news.manifests


def _time(news: RateLimitNews) -> float:
    return news.allowance.seen_at if isinstance(news, AllowanceNews) else news.at
