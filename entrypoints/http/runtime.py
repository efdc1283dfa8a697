"""Runtime: what a worker builds from one reading of the settings. A reload replaces it while requests run."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, contextmanager

from sanic import Request

from application.concurrency import BackgroundTasks
from entrypoints.http.page.loading import PageLoader
from entrypoints.http.requests.addresses import RequestAddresses
from entrypoints.http.responses.response_cache import ResponseCache
from entrypoints.settings import Settings
from entrypoints.wiring.container import Container

_LOG = logging.getLogger("docker_image_proxy")

ContainerFactory = Callable[..., AbstractAsyncContextManager[Container]]
"""Called with the settings, and by the application with the number of the worker as `worker`."""


class Runtime:
    """The container, and what the HTTP side builds from the same settings. A request uses one runtime from its
    beginning to its end.
    """

    def __init__(self, settings: Settings, container: Container) -> None:
        self.settings = settings
        self.container = container
        self.addresses = RequestAddresses(settings)
        self.response_cache = ResponseCache(
            container.clock(), container.events(), container.policy(), container.pull_log()
        )
        self.tracer = container.tracer()
        self.page = PageLoader()
        self.requests = 0
        self.resources = AsyncExitStack()
        """Closed together with the runtime."""
        self._request_ended = asyncio.Event()

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """For the time of a request."""
        self.requests += 1
        try:
            yield
        finally:
            self.requests -= 1
            self._request_ended.set()

    async def unused(self) -> None:
        """Wait until no request uses the runtime and its job and its downloads have finished: requests of a later
        runtime may be reading from these downloads, as they could from those of another process.
        """
        while self.requests:
            self._request_ended.clear()
            await self._request_ended.wait()
        await self.container.job_tasks().close()
        await self.container.downloads().finished()
        await self.container.replicas().finished()


def runtime_of(request: Request) -> Runtime:
    """The runtime that was current when the request began. A reload during the request does not change it."""
    runtime: Runtime = request.ctx.runtime
    return runtime


class Runtimes:
    """The runtimes of one worker: the current one, which new requests use, and earlier ones that are still in use."""

    def __init__(self, container_factory: ContainerFactory) -> None:
        self._container_factory = container_factory
        self._retiring = BackgroundTasks()
        self.open: list[Runtime] = []
        """The current runtime and those that are still in use."""
        self._closing = asyncio.Event()
        self.current: Runtime

    async def begin(self, settings: Settings) -> None:
        """Open the first runtime."""
        self.current = await self._open(settings)

    async def replace(self, settings: Settings) -> None:
        """Open a new runtime and retire the current one. If the new one cannot be opened, the current one stays."""
        new = await self._open(settings)
        old, self.current = self.current, new
        self._retiring.start(self._retire(old))

    async def close(self) -> None:
        """Close all runtimes. Their downloads are interrupted, and resumed when the content is requested again."""
        self._closing.set()
        await self._retiring.close()
        await self.current.resources.aclose()

    async def _open(self, settings: Settings) -> Runtime:
        async with AsyncExitStack() as stack:
            container = await stack.enter_async_context(self._container_factory(settings))
            runtime = Runtime(settings, container)
            container.upkeep().start()
            self.open.append(runtime)
            stack.callback(self.open.remove, runtime)
            runtime.resources = stack.pop_all()
        return runtime

    async def _retire(self, old: Runtime) -> None:
        await _try(old.container.upkeep().close())  # it would evict by the old CACHE_SIZE
        until = [asyncio.create_task(old.unused()), asyncio.create_task(self._closing.wait())]
        await asyncio.wait(until, return_when=asyncio.FIRST_COMPLETED)
        for one in until:
            one.cancel()
        await _try(old.resources.aclose())


async def _try(step: Awaitable[None]) -> None:
    try:
        await step
    except Exception as error:  # noqa: BLE001 - the new runtime works, and no caller waits for the old one
        _LOG.error("an error while the objects of the earlier settings were closed", exc_info=error)
