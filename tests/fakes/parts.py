"""The container of production, with a fake upstream and a fake clock."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from functools import cache

from dependency_injector import providers

from adapters.storage.sqlite_database import NoDatabase
from adapters.storage.sqlite_history import SqliteHistoryArchive
from adapters.telemetry.metrics import CountingEventSink
from domain.records import CallerId
from domain.upstream_table import UpstreamTable
from domain.upstreams import Upstream
from entrypoints.settings import Settings, UpstreamSettings
from entrypoints.settings.sources import build_settings
from entrypoints.wiring.container import Container, _mirror_callers, close_container, make_counters
from entrypoints.wiring.storage import Storage, no_storage
from tests.fakes.clock import StoppedClock
from tests.fakes.events import RecordingEventSink
from tests.fakes.index import MemoryImageIndex, MemoryKnowledgeIndex, MemoryUsageIndex
from tests.fakes.jobs import MemoryJobs
from tests.fakes.pins import MemoryPinIndex
from tests.fakes.steps import TirelessSteps
from tests.fakes.storage import MemoryContentStore, MemoryDisk, MemoryStorageMaintenance
from tests.fakes.upstream import FakeUpstream

SECRET = "a secret of thirty-two bytes or more"


def settings_of(upstreams: tuple[UpstreamSettings, ...] = (), **values: object) -> Settings:
    """Settings for a test: an upstream that does not exist, or `upstreams`, and a known secret; without the
    environment.
    """
    given = {"upstream_registry": "https://upstream.test", "server_secret": SECRET, "host": "127.0.0.1"}
    settings = build_settings(given | values)
    if upstreams:
        settings = replace(settings, upstreams=upstreams)
        settings.check()
    return settings


@cache
def _mirror_caller(upstream: Upstream, login: str) -> CallerId:
    """The hash of the mirror's login is slow on purpose, and the tests use a few logins again and again. An upstream
    with another login is equal to the one before, so the login is part of the key.
    """
    return _mirror_callers(UpstreamTable([upstream]))[upstream]


def _mirror_callers_once(upstreams: UpstreamTable) -> dict[Upstream, CallerId]:
    return {one: _mirror_caller(one, one.credentials.joined()) for one in upstreams.upstreams if one.credentials}


def memory_storage() -> Storage:
    """A storage in memory."""
    disk, index, pins = MemoryDisk(), MemoryKnowledgeIndex(), MemoryPinIndex()
    store = MemoryContentStore(disk)
    return Storage(
        store=store,
        leases=store,
        maintenance=MemoryStorageMaintenance(disk),
        index=index,
        usage=MemoryUsageIndex(index, pins),
        images=MemoryImageIndex(index),
        pins=pins,
        history=SqliteHistoryArchive(NoDatabase()),
    )


def container_of(
    settings: Settings, upstream: FakeUpstream, clock: StoppedClock | None = None, storage: Storage | None = None
) -> Container:
    """A container in which the fake upstream is the registry, the token relay and the search."""
    counters = make_counters(settings)
    counters.jobs = MemoryJobs()  # those of production have an open file, and applications of tests are never freed
    counting = CountingEventSink(counters, 0)
    storage = storage or (memory_storage() if settings.cache_dir else no_storage())
    container = Container(settings=settings, clients=None, storage=storage, counting=counting)
    container.registry.override(providers.Object(upstream))
    container.relay.override(providers.Object(upstream))
    container.upstream_search.override(providers.Object(upstream))
    container.upstream_requests.override(providers.Object(upstream))
    container.mirror_callers.override(providers.Callable(_mirror_callers_once, upstreams=container.upstreams))
    clock = clock or StoppedClock()
    # A test closes the container after each step and may use it again.
    container.passwords.override(providers.Object(TirelessSteps()))
    container.clock.override(providers.Object(clock))
    for attempts in (container.attempts, container.relayed_attempts, container.metrics_attempts):
        attempts.add_kwargs(pause=clock.pause)
    container.events.override(providers.Singleton(RecordingEventSink))
    return container


def opening(
    upstream: FakeUpstream, clock: StoppedClock | None = None, storage: Storage | None = None
) -> Callable[[Settings], AbstractAsyncContextManager[Container]]:
    """A `container_factory` for create_app."""

    @asynccontextmanager
    async def container_factory(settings: Settings, worker: int = 0) -> AsyncIterator[Container]:
        container = container_of(settings, upstream, clock, storage)
        try:
            yield container
        finally:
            await close_container(container)

    return container_factory
