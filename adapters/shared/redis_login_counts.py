"""Wrong logins in Redis: for each lane a sorted set of attempts by time."""

import hashlib
import secrets
from typing import cast

from adapters.shared.redis_connection import RedisConnection, key
from application.ports.login_counts import Admission, LoginCounts, LoginResult
from domain.login_pace import COUNTED_SECONDS, MOST_COUNTED, Pace

_RUNNING_SECONDS = 10
"""An attempt that has not ended after this time does not count as running: its worker may have been killed."""
_BUSY_SECONDS = 0.1

# The members of a set begin with r (running), w (wrong) or x (refused). The scores are seconds by the clock of the
# server.
_COUNT = """
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1000000
local counted, still_running, most = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local members = redis.call('ZRANGE', KEYS[1], 0, -1, 'WITHSCORES')
local found = {r = {}, w = {}, x = {}}
local last = 0
for index = 1, #members, 2 do
  local member, score = members[index], tonumber(members[index + 1])
  local kind = string.sub(member, 1, 1)
  if now - score >= (kind == 'r' and still_running or counted) or not found[kind] then
    redis.call('ZREM', KEYS[1], member)
  else
    table.insert(found[kind], member)
    if kind == 'w' then
      last = score
    end
  end
end
local function add(kind, id)
  if #found[kind] >= most then
    redis.call('ZREM', KEYS[1], table.remove(found[kind], 1))
  end
  table.insert(found[kind], kind .. id)
  redis.call('ZADD', KEYS[1], string.format('%.6f', now), kind .. id)
  redis.call('EXPIRE', KEYS[1], counted)
end
local function remove(kind)
  for _, member in ipairs(found[kind]) do
    redis.call('ZREM', KEYS[1], member)
  end
  found[kind] = {}
end
"""
"""The beginning of each script. ARGV: the seconds for which results count, those for which an attempt counts as
running, and the most entries of each kind.
"""

_ARGUMENTS = (int(COUNTED_SECONDS), _RUNNING_SECONDS, MOST_COUNTED)

_BEGIN = f"""{_COUNT}
local free, first, longest = tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])
local wrong = #found.w
local due = 0
if wrong >= free and wrong > 0 then
  due = math.max(math.min(first * 2 ^ (wrong - free), longest) - (now - last), 0)
end
if (ARGV[8] == '1' or wrong >= free) and #found.r > 0 and #found.r >= free - wrong then
  due = math.max(due, tonumber(ARGV[9]))
end
if due == 0 then
  add('r', ARGV[4])
end
return {{wrong, #found.x, tostring(due)}}
"""
"""ARGV, after those of _COUNT: the id of the attempt, the pace, and the seconds to wait for running attempts."""

_RECORD = f"""{_COUNT}
if ARGV[4] == 'right' then
  remove('w')
  remove('x')
else
  add(ARGV[4] == 'wrong' and 'w' or 'x', time[1] .. '.' .. time[2] .. '.' .. #members)
end
return {{#found.w, #found.x}}
"""
"""ARGV, after those of _COUNT: the result."""

_READ = f"""{_COUNT}
return {{#found.w, #found.x}}
"""


class RedisLoginCounts:
    """Implements SharedLoginCounts. `secret`: the key of the hashes of the names, which is the same at all replicas. So
    somebody who can read Redis learns neither accounts nor addresses.
    """

    def __init__(self, connection: RedisConnection, secret: bytes) -> None:
        self._connection = connection
        self._secret = secret

    async def begin(self, lane: str, pace: Pace) -> Admission:
        attempt = secrets.token_hex(8)
        numbers = (pace.free, pace.first, pace.longest, int(pace.is_strict), _BUSY_SECONDS)
        answer = await self._connection.call(_BEGIN, self._keys(lane), (*_ARGUMENTS, attempt, *numbers))
        wrong, refused, wait = cast("tuple[int, int, bytes]", answer)
        return Admission(LoginCounts(wrong, refused), float(wait), attempt)

    async def end(self, lane: str, attempt: str) -> None:
        [name] = self._keys(lane)
        await self._connection.run(lambda redis: redis.zrem(name, f"r{attempt}"), in_background=True)

    async def record(self, lane: str, result: LoginResult) -> LoginCounts:
        arguments = (*_ARGUMENTS, result.value)
        answer = await self._connection.call(_RECORD, self._keys(lane), arguments, in_background=True)
        return LoginCounts(*cast("tuple[int, int]", answer))

    async def counts(self, lane: str) -> LoginCounts:
        answer = await self._connection.call(_READ, self._keys(lane), _ARGUMENTS, in_background=True)
        return LoginCounts(*cast("tuple[int, int]", answer))

    def _keys(self, lane: str) -> list[str]:
        digest = hashlib.blake2b(lane.encode(errors="surrogatepass"), key=self._secret, digest_size=20)
        return [key("login", digest.hexdigest())]
