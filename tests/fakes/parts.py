"""The service put together as in production, but for the upstream and the clock."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from dependency_injector import providers

from entrypoints.container import Container
from entrypoints.settings import Settings
from tests.fakes.clock import StoppedClock
from tests.fakes.events import RecordingEventSink
from tests.fakes.upstream import FakeUpstream

SECRET = "a secret of thirty-two bytes or more"


def settings_of(**values: object) -> Settings:
    """Settings of a test: an upstream that is nowhere, a secret that is known, nothing from the environment."""
    given = {"upstream_registry": "https://upstream.test", "server_secret": SECRET, "host": "127.0.0.1"}
    return Settings.model_validate(given | values)


def container_of(settings: Settings, upstream: FakeUpstream, clock: StoppedClock | None = None) -> Container:
    """The container with the fake upstream in the three parts that it plays."""
    container = Container(settings=settings, session=None)
    container.registry.override(providers.Object(upstream))
    container.relay.override(providers.Object(upstream))
    container.upstream_search.override(providers.Object(upstream))
    container.clock.override(providers.Object(clock or StoppedClock()))
    container.events.override(providers.Singleton(RecordingEventSink))
    return container


def opening(
    upstream: FakeUpstream, clock: StoppedClock | None = None
) -> Callable[[Settings], AbstractAsyncContextManager[Container]]:
    """What create_app takes as `open_parts`."""

    @asynccontextmanager
    async def open_parts(settings: Settings) -> AsyncIterator[Container]:
        container = container_of(settings, upstream, clock)
        try:
            yield container
        finally:
            await container.stances().close()

    return open_parts
