"""The lease of one worker of all replicas, in Redis. Others follow a fixed time after the last renewal."""

import secrets
from functools import partial

from redis.asyncio import Redis

from adapters.shared.redis_connection import RedisConnection

_KEEP = """
local held = redis.call('GET', KEYS[1])
if held and held ~= ARGV[1] then
  return 0
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
"""
"""ARGV: the value of the lease of this worker, and milliseconds. Returns 0 if another worker has the lease."""


class RedisWorkerLease:
    """The lease with this name, as one worker sees it. All methods raise SharedUnavailable."""

    def __init__(self, connection: RedisConnection, name: str) -> None:
        """`name`: of the key."""
        self._connection = connection
        self._name = name
        self._token = secrets.token_hex(8)
        """The value of the lease while this worker has it."""

    async def take(self, seconds: float) -> bool:
        """Take the lease if it is free. False: a worker has it, perhaps this one."""
        return await self._connection.run(partial(_take, self._name, self._token, _milliseconds(seconds)))

    async def keep(self, seconds: float) -> bool:
        """Take or renew the lease. False: another worker has it."""
        return bool(await self._connection.call(_KEEP, [self._name], [self._token, _milliseconds(seconds)]))


async def _take(name: str, token: str, milliseconds: int, redis: Redis) -> bool:
    return bool(await redis.set(name, token, nx=True, px=milliseconds))


def _milliseconds(seconds: float) -> int:
    """At least 1, because Redis accepts no less."""
    return max(1, int(seconds * 1000))
