"""RateLimitOutbox: what this worker has to tell the other workers and replicas about rate limits."""

from collections.abc import Iterable

from application.ports.rate_limits import AllowanceNews, RateLimitNews

_MOST = 4096


class RateLimitOutbox:
    """Holds the newest news of each kind about each caller and upstream, up to a limit."""

    def __init__(self) -> None:
        self._news: dict[tuple[object, ...], RateLimitNews] = {}

    def put(self, news: RateLimitNews) -> None:
        self._news.pop(_key(news), None)
        self._news[_key(news)] = news
        if len(self._news) > _MOST:
            del self._news[next(iter(self._news))]

    def take(self) -> list[RateLimitNews]:
        """All news; the outbox is then empty."""
        news = list(self._news.values())
        self._news.clear()
        return news

    def put_back(self, news: Iterable[RateLimitNews]) -> None:
        """Keep news that could not be sent, unless there are newer ones."""
        newer = self.take()
        for one in (*news, *newer):
            self.put(one)


def _key(news: RateLimitNews) -> tuple[object, ...]:
    return news.upstream, news.caller, None if isinstance(news, AllowanceNews) else news.manifests
