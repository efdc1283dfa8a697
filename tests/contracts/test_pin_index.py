"""The contract of PinIndex, and of UsageIndex as far as pins matter to it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from adapters.shared.redis_pins import RedisPins
from adapters.shared.two_level_pins import TwoLevelPinIndex
from adapters.storage.sqlite_database import SqliteDatabase
from adapters.storage.sqlite_pins import SqlitePinIndex
from application.ports.index import Stored, Used
from application.ports.pins import PinIndex
from domain.digest import Digest
from domain.names import Reference, RepositoryName
from domain.pins import Pin, PinnedImage
from tests.contracts.replicas import connected
from tests.contracts.storage import HUB, QUAY, Worker
from tests.contracts.storage import by_two_workers as by_two_workers_with_storage
from tests.fakes.clock import StoppedClock
from tests.fakes.pins import MemoryPinIndex

FOLDERS = {"sqlite": ("one", "one"), "one replica": ("one", "one"), "two replicas": ("one", "other")}
"""Of the local indexes of two workers."""
REDIS_KINDS = ("one replica", "two replicas", "no replica")
KINDS = ("sqlite", "fake", *REDIS_KINDS)

Test = Callable[[PinIndex, PinIndex], Awaitable[None]]


@asynccontextmanager
async def two_workers(
    kind: str, folder: Path, request: pytest.FixtureRequest
) -> AsyncIterator[tuple[PinIndex, PinIndex]]:
    """The pin indexes of two processes."""
    if kind == "fake":
        pins = MemoryPinIndex()
        yield pins, pins.of_another_worker()
        return
    clock = StoppedClock()
    async with AsyncExitStack() as stack:
        found: list[PinIndex] = []
        for name in FOLDERS.get(kind, ()):
            database = SqliteDatabase(folder / name / "index.sqlite3")
            stack.push_async_callback(database.close)
            found.append(SqlitePinIndex(database, clock))
        if kind in REDIS_KINDS:
            connections = await stack.enter_async_context(connected(request.getfixturevalue("valkey_server")))
            local = found or [None, None]
            found = [TwoLevelPinIndex(RedisPins(one), pins) for one, pins in zip(connections, local, strict=True)]
        one, other = found
        yield one, other


def by_two_workers(test: Test) -> Callable[[str, Path, pytest.FixtureRequest], None]:
    """Runs the test with each of KINDS."""

    @pytest.mark.parametrize("kind", KINDS)
    def run(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
        async def go() -> None:
            async with two_workers(kind, tmp_path, request) as (one, other):
                await test(one, other)

        asyncio.run(go())

    return run


MANIFEST, LAYER, OTHER = (Digest.of(bytes([number])) for number in range(3))
NGINX_PIN = Pin(HUB.url, RepositoryName("library/nginx"), Reference.parse("1.25"), ("linux/amd64", "linux/arm64/v8"))
REDIS_PIN = Pin(HUB.url, RepositoryName("library/redis"), Reference(OTHER))
AT_QUAY = replace(NGINX_PIN, upstream_url=QUAY.url)
PINNED = PinnedImage(
    NGINX_PIN, 100.125, MANIFEST, {MANIFEST: 400, LAYER: 2**40}, 200.5, 300.75, 'said "no" \N{SNOWMAN} \udcff'
)


@by_two_workers
async def test_a_pinned_image_is_known_to_all_workers_with_all_that_is_known_of_it(
    one: PinIndex, other: PinIndex
) -> None:
    assert list(await one.all()) == []
    await one.keep(PINNED)
    await one.keep(PinnedImage(REDIS_PIN, 101.0))
    await one.keep(PinnedImage(AT_QUAY, 102.0))
    pinned = [PINNED, PinnedImage(REDIS_PIN, 101.0), PinnedImage(AT_QUAY, 102.0)]
    assert list(await other.all()) == list(await one.all()) == pinned


@by_two_workers
async def test_a_pin_with_the_same_key_replaces_the_other(one: PinIndex, other: PinIndex) -> None:
    await one.keep(PINNED)
    again = PinnedImage(replace(NGINX_PIN, platforms=()), 101.0)
    await other.keep(again)
    assert list(await one.all()) == [again]


@by_two_workers
async def test_an_image_that_was_unpinned_is_forgotten(one: PinIndex, other: PinIndex) -> None:
    await one.keep(PINNED)
    await one.keep(PinnedImage(REDIS_PIN, 101.0))
    assert not await other.forget(AT_QUAY)
    assert await other.forget(replace(NGINX_PIN, platforms=()))
    assert not await one.forget(NGINX_PIN)
    assert list(await one.all()) == [PinnedImage(REDIS_PIN, 101.0)]


@by_two_workers
async def test_an_update_replaces_what_is_known_of_the_image(one: PinIndex, other: PinIndex) -> None:
    await one.keep(PinnedImage(NGINX_PIN, PINNED.pinned_at))
    await one.keep(PinnedImage(REDIS_PIN, PINNED.pinned_at))
    await other.update(PINNED)
    assert list(await one.all()) == [PINNED, PinnedImage(REDIS_PIN, PINNED.pinned_at)]


@by_two_workers
async def test_a_late_update_does_not_bring_back_an_image_that_was_unpinned(one: PinIndex, other: PinIndex) -> None:
    await one.keep(PINNED)
    await one.forget(NGINX_PIN)
    await other.update(PINNED)
    assert list(await one.all()) == []


@by_two_workers
async def test_a_late_update_does_not_change_an_image_that_was_pinned_again(one: PinIndex, other: PinIndex) -> None:
    await one.keep(PINNED)
    again = PinnedImage(NGINX_PIN, 101.0)
    await one.keep(again)
    await other.update(PINNED)
    assert list(await one.all()) == [again]


@by_two_workers
async def test_one_worker_checks_the_pinned_images_at_a_time(one: PinIndex, other: PinIndex) -> None:
    assert [await worker.lead(60) for worker in (one, other, one, other)] == [True, False, True, False]
    await one.lead(0)
    await asyncio.sleep(0.01)
    assert [await worker.lead(60) for worker in (other, one)] == [True, False]


USES = [Used(digest, number + 1, 10.0 + number) for number, digest in enumerate((MANIFEST, LAYER, OTHER))]


@by_two_workers_with_storage
async def test_content_that_a_pinned_image_needs_is_not_evictable(one: Worker, other: Worker) -> None:
    await one.usage.keep(USES)
    assert (await one.usage.evictable(), await one.usage.pinned()) == (USES, Stored())
    await one.pins.keep(PINNED)
    await one.pins.keep(PinnedImage(AT_QUAY, 1.0, LAYER, {LAYER: 2}))
    assert (await other.usage.evictable(), await other.usage.pinned()) == (USES[2:], Stored(2, 3))
    await other.pins.forget(NGINX_PIN)
    assert (await one.usage.evictable(), await one.usage.pinned()) == ([USES[0], USES[2]], Stored(1, 2))
    await one.pins.forget(AT_QUAY)
    assert (await other.usage.evictable(), await other.usage.pinned()) == (USES, Stored())


@by_two_workers_with_storage
async def test_pinned_content_that_is_not_stored_does_not_count(one: Worker, other: Worker) -> None:
    await one.pins.keep(PINNED)
    assert (await other.usage.evictable(), await other.usage.pinned()) == ([], Stored())
