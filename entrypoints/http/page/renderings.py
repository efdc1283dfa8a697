"""SharedRenderings: what event streams show, rendered once for all that show the same."""

import asyncio
from collections.abc import Awaitable, Callable, Hashable

from application.concurrency import LruCache, SingleFlight

RENDER_SECONDS = 1.0
"""Between two renderings."""
_REMEMBERED = 256

Render = Callable[[], Awaitable[str]]


class SharedRenderings:
    """What the event streams of one runtime show: for viewers who see the same, it is rendered once a second."""

    def __init__(self) -> None:
        self._running = SingleFlight()
        self._last: LruCache[Hashable, tuple[float, str]] = LruCache(_REMEMBERED)

    async def get(self, key: Hashable, render: Render) -> str:
        """The rendering of the last second, or a new one."""
        last = self._last.get(key)
        if last and asyncio.get_running_loop().time() < last[0] + RENDER_SECONDS:
            return last[1]
        return await self._running.do(key, lambda: self._render(key, render))

    async def _render(self, key: Hashable, render: Render) -> str:
        began = asyncio.get_running_loop().time()
        text = await render()
        self._last.put(key, (began, text))
        return text
