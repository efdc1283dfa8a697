"""The leases of shared downloads in Redis."""

import asyncio
import secrets
import time
from collections.abc import Sequence
from contextlib import suppress
from contextvars import Context
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, cast

from adapters.shared.redis_connection import RedisConnection, key
from application.ports.shared import FollowedLease, SharedLease, SharedPart, SharedProgress, SharedUnavailable
from domain.digest import Digest
from domain.upstreams import Upstream
from domain.value import Value

LEASE_SECONDS = 4.0
"""A lease that is not renewed ends after this time."""
_RENEWAL_SECONDS = 1.0
_KEPT_SECONDS = 24 * 3600
"""Parts are forgotten this long after the last one was published. The sweep of the store then removes the objects."""

# Each script gets four keys of one slot: the lease, the list of parts, the length of the blob, and a key that exists
# for some seconds after a lease was released. The lease contains the replica and the id of the lease. The first item of
# the list is a random version, which changes when the list begins anew, so that a replica that follows can ask for the
# parts that it does not know.

_TAKE = """
local held = redis.call('GET', KEYS[1])
if held and string.sub(held, 1, #ARGV[2]) ~= ARGV[2] then
  return {0}
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[3])
redis.call('DEL', KEYS[4])
return {1, redis.call('GET', KEYS[3]), redis.call('LRANGE', KEYS[2], 0, -1)}
"""
"""ARGV: the lease, the beginning of all leases of this replica, milliseconds. Returns {0} if another replica has the
lease, otherwise {1, length, list}.
"""

_SYNC = """
local held = redis.call('GET', KEYS[1])
if held and held ~= ARGV[1] or not held and redis.call('EXISTS', KEYS[4]) == 1 then
  return 0
end
local version, known = ARGV[3], tonumber(ARGV[4])
if known == 0 then
  redis.call('DEL', KEYS[2])
elseif redis.call('LINDEX', KEYS[2], 0) ~= version or redis.call('LLEN', KEYS[2]) ~= known + 1 then
  return 2
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
if #ARGV > 6 then
  if known == 0 then
    redis.call('RPUSH', KEYS[2], version)
  end
  for index = 7, #ARGV do
    redis.call('RPUSH', KEYS[2], ARGV[index])
  end
  redis.call('EXPIRE', KEYS[2], ARGV[5])
end
if ARGV[6] ~= '' then
  redis.call('SET', KEYS[3], ARGV[6], 'EX', ARGV[5])
end
return 1
"""
"""Renews the lease and adds parts to the list. It also restores a lease and a list that the server has lost; but not
after another lease has begun and ended, because the list is then what that one left.

ARGV: the lease, its milliseconds, the version of the list, how many parts of it are known to be in the list, the
seconds that the list is kept, the length of the blob or "", and the parts to add. Returns 1; 0 if another replica has
the lease; 2 if the list has not the known parts: send all.
"""

_RELEASE = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return 0
end
redis.call('DEL', KEYS[1])
redis.call('SET', KEYS[4], '', 'PX', ARGV[3])
if ARGV[2] == '0' then
  redis.call('DEL', KEYS[2], KEYS[3])
end
return 1
"""
"""ARGV: the lease, whether the parts are kept (1 or 0), and milliseconds in which earlier leases end."""

_LOOK = """
local start = 1
if redis.call('LINDEX', KEYS[2], 0) == ARGV[1] then
  start = tonumber(ARGV[2]) + 1
