"""Pinned images of several replicas while Valkey is silent, empty and back."""

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from adapters.shared.redis_connection import RedisConnection
from adapters.shared.redis_pins import RedisPins
from adapters.shared.two_level_pins import TwoLevelPinIndex
from adapters.storage.sqlite_database import SqliteDatabase
from adapters.storage.sqlite_pins import SqlitePinIndex
from application.ports.content import StorageFailed
from application.ports.shared import SharedUnavailable
from domain.pins import PinnedImage
from domain.redis_address import RedisAddress
from tests.contracts.test_pin_index import AT_QUAY, LAYER, MANIFEST, NGINX_PIN, PINNED, REDIS_PIN
from tests.e2e.support.valkey import Valkey
from tests.fakes.clock import StoppedClock
from tests.fakes.events import RecordingEventSink

HASH = "dip:1:pins:{all}"
WAIT, TRIAL_AFTER = 0.2, 0.05
OTHER = PinnedImage(REDIS_PIN, 101.0)


class Replica:
    """`pins`: on both levels; `local`: those that its eviction reads."""

    def __init__(self, connection: RedisConnection, database: SqliteDatabase) -> None:
        self.shared = RedisPins(connection)
        self.local = SqlitePinIndex(database, StoppedClock())
        self.pins = TwoLevelPinIndex(self.shared, self.local)


@asynccontextmanager
async def replicas(server: Valkey, folder: Path, count: int = 2) -> AsyncIterator[list[Replica]]:
    """Replicas with an empty Valkey, and with what their folders had before."""
    server.flush()
    async with AsyncExitStack() as stack:
        stack.callback(server.resume)
        found = []
        for number in range(count):
            connection = RedisConnection(RedisAddress.parse(server.url), RecordingEventSink(), WAIT, TRIAL_AFTER)
            database = SqliteDatabase(folder / str(number) / "index.sqlite3")
            stack.push_async_callback(database.close)
            stack.push_async_callback(connection.close)
            found.append(Replica(connection, database))
        yield found


async def test_the_copy_of_each_replica_follows_what_the_others_pin_and_unpin(
    valkey_server: Valkey, tmp_path: Path
) -> None:
    async with replicas(valkey_server, tmp_path) as (one, other):
        await one.pins.keep(PINNED)
        await one.pins.keep(OTHER)
        await other.pins.all()
        assert list(await other.local.all()) == [PINNED, OTHER]
        moved = replace(PINNED, digest=LAYER, tree={LAYER: 1}, checked_at=1000.0)
        await other.pins.update(moved)
        assert list(await one.local.all()) == [PINNED, OTHER]
        await one.pins.all()
        assert list(await one.local.all()) == [moved, OTHER]
        assert await other.pins.forget(NGINX_PIN)
        await one.pins.all()
        assert list(await one.local.all()) == [OTHER]


async def test_pins_that_valkey_has_lost_are_written_back_also_if_a_new_replica_comes_first(
    valkey_server: Valkey, tmp_path: Path
) -> None:
    async with replicas(valkey_server, tmp_path, 3) as (one, other, new):
        await one.pins.keep(PINNED)
        await other.pins.keep(OTHER)
        await one.local.keep(PINNED)
        valkey_server.flush()
        assert list(await new.pins.all()) == []
        assert list(await one.pins.all()) == [PINNED]
        assert list(await other.pins.all()) == [PINNED, OTHER]
        for each in (new, one):
            assert list(await each.pins.all()) == list(await each.local.all()) == [PINNED, OTHER]


async def test_what_is_written_back_late_replaces_nothing_newer(valkey_server: Valkey, tmp_path: Path) -> None:
    """Another replica may have written between the moment when a pin was missing and this one."""
    async with replicas(valkey_server, tmp_path) as (one, other):
        moved = replace(PINNED, digest=LAYER, tree={LAYER: 1})
        await other.pins.keep(moved)
        await other.pins.keep(OTHER)
        await other.pins.forget(REDIS_PIN)
        await one.shared.add([PINNED, OTHER])
        assert list(await one.pins.all()) == list(await other.pins.all()) == [moved]


