"""The pinned images in Redis, for all replicas."""

import json
import secrets
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import cast

from redis.asyncio import Redis

from adapters.index_records import print_pinned_image, read_pinned_images
from adapters.shared.redis_connection import RedisConnection, key
from adapters.shared.redis_worker_lease import RedisWorkerLease
from application.ports.shared import SharedUnavailable
from domain.digest import Digest
from domain.pins import Pin, PinnedImage, content_of
from domain.value import Value

_PINS = key("pins", "all")
_LEAD = key("pins-lead", "all")
_SETTLED_SECONDS = 300
"""Redis may lose everything. Each replica then writes back the pins that it knows, within some minutes."""
_UNPINNED_SECONDS = 90 * 86400
"""How long it is known that an image was unpinned. A replica that was away for longer pins it again."""

# The hash has one field for each pin: its key as JSON. The value is `pinned_at`, a space and the record; or, if the
# image was unpinned, "- " and the time of this. The field "" is when the hash was created, and the field "version"
# changes with each change. Times are those of the server, in seconds.

_WRITE = """
redis.call('HSETNX', KEYS[1], '', redis.call('TIME')[1])
redis.call('HSET', KEYS[1], 'version', ARGV[1])
for index = 3, #ARGV, 2 do
  redis.call(ARGV[2], KEYS[1], ARGV[index], ARGV[index + 1])
end
"""
"""ARGV: a version, HSET or HSETNX, and the fields and values to write."""

_UPDATE = """
local known = redis.call('HGET', KEYS[1], ARGV[2])
if known and string.sub(known, 1, #ARGV[3]) == ARGV[3] then
  redis.call('HSET', KEYS[1], 'version', ARGV[1], ARGV[2], ARGV[3] .. ARGV[4])
end
"""
"""ARGV: a version, the field, `pinned_at` and a space, and the record."""

_FORGET = """
local now = redis.call('TIME')[1]
local known = redis.call('HGET', KEYS[1], ARGV[2])
local all = redis.call('HGETALL', KEYS[1])
for index = 1, #all, 2 do
  local at = string.match(all[index + 1], '^%- (%d+)')
  if at and now - at > tonumber(ARGV[3]) then
    redis.call('HDEL', KEYS[1], all[index])
  end
end
redis.call('HSETNX', KEYS[1], '', now)
redis.call('HSET', KEYS[1], 'version', ARGV[1], ARGV[2], '- ' .. now)
return known and string.sub(known, 1, 1) ~= '-' and 1 or 0
"""
"""ARGV: a version, the field, and the seconds for which it is known that an image was unpinned. Returns whether it was
pinned.
"""

_PROTECTED = """
local now = redis.call('TIME')[1]
redis.call('HSETNX', KEYS[1], '', now)
local found = redis.call('HMGET', KEYS[1], '', 'version')
local version = found[2] or ''
if version ~= '' and version == ARGV[1] then
  return {now - found[1], version}
end
return {now - found[1], version, redis.call('HGETALL', KEYS[1])}
"""
"""ARGV: the known version. Returns the age of the hash, its version and, if that is not the known one, all fields."""


class SharedPinRecords(Value, frozen=True):
    """What Redis knows. `unpinned`: the keys of images that are not pinned any more. `others`: those of records that
    cannot be read. `is_empty`: Redis knows of no pin and has never known of any, or it has lost everything.
    """

    images: tuple[PinnedImage, ...]
    unpinned: frozenset[tuple[str, ...]]
    others: frozenset[tuple[str, ...]]
    is_empty: bool

    @property
    def keys(self) -> frozenset[tuple[str, ...]]:
        """The keys of which Redis knows something."""
        return self.unpinned | self.others | {image.pin.key for image in self.images}


class RedisPins:
    """Implements SharedPins, and is the shared level of TwoLevelPinIndex. All methods raise SharedUnavailable."""

    def __init__(self, connection: RedisConnection, settled_seconds: float = _SETTLED_SECONDS) -> None:
        """`settled_seconds`: how long replicas may take to write their pins back after Redis has lost them."""
        self._connection = connection
        self._settled_seconds = settled_seconds
        self._lead = RedisWorkerLease(connection, _LEAD)
        self._version = b""
        self._protected: frozenset[Digest] = frozenset()

    async def read(self) -> SharedPinRecords:
        """Everything that Redis knows."""
        return _read(await self._connection.run(_all))

    async def add(self, images: Iterable[PinnedImage]) -> None:
        """Store the images of which Redis knows nothing."""
        await self._write("HSETNX", images)

    async def keep(self, image: PinnedImage) -> None:
        """See PinIndex."""
        await self._write("HSET", [image])

    async def update(self, image: PinnedImage) -> None:
        """See PinIndex."""
        values = (_version(), _field(image.pin), f"{image.pinned_at!r} ", print_pinned_image(image))
        await self._connection.call(_UPDATE, [_PINS], values)

    async def forget(self, pin: Pin) -> bool:
        """See PinIndex."""
        return bool(await self._connection.call(_FORGET, [_PINS], [_version(), _field(pin), _UNPINNED_SECONDS]))

    async def lead(self, seconds: float) -> bool:
        """See PinIndex."""
        return await self._lead.keep(seconds)

    async def protected(self) -> frozenset[Digest]:
        answer = await self._connection.call(_PROTECTED, [_PINS], [self._version])
        age, version, *rest = cast("list[int | bytes | list[bytes]]", answer)
        if cast("int", age) < self._settled_seconds:
            left = self._settled_seconds - cast("int", age)
            raise SharedUnavailable(
                f"the shared index is new, and replicas may still write their pins to it; try again in {left:.0f} s"
            )
        if rest:
            fields = cast("list[bytes]", rest[0])
            found = _read(dict(zip(fields[::2], fields[1::2], strict=True)))
            self._version, self._protected = cast("bytes", version), content_of(found.images)
        return self._protected

    async def _write(self, command: str, images: Iterable[PinnedImage]) -> None:
        values = [text for image in images for text in (_field(image.pin), _value(image))]
        await self._connection.call(_WRITE, [_PINS], [_version(), command, *values])


async def _all(redis: Redis) -> Mapping[bytes, bytes]:
    return cast("Mapping[bytes, bytes]", await redis.hgetall(_PINS))


def _version() -> str:
    return secrets.token_hex(8)


def _field(pin: Pin) -> str:
    return json.dumps(pin.key)


def _value(image: PinnedImage) -> str:
    return f"{image.pinned_at!r} {print_pinned_image(image)}"


def _read(fields: Mapping[bytes, bytes]) -> SharedPinRecords:
    images: list[PinnedImage] = []
    unpinned, others = set(), set()
    for field, value in fields.items():
        if field in {b"", b"version"}:
            continue
        with suppress(ValueError, TypeError):  # another program has written it
            upstream, repository, reference = pin = _key(field)
            time, _, record = value.partition(b" ")
            if time == b"-":
                unpinned.add(pin)
                continue
            others.add(pin)
            found = read_pinned_images([(upstream, repository, reference, float(time), record)])
            images += found
            others -= {image.pin.key for image in found}
    images.sort(key=lambda image: image.pin.key)
    return SharedPinRecords(tuple(images), frozenset(unpinned), frozenset(others), is_empty=b"" not in fields)


def _key(field: bytes) -> tuple[str, str, str]:
    """Raises ValueError or TypeError."""
    upstream, repository, reference = json.loads(field)
    return str(upstream), str(repository), str(reference)
