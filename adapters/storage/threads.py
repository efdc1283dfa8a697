"""Blocking calls, off the event loop."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from application.concurrency import until_done

Result = TypeVar("Result")


class Threads:
    """A few threads. They start with the first step, after the workers were forked."""

    def __init__(self, count: int, name: str) -> None:
        self._pool = ThreadPoolExecutor(max_workers=count, thread_name_prefix=name)

    async def run(self, step: Callable[[], Result], dispose: Callable[[Result], None] | None = None) -> Result:
        """The step's result. A cancelled caller still waits for the end of the step: only then may a descriptor that
        the step uses be closed, because the next file that is opened gets the same number. `dispose` receives the
        result if the caller was cancelled.
        """
        future = asyncio.get_running_loop().run_in_executor(self._pool, step)
        try:
            await asyncio.wait([future])
        except asyncio.CancelledError:
            await until_done(future)
            if not future.cancelled() and future.exception() is None and dispose is not None:
                dispose(future.result())
            raise
        return future.result()

    def close(self) -> None:
        """Steps that have begun are finished; no other step begins."""
        self._pool.shutdown(wait=False)
