"""The uses of shared content, in Redis: a sorted set of digests by the time of the last use. And who looks after it."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial

from redis.asyncio import Redis

from adapters.shared.redis_connection import RedisConnection, key
from adapters.shared.redis_worker_lease import RedisWorkerLease
from domain.digest import Digest

_USES = key("uses", "all")
_UPKEEP = key("upkeep", "all")
_BATCH = 500
"""Digests of one command: Redis answers nobody else meanwhile."""


class RedisUses:
    """Implements SharedUses."""

    def __init__(self, connection: RedisConnection) -> None:
        self._connection = connection
        self._upkeep = RedisWorkerLease(connection, _UPKEEP)

    async def touch(self, times: Mapping[Digest, float]) -> None:
        for batch in _batches(list(times)):
            scores = {str(digest): times[digest] for digest in batch}
            await self._connection.run(partial(_touch, scores))

    async def last(self, digests: Sequence[Digest]) -> dict[Digest, float]:
        found: dict[Digest, float] = {}
        for batch in _batches(digests):
            scores = await self._connection.run(partial(_last, batch))
            found |= {digest: time for digest, time in zip(batch, scores, strict=True) if time is not None}
        return found

    async def forget(self, digests: Sequence[Digest]) -> None:
        for batch in _batches(digests):
            await self._connection.run(partial(_forget, batch))

    async def forget_before(self, time: float) -> None:
        while await self._connection.run(partial(_forget_some, time)) == _BATCH:
            pass

    async def take_upkeep(self, seconds: float) -> bool:
        return await self._upkeep.take(seconds)

    async def keep_upkeep(self, seconds: float) -> bool:
        return await self._upkeep.keep(seconds)


async def _touch(scores: dict[str, float], redis: Redis) -> object:
    return await redis.zadd(_USES, scores, gt=True)


async def _last(digests: Sequence[Digest], redis: Redis) -> list[float | None]:
    return await redis.zmscore(_USES, [str(digest) for digest in digests])


async def _forget(digests: Sequence[Digest], redis: Redis) -> object:
    return await redis.zrem(_USES, *map(str, digests))


async def _forget_some(time: float, redis: Redis) -> int:
    """Returns how many uses were found and forgotten, at most _BATCH."""
    names = await redis.zrangebyscore(_USES, "-inf", f"({time}", start=0, num=_BATCH)
    return await redis.zrem(_USES, *names) if names else 0


def _batches(digests: Sequence[Digest]) -> Iterator[Sequence[Digest]]:
    for start in range(0, len(digests), _BATCH):
        yield digests[start : start + _BATCH]
