"""PageLoader: makes the renderer of the page when it is first needed."""

import asyncio
from typing import TYPE_CHECKING

from entrypoints.http.page.renderings import SharedRenderings

if TYPE_CHECKING:
    from entrypoints.http.page.rendering import Renderer


class PageLoader:
    """The renderer of one runtime, and what its event streams share."""

    def __init__(self) -> None:
        self.shared = SharedRenderings()
        self._made: asyncio.Task[Renderer] | None = None

    async def renderer(self) -> "Renderer":
        """The renderer. The first call imports Jinja2 in a thread, because that takes about 0.1 seconds, in which the
        worker must serve pulls.
        """
        if self._made is None:
            self._made = asyncio.create_task(asyncio.to_thread(_make))
        return await asyncio.shield(self._made)


def _make() -> "Renderer":
    from entrypoints.http.page.rendering import Renderer  # noqa: PLC0415 - imports Jinja2

    return Renderer()
