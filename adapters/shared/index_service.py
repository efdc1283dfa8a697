"""IndexService: the shared index as operators see it."""

import secrets
from collections.abc import Mapping
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from adapters.shared.redis_connection import RedisConnection, key
from application.ports.shared import ServiceExamination, SharedUnavailable
from domain.redis_address import RedisAddress

_PROBE_MILLISECONDS = 10_000
_PROBE = """
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
local found = redis.call('GET', KEYS[1])
redis.call('DEL', KEYS[1])
return found
"""
_OLDEST = (6, 2)
"""The first version with all commands that the mirror uses. Valkey reports 7.2 or later."""


class IndexService:
    """Implements SharedService."""

    setting = "SHARED_INDEX"

    def __init__(self, connection: RedisConnection, address: RedisAddress) -> None:
        self._connection = connection
        self._address = address

    @property
    def address(self) -> str:
        return str(self._address)

    @property
    def failure(self) -> str:
        return self._connection.failure

    async def check(self) -> None:
        await self._connection.call("return 1", [key("probe", "check")], [])

    async def examine(self) -> ServiceExamination:
        """Write, read and delete a key by a script, and read version and memory policy, if the login permits that."""
        value = secrets.token_hex(8)
        found = await self._connection.call(_PROBE, [key("probe", value)], [value, _PROBE_MILLISECONDS])
        if found != value.encode():
            raise SharedUnavailable(f"{self.address}: a key that was just written cannot be read")
        information = await self._connection.run(_information)
        name = "Valkey" if "valkey_version" in information else "Redis"
        version = str(information.get("valkey_version") or information.get("redis_version") or "of unknown version")
        return ServiceExamination(f"{name} {version}, keys can be written, read and deleted", _warnings(information))


async def _information(redis: Redis) -> Mapping[str, Any]:
    """What the server reports of itself; nothing if the login may not ask, as at some hosted services."""
    try:
        return {**await redis.info("server"), **await redis.info("memory")}
    except ResponseError:
        return {}


def _warnings(information: Mapping[str, Any]) -> tuple[str, ...]:
    warnings = []
    version = str(information.get("redis_version", ""))
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    if numbers and numbers < _OLDEST:
        warnings.append(f"version {version} is too old; use Redis 6.2 or later, or Valkey")
    policy = str(information.get("maxmemory_policy", ""))
    if policy == "noeviction" and information.get("maxmemory"):
        warnings.append(
            "its memory is limited, and its maxmemory-policy is noeviction: when the memory is full, it refuses all "
            "writes, and replicas do without it; set maxmemory-policy to volatile-lru"
        )
    return tuple(warnings)
