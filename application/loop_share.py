"""Long work on the event loop, done in slices, so that other tasks have their turns in between."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import TypeVar

Item = TypeVar("Item")

_SLICE_SECONDS = 0.01


async def in_slices(items: Iterable[Item]) -> AsyncIterator[Item]:
    """The items, one after another. Other tasks run whenever 10 ms have been spent on them."""
    loop = asyncio.get_running_loop()
    end = loop.time() + _SLICE_SECONDS
    for item in items:
        yield item
        if loop.time() >= end:
            await asyncio.sleep(0)
            end = loop.time() + _SLICE_SECONDS
