"""The contract of SharedPins."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from adapters.shared.redis_pins import RedisPins
from adapters.shared.two_level_pins import TwoLevelPinIndex
from application.ports.pins import PinIndex
from application.ports.shared import SharedPins
from domain.pins import PinnedImage
from tests.contracts.replicas import connected, with_each_kind
from tests.contracts.test_pin_index import LAYER, MANIFEST, NGINX_PIN, OTHER, PINNED, REDIS_PIN
from tests.e2e.support.valkey import Valkey
from tests.fakes.pins import MemoryPinIndex


@asynccontextmanager
async def pins_of_replicas(kind: str, server: Valkey) -> AsyncIterator[tuple[PinIndex, SharedPins]]:
    """A pin index, and what the upkeep of another replica uses."""
    if kind == "fake":
        pins = MemoryPinIndex()
        yield pins, pins.of_another_worker()
        return
    async with connected(server) as (one, other):
        yield TwoLevelPinIndex(RedisPins(one), None), RedisPins(other, settled_seconds=0)


@with_each_kind(pins_of_replicas)
async def test_the_content_of_pinned_images_is_protected(replicas: tuple[PinIndex, SharedPins]) -> None:
    pins, shared = replicas
    assert await shared.protected() == frozenset()
    await pins.keep(PINNED)
    await pins.keep(PinnedImage(REDIS_PIN, 101.0))
    assert await shared.protected() == await shared.protected() == {MANIFEST, LAYER}
    await pins.update(PinnedImage(REDIS_PIN, 101.0, OTHER, {OTHER: 1, LAYER: 2}))
    assert await shared.protected() == {MANIFEST, LAYER, OTHER}
    await pins.forget(NGINX_PIN)
    assert await shared.protected() == {LAYER, OTHER}
    await pins.forget(REDIS_PIN)
    assert await shared.protected() == frozenset()
