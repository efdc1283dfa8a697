"""What each worker does for the cache now and then."""

import asyncio
from collections import deque
from dataclasses import replace
from typing import Any

import pytest

from adapters.telemetry.metrics import CountingEventSink, SharedCounters
from application.ports.index import Stored
from domain.digest import Digest
from entrypoints.wiring.container import _measure_by_upstream
from tests.application.support.service import IMAGE_DIGEST, LAYER, LAYER_DIGEST, NAME, Service
from tests.application.support.watched import soon, watched
from tests.fakes.index import MemoryKnowledgeIndex, MemoryUsageIndex
from tests.fakes.parts import memory_storage
from tests.fakes.storage import MemoryContentStore, MemoryStorageMaintenance


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("application.upkeep.periodic._PAUSE_SECONDS", 0.01)


async def pulled(service: Service) -> int:
    """How often the upstream was asked for an image and its layer."""
    service.upstream.asked.clear()
    await service.manifest()
    await service.blob()
    return len(service.upstream.asked)


def test_a_worker_that_starts_leaves_what_one_that_died_had_fetched() -> None:
    service = Service(watched("none"))
    storage = service.parts.storage()

    async def leaves() -> None:
        lease: Any = await storage.leases.lease(service.parts.upstream(), LAYER_DIGEST)
        partial_blob = lease.partial_blob
        await partial_blob.write(0, deque([LAYER[:100]]))
        service.parts.store().die()
        partial_blob.file.close()

    service.run(leaves())
    later = Service(service.upstream, service.clock, storage)

    async def act() -> Any:
        later.parts.upkeep().start()
        await asyncio.sleep(0.05)
        assert await later.blob() == LAYER
        return later.upstream.asked[-1].byte_range

    assert str(later.run(act())) == "bytes=100-"


def test_use_is_written_down() -> None:
    service = Service(watched("none"))
    usage: Any = service.parts.storage().usage

    async def act() -> None:
        await pulled(service)
        await soon(lambda: len(usage.entries) == 2)
        service.clock.advance(30)
        await pulled(service)
        service.parts.upkeep().start()
        await soon(lambda: all(one.used_at == service.clock.now() for one in usage.entries.values()))

    service.run(act())


def test_use_is_written_down_at_the_end_as_well() -> None:
    service = Service(watched("none"))
    usage: Any = service.parts.storage().usage

    async def act() -> None:
        await pulled(service)
        service.clock.advance(30)
        await pulled(service)

    service.run(act())
    assert {one.used_at for one in usage.entries.values()} == {service.clock.now()}


def test_what_an_operator_purged_is_forgotten() -> None:
    service = Service(watched("none"))
    storage = service.parts.storage()

    async def act() -> None:
        service.parts.upkeep().start()
        await pulled(service)
        assert await pulled(service) == 0
        await asyncio.sleep(0.03)
        beside = Service(service.upstream, service.clock, storage)
        dropped = await beside.parts.manage_cache().purge(beside.parts.upstreams().source_of(NAME), None)
        assert set(dropped) == {IMAGE_DIGEST, LAYER_DIGEST}
        await asyncio.sleep(0.05)
        assert await pulled(service) == 2

    service.run(act())


def test_what_was_purged_while_the_worker_started_is_forgotten_too() -> None:
    storage = memory_storage()
    started, go_on = asyncio.Event(), asyncio.Event()

    class SlowMaintenance(MemoryStorageMaintenance):
        async def contents(self) -> dict[Digest, int]:
            if not started.is_set():
                started.set()
                await go_on.wait()
            return await super().contents()

    store: Any = storage.store
    slow = replace(storage, maintenance=SlowMaintenance(store.disk))
    service = Service(watched("none"), storage=slow)

    async def act() -> None:
        service.parts.upkeep().start()
        await started.wait()
        await pulled(service)
        beside = Service(service.upstream, service.clock, storage)
        await beside.parts.manage_cache().purge(beside.parts.upstreams().source_of(NAME), None)
        go_on.set()
        await asyncio.sleep(0.05)
        assert await pulled(service) == 2

    service.run(act())


def test_a_worker_that_stops_waits_for_its_upkeep() -> None:
    store = MemoryContentStore()
    service = Service(watched("none"), storage=replace(memory_storage(), store=store, leases=store))

    async def act() -> None:
        service.parts.upkeep().start()
        await asyncio.sleep(0)

    service.run(act())
    tasks = service.parts.upkeep()._tasks
    assert [task.done() for task in tasks] == [True] * 4


def by_upstream(service: Service) -> list[float]:
    """The bytes and the objects that the metrics show for the upstream of the service."""
    text = b"".join(service.parts.metrics().parts()).decode()
    label = f'upstream="{service.parts.upstream().url}"'
    names = (f"docker_image_proxy_upstream_cache_{what}{{{label}}} " for what in ("bytes", "objects"))
    return [float(line.removeprefix(name)) for name in names for line in text.splitlines() if line.startswith(name)]


def test_what_an_upstream_has_sent_is_measured_again_and_again() -> None:
    service = Service(watched("none"))

    async def act() -> None:
        service.parts.upkeep().start()
        await service.blob()
        await soon(lambda: by_upstream(service) == [len(LAYER), 1])
        await service.manifest()
        await soon(lambda: by_upstream(service)[1] == 2)
        await service.parts.eviction().drop(LAYER_DIGEST)
        await soon(lambda: by_upstream(service)[1] == 1)

    service.run(act())


def test_a_cache_that_takes_long_to_measure_is_measured_seldom(monkeypatch: pytest.MonkeyPatch) -> None:
    service, measured = Service(watched("none")), []

    async def slow() -> dict[str, Stored]:
        measured.append(1)
        await asyncio.sleep(0.05)
        return {}

    monkeypatch.setattr(service.parts.storage().usage, "by_upstream", slow)

    async def act() -> None:
        service.parts.upkeep().start()
        await asyncio.sleep(0.5)

    service.run(act())
    assert measured == [1]


@pytest.mark.parametrize("worker", [0, 1])
def test_one_worker_measures_for_all(worker: int) -> None:
    sink = CountingEventSink(SharedCounters(2), worker)
    found = _measure_by_upstream(worker, MemoryUsageIndex(MemoryKnowledgeIndex()), sink)
    assert (found is not None) == (worker == 0)
