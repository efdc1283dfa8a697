"""Rate limits in Redis: a hash of the newest values, and a sorted set that shows which have changed since a version."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import cast

from adapters.shared.redis_connection import RedisConnection, key
from application.ports.rate_limits import AllowanceNews, BackOffNews, RateLimitNews
from domain.allowance import Allowance
from domain.records import CallerId

_MOST = 4096
_AT_ONCE = 1000
"""The most entries in one answer. The next answer has the rest."""
_KEPT_SECONDS = 3600
"""The entries are forgotten this long after the last change. A back-off is shorter."""
_LONGEST_MESSAGE = 512
_KEYS = (key("limits", "all"), key("limits-order", "all"))

_EXCHANGE = """
local since, most, at_once, kept = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4]
local newest = redis.call('ZREVRANGE', KEYS[2], 0, 0, 'WITHSCORES')
local time = redis.call('TIME')
local version = tonumber(newest[2] or time[1] * 1000000 + time[2])
if since > version then
  since = 0
end
for index = 5, #ARGV, 3 do
  local field, at, value = ARGV[index], tonumber(ARGV[index + 1]), ARGV[index + 2]
  local known = redis.call('HGET', KEYS[1], field)
  local known_at = known and tonumber(string.match(known, '^%S+'))
  if not known_at or known_at <= at then
    version = version + 1
    redis.call('HSET', KEYS[1], field, ARGV[index + 1] .. ' ' .. value)
    redis.call('ZADD', KEYS[2], version, field)
  end
end
if #ARGV > 4 then
  local surplus = redis.call('ZCARD', KEYS[2]) - most
  if surplus > 0 then
    for _, field in ipairs(redis.call('ZRANGE', KEYS[2], 0, surplus - 1)) do
      redis.call('HDEL', KEYS[1], field)
    end
    redis.call('ZREMRANGEBYRANK', KEYS[2], 0, surplus - 1)
  end
  redis.call('EXPIRE', KEYS[1], kept)
  redis.call('EXPIRE', KEYS[2], kept)
end
local changed = redis.call('ZRANGEBYSCORE', KEYS[2], '(' .. string.format('%.0f', since), '+inf', 'LIMIT', 0, at_once)
if #changed == 0 then
  return {version, {}}
end
return {
  tonumber(redis.call('ZSCORE', KEYS[2], changed[#changed])), redis.call('HMGET', KEYS[1], unpack(changed))
}
"""
"""ARGV: the known version, the most entries, the most entries in the answer, the seconds until the entries are
forgotten, and for each entry its field, its time and its value. Returns the version and the entries after the known
one.

The first version is the time of the server in microseconds, so that it is newer than those of data that the server has
lost. A known version that is newer than all entries means that a failover has lost the newest ones: all entries are
returned.
"""


class RedisRateLimits:
    """Implements RateLimitBoard for one worker."""

    def __init__(self, connection: RedisConnection) -> None:
        self._connection = connection
        self._version = 0

    async def exchange(self, news: Sequence[RateLimitNews]) -> list[RateLimitNews]:
        entries = [text for one in news for text in (_field(one), repr(_time(one)), _encoded(one))]
        arguments: tuple[int | str, ...] = (self._version, _MOST, _AT_ONCE, _KEPT_SECONDS, *entries)
        answer = await self._connection.call(_EXCHANGE, _KEYS, arguments, in_background=True)
        self._version, found = cast("tuple[int, list[bytes | None]]", answer)
        decoded = (_decoded(value.partition(b" ")[2]) for value in found if value)
        return [one for one in decoded if one]


def _field(news: RateLimitNews) -> str:
    kind = "allowance" if isinstance(news, AllowanceNews) else "manifests" if news.manifests else "others"
    return f"{kind} {news.upstream} {news.caller}"


def _time(news: RateLimitNews) -> float:
    return news.allowance.seen_at if isinstance(news, AllowanceNews) else news.at


def _encoded(news: RateLimitNews) -> str:
    values = asdict(news)
    if isinstance(news, BackOffNews):
        values["message"] = news.message[:_LONGEST_MESSAGE]
    return json.dumps(values)


def _decoded(text: bytes) -> RateLimitNews | None:
    """None if the text is malformed, because another program has written it."""
    try:
        values = json.loads(text)
        upstream, caller = str(values["upstream"]), CallerId(str(values["caller"]))
        if allowance := values.get("allowance"):
            limit, remaining, window = (int(allowance[name]) for name in ("limit", "remaining", "window"))
            return AllowanceNews(upstream, caller, Allowance(limit, remaining, window, float(allowance["seen_at"])))
        return BackOffNews(
            *(upstream, caller, bool(values["manifests"])),
            *(float(values["at"]), float(values["until"]), str(values["message"])),
            is_from_upstream=bool(values["is_from_upstream"]),
        )
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
