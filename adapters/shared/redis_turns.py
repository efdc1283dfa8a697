"""Turns in Redis: one key for each name, with an expiry."""

import secrets
from collections.abc import Sequence
from contextlib import suppress

from adapters.shared.redis_connection import RedisConnection, key
from application.ports.shared import SharedUnavailable
from application.ports.turns import TURN_SECONDS, Turn
from domain.upstreams import Source

_TAKE = """
if redis.call('EXISTS', unpack(KEYS)) > 0 then
  return 0
end
for _, name in ipairs(KEYS) do
  redis.call('SET', name, ARGV[1], 'PX', ARGV[2])
end
return 1
"""
"""ARGV: the id of the turn, milliseconds. Returns 0 if one of the names is taken."""

_ADD = """
local id, left = redis.call('GET', KEYS[1]), redis.call('PTTL', KEYS[1])
if id and left > 0 then
  redis.call('SET', KEYS[2], id, 'PX', left, 'NX')
end
"""

_END = """
for _, name in ipairs(KEYS) do
  if redis.call('GET', name) == ARGV[1] then
    redis.call('DEL', name)
  end
end
"""
"""ARGV: the id of the turn."""


class RedisTurns:
    """Implements Turns. All names of a repository are in one slot of a cluster."""

    def __init__(self, connection: RedisConnection, seconds: float = TURN_SECONDS) -> None:
        self._connection = connection
        self._milliseconds = int(seconds * 1000)

    async def take(self, source: Source, names: Sequence[str]) -> Turn | None:
        turn = Turn(source, tuple(names), secrets.token_hex(8))
        try:
            is_taken = await self._connection.call(_TAKE, _keys(source, names), (turn.id, self._milliseconds))
        except SharedUnavailable:
            return Turn(source, tuple(names), "")
        return turn if is_taken else None

    async def add(self, source: Source, name: str, other: str) -> None:
        with suppress(SharedUnavailable):
            await self._connection.call(_ADD, _keys(source, (name, other)), ())

    async def is_over(self, source: Source, names: Sequence[str]) -> bool:
        keys = _keys(source, names)
        try:
            return await self._connection.run(lambda redis: redis.exists(*keys)) == 0
        except SharedUnavailable:
            return True

    async def end(self, turn: Turn, added: Sequence[str] = ()) -> None:
        if turn.id:
            with suppress(SharedUnavailable):
                keys = _keys(turn.source, (*turn.names, *added))
                await self._connection.call(_END, keys, (turn.id,), in_background=True)


def _keys(source: Source, names: Sequence[str]) -> list[str]:
    tag = f"{source.upstream.fingerprint}:{source.repository}"
    return [key("turn", tag, name) for name in dict.fromkeys(names)]
