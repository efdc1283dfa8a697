"""What a step in a thread or a task of its own uses must not be closed before that step has ended."""

import asyncio
from contextlib import suppress
from typing import Any


async def until_done(step: "asyncio.Future[Any]") -> None:
    """For whoever was cancelled while he waited for the step: wait for its end, however often that is cancelled too."""
    while not step.done():
        with suppress(asyncio.CancelledError):
            await asyncio.wait([step])