async def test_an_image_that_was_unpinned_is_not_pinned_again_by_a_replica_that_was_away(
    valkey_server: Valkey, tmp_path: Path
) -> None:
    async with replicas(valkey_server, tmp_path) as (one, other):
        await one.pins.keep(PINNED)
        await other.pins.all()
        await one.pins.forget(NGINX_PIN)
        assert list(await other.pins.all()) == list(await other.local.all()) == []
        again = PinnedImage(NGINX_PIN, 1.0)  # by a replica whose clock is late
        await one.pins.keep(again)
        assert list(await other.pins.all()) == list(await other.local.all()) == [again]


async def test_without_valkey_the_local_pins_hold_and_cannot_be_changed(valkey_server: Valkey, tmp_path: Path) -> None:
    async with replicas(valkey_server, tmp_path) as (one, other):
        await one.pins.keep(PINNED)
        await other.pins.all()
        valkey_server.pause()
        with pytest.raises(StorageFailed, match="the other replicas were not told"):
            await one.pins.keep(OTHER)
        with pytest.raises(StorageFailed, match="the other replicas were not told"):
            await one.pins.forget(NGINX_PIN)
        moved = replace(PINNED, digest=LAYER, tree={LAYER: 1})
        await one.pins.update(moved)
        assert list(await one.pins.all()) == [moved]
        assert list(await other.pins.all()) == [PINNED]
        with pytest.raises(SharedUnavailable):
            await one.shared.protected()
        assert [await replica.pins.lead(60) for replica in (one, other, one)] == [True, True, True]


async def test_a_machine_that_is_no_replica_does_not_lead_without_valkey(valkey_server: Valkey, tmp_path: Path) -> None:
    async with replicas(valkey_server, tmp_path, 1) as (one,):
        pins = TwoLevelPinIndex(one.shared, None)
        assert await pins.lead(60)
        valkey_server.pause()
        assert not await pins.lead(60)
        assert list(await pins.all()) == []


async def test_no_content_is_evicted_until_all_replicas_had_time_to_write_their_pins_back(
    valkey_server: Valkey, tmp_path: Path
) -> None:
    async with replicas(valkey_server, tmp_path, 1) as (one,):
        await one.pins.keep(PINNED)
        with pytest.raises(SharedUnavailable, match="may still write their pins"):
            await one.shared.protected()
        age(valkey_server, 301)
        assert await one.shared.protected() == {MANIFEST, LAYER}
        valkey_server.flush()
        for _ in range(2):
            with pytest.raises(SharedUnavailable, match="may still write their pins"):
                await one.shared.protected()
        await one.pins.all()
        age(valkey_server, 301)
        assert await one.shared.protected() == {MANIFEST, LAYER}


def age(server: Valkey, seconds: int) -> None:
    """The hash was created so long ago."""
    created = server.command("HGET", HASH, "")
    assert isinstance(created, bytes)
    server.command("HSET", HASH, "", int(created) - seconds)


async def test_what_another_program_wrote_is_left_alone(valkey_server: Valkey, tmp_path: Path) -> None:
    fields = {
        "no JSON": "1.0 {}",
        json.dumps(["too", "short"]): "1.0 {}",
        json.dumps(AT_QUAY.key): "1.0 no JSON",
        json.dumps([1, None, "a"]): "x",
    }
    async with replicas(valkey_server, tmp_path, 1) as (one,):
        await one.local.keep(PinnedImage(AT_QUAY, 1.0))
        for field, value in fields.items():
            valkey_server.command("HSET", HASH, field, value)
        await one.pins.keep(PINNED)
        assert list(await one.pins.all()) == [PINNED]
        assert list(await one.local.all()) == [PINNED, PinnedImage(AT_QUAY, 1.0)]
        for field, value in fields.items():
            assert valkey_server.command("HGET", HASH, field) == value.encode()


async def test_it_is_known_for_some_months_that_an_image_was_unpinned(valkey_server: Valkey, tmp_path: Path) -> None:
    async with replicas(valkey_server, tmp_path, 1) as (one,):
        for image in (PINNED, OTHER):
            await one.pins.keep(image)
            await one.pins.forget(image.pin)
        valkey_server.command("HSET", HASH, json.dumps(NGINX_PIN.key), "- 1")
        await one.pins.forget(AT_QUAY)
        assert valkey_server.command("HEXISTS", HASH, json.dumps(NGINX_PIN.key)) == 0
        assert valkey_server.command("HEXISTS", HASH, json.dumps(REDIS_PIN.key)) == 1