end
return {
  redis.call('EXISTS', KEYS[1]), redis.call('GET', KEYS[3]), redis.call('LINDEX', KEYS[2], 0), start - 1,
  redis.call('LRANGE', KEYS[2], start, -1)
}
"""
"""ARGV: the known version of the list, and how many of its parts are known. Returns whether some replica has the lease,
the length of the blob, the version, how many known parts are still valid, and the parts after them.
"""


class _Synced(IntEnum):
    """The answers of _SYNC."""

    TAKEN = 0
    DONE = 1
    DIFFERS = 2


class RedisLeases:
    """Implements SharedLeases. `replica`: the id of this replica, in hexadecimal."""

    def __init__(self, connection: RedisConnection, replica: str, lease_seconds: float = LEASE_SECONDS) -> None:
        self._connection = connection
        self._replica = replica
        self._lease_seconds = lease_seconds

    async def lease(self, upstream: Upstream, digest: Digest) -> SharedLease | FollowedLease:
        keys = _keys(upstream.fingerprint, digest)
        lease_id = secrets.token_hex(8)
        value = f"{self._replica}:{lease_id}"
        asked_at = time.monotonic()
        milliseconds = int(self._lease_seconds * 1000)
        answer = await self._connection.call(_TAKE, keys, (value, f"{self._replica}:", milliseconds))
        match answer:
            case [1, total, list(items)]:
                progress = SharedProgress(_parts(items[1:]), _number(total), is_held=False)
                index = _Index(self._connection, keys, value, self._lease_seconds)
                return _RedisLease(index, lease_id, progress, asked_at, items[0] if items else b"")
            case _:
                return _FollowedRedisLease(self._connection, keys)

    async def progress(self, fingerprint: str, digest: Digest) -> SharedProgress:
        return await _FollowedRedisLease(self._connection, _keys(fingerprint, digest)).look()


class _Index(Value, frozen=True):
    """The keys of one blob of one upstream, for the holder of the lease with this value."""

    connection: RedisConnection
    keys: Sequence[str]
    value: str
    lease_seconds: float

    async def sync(self, version: bytes, known: int, total: int | None, added: Sequence[SharedPart]) -> _Synced:
        arguments = (
            *(self.value, int(self.lease_seconds * 1000), version, known, _KEPT_SECONDS),
            "" if total is None else total,
            *map(_item, added),
        )
        return _Synced(cast("int", await self.connection.call(_SYNC, self.keys, arguments, in_background=True)))

    async def release(self, *, keep: bool) -> None:
        milliseconds = int(2 * self.lease_seconds * 1000)
        await self.connection.call(_RELEASE, self.keys, (self.value, int(keep), milliseconds), in_background=True)


class _RedisLease:
    """Implements SharedLease. A task renews it until it is lost or released."""

    def __init__(self, index: _Index, lease_id: str, found: SharedProgress, asked_at: float, version: bytes) -> None:
        """`asked_at`: the monotonic time before the lease was requested. `version`: that of the list of parts."""
        self.id = lease_id
        self.found = found
        self._index = index
        self._version = version or lease_id.encode()
        self._parts = list(found.parts)
        self._total = found.total
        self._sent = len(found.parts)
        """How many of the parts are known to be in the list."""
        self._renewed_at = asked_at
        self._is_over = False
        self._turn = asyncio.Lock()
        """Held by a request, so that none of this lease arrives after its release."""
        # With a new context, so that the task does not write into the access log record of the current request.
        loop = asyncio.get_running_loop()
        self._renewal = loop.create_task(self._renew(), context=Context())

    @property
    def is_lost(self) -> bool:
        """Counted from the time before the last renewal was sent. The server counts from when it arrived, so a process
        that was paused knows that it has lost the lease before another replica can get it.
        """
        age = time.monotonic() - self._renewed_at
        return self._is_over or age >= self._index.lease_seconds

    async def publish(self, part: SharedPart, total: int | None) -> bool:
        """If the index does not answer, the part is sent with the next renewal."""
        self._parts.append(part)
        self._total = total if total is not None else self._total
        with suppress(SharedUnavailable):
            await self._sync()
        return not self.is_lost

    async def release(self, *, keep: bool) -> None:
        self._is_over = True
        async with self._turn:
            self._renewal.cancel()
            # If the index does not answer, the lease expires by itself.
            with suppress(SharedUnavailable):
                await self._index.release(keep=keep)

    async def _renew(self) -> None:
        while not self.is_lost:
            await asyncio.sleep(self._index.lease_seconds * _RENEWAL_SECONDS / LEASE_SECONDS)
            with suppress(SharedUnavailable):
                await self._sync()

    async def _sync(self) -> None:
        """Renew the lease, and send the parts that are not known to be in the list. Raises SharedUnavailable."""
        async with self._turn:
            if self.is_lost:
                return
            if await self._send() is _Synced.DIFFERS and not self.is_lost:
                # The server has lost the list, or a request had an effect although its answer did not arrive.
                self._sent = 0
                self._version = secrets.token_hex(8).encode()
                await self._send()

    async def _send(self) -> _Synced:
        asked_at, parts = time.monotonic(), len(self._parts)
        answer = await self._index.sync(self._version, self._sent, self._total, self._parts[self._sent :])
        if answer is _Synced.DONE:
            self._renewed_at, self._sent = asked_at, parts
        elif answer is _Synced.TAKEN:
            self._is_over = True
        return answer


@dataclass
class _FollowedRedisLease:
    """Implements FollowedLease. It asks only for the parts that it does not know."""

    connection: RedisConnection
    keys: Sequence[str]
    version: bytes = b""
    parts: list[SharedPart] = field(default_factory=list)

    async def look(self) -> SharedProgress:
        answer = await self.connection.call(_LOOK, self.keys, (self.version, len(self.parts)))
        is_held, total, version, known, added = cast("tuple[int, bytes | None, bytes | None, int, list[Any]]", answer)
        self.version = version or b""
        self.parts[known:] = _parts(added)
        return SharedProgress(tuple(self.parts), _number(total), is_held=bool(is_held))


def _keys(fingerprint: str, digest: Digest) -> tuple[str, ...]:
    return tuple(key(kind, f"{fingerprint}:{digest}") for kind in ("lease", "parts", "total", "released"))


def _item(part: SharedPart) -> str:
    return f"{part.offset} {part.size} {part.sha256} {part.key}"


def _parts(items: Sequence[bytes]) -> tuple[SharedPart, ...]:
    """Raises SharedUnavailable if an item is malformed, because something else has written it."""
    try:
        fields = [item.decode().split(" ", 3) for item in items]
        return tuple(SharedPart(name, int(offset), int(size), sha256) for offset, size, sha256, name in fields)
    except ValueError as error:
        raise SharedUnavailable("the shared index has a malformed list of parts") from error


def _number(text: object) -> int | None:
    """As `_parts`."""
    try:
        return None if text is None else int(cast("bytes", text))
    except ValueError as error:
        raise SharedUnavailable("the shared index has a malformed length") from error
