"""SharedRenderings: the events of event streams, made once for all streams that show the same."""

import asyncio
from collections.abc import Awaitable, Callable, Hashable

from application.concurrency import LruCache, SingleFlight

RENDER_SECONDS = 1.0
"""Between two renderings."""
_REMEMBERED = 256

Render = Callable[[], Awaitable[str]]


class SharedRenderings:
    """The events of all streams of one runtime: for viewers who see the same, one is made each second."""

    def __init__(self) -> None:
        self._running = SingleFlight()
        self._last: LruCache[Hashable, tuple[float, bytes]] = LruCache(_REMEMBERED)

    async def get(self, key: Hashable, render: Render) -> bytes:
        """The event of the last second, or a new one, as it is sent."""
        last = self._last.get(key)
        if last and asyncio.get_running_loop().time() < last[0] + RENDER_SECONDS:
            return last[1]
        return await self._running.do(key, lambda: self._render(key, render))

    async def _render(self, key: Hashable, render: Render) -> bytes:
        began = asyncio.get_running_loop().time()
        text = await render()
        event = ("".join(f"data: {line}\n" for line in text.splitlines()) + "\n").encode()
        self._last.put(key, (began, event))
        return event
