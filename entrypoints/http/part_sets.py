"""PartSets: a worker's parts, which new settings replace while requests still use the old ones."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from contextvars import Context

from entrypoints.http.requests.client_address import TrustedProxies
from entrypoints.http.requests.realm import TokenRealm
from entrypoints.http.responses.response_cache import ResponseCache
from entrypoints.settings import Settings
from entrypoints.wiring.container import Container

_LOG = logging.getLogger("docker_image_proxy")

Opening = Callable[[Settings], AbstractAsyncContextManager[Container]]


class PartSet:
    """All that hangs on one reading of the settings. A request has the same one from its beginning to its end."""

    def __init__(self, settings: Settings, parts: Container) -> None:
        self.settings = settings
        self.parts = parts
        self.realm = TokenRealm(settings)
        self.proxies = TrustedProxies(settings.trusted_proxies)
        self.response_cache = ResponseCache(parts.clock(), parts.events(), parts.policy())
        self.requests = 0
        self.opened = AsyncExitStack()
        """What is closed with it."""
        self._changed = asyncio.Event()

    def enter(self) -> None:
        """A request begins."""
        self.requests += 1

    def leave(self) -> None:
        """It has ended, however that went."""
        self.requests -= 1
        self._changed.set()

    async def unused(self) -> None:
        """Returns when no request uses it, and nothing that they began is still being fetched: requests of later
        generations may be reading that along, as they would in another process.
        """
        while self.requests:
            self._changed.clear()
            await self._changed.wait()
        await self.parts.downloads().finished()

    async def close(self) -> None:
        await self.opened.aclose()


class PartSets:
    """Those of one worker: the one with which requests begin, and earlier ones until they are done."""

    def __init__(self, opening: Opening) -> None:
        self._opening = opening
        self._retiring: set[asyncio.Task[None]] = set()
        self._closing = asyncio.Event()
        self.current: PartSet

    async def begin(self, settings: Settings) -> None:
        """The first one."""
        self.current = await self._open(settings)

    async def replace(self, settings: Settings) -> None:
        """If the new one cannot be opened the old one stays."""
        new = await self._open(settings)
        old, self.current = self.current, new
        # A context of its own: no request is to be told what becomes of it.
        task = asyncio.create_task(self._retire(old), context=Context())
        self._retiring.add(task)
        task.add_done_callback(self._retiring.discard)

    async def close(self) -> None:
        """All; what they still fetch is broken off, and gone on with when it is asked for again."""
        self._closing.set()
        await asyncio.gather(*self._retiring)
        await self.current.close()

    async def _open(self, settings: Settings) -> PartSet:
        async with AsyncExitStack() as stack:
            parts = await stack.enter_async_context(self._opening(settings))
            part_set = PartSet(settings, parts)
            parts.upkeep().start()
            part_set.opened = stack.pop_all()
        return part_set

    async def _retire(self, old: PartSet) -> None:
        await _try(old.parts.upkeep().close())  # which would make room by an earlier CACHE_SIZE
        until = [asyncio.create_task(old.unused()), asyncio.create_task(self._closing.wait())]
        await asyncio.wait(until, return_when=asyncio.FIRST_COMPLETED)
        for one in until:
            one.cancel()
        await _try(old.close())


async def _try(step: Awaitable[None]) -> None:
    try:
        await step
    except Exception as error:  # noqa: BLE001 - whatever it is, the new parts work, and nobody waits for this
        _LOG.error("while the parts of earlier settings were closed", exc_info=error)
