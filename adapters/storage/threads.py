"""Blocking calls, off the event loop."""

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial, wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

from application.concurrency import until_done

Result = TypeVar("Result")
Arguments = ParamSpec("Arguments")
Owner = TypeVar("Owner", bound="HasThreads")


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

    def start(self, step: Callable[[], Result]) -> Future[Result]:
        """Begin a step, for a caller that is a thread itself. If the threads are closed, the caller runs the step."""
        try:
            return self._pool.submit(step)
        except RuntimeError:
            done = Future[Result]()
            done.set_result(step())
            return done

    def close(self) -> None:
        """Steps that have begun are finished; no other step begins."""
        self._pool.shutdown(wait=False)


class NoThreads:
    """Replaces the threads of a closed object whose steps then do nothing: they run in the caller."""

    async def run(self, step: Callable[[], Result], _dispose: Callable[[Result], None] | None = None) -> Result:
        return step()

    def close(self) -> None:
        """There are no threads to end."""


class HasThreads:
    """The base of classes with methods that run in a thread, see `in_thread`."""

    threads: Threads | NoThreads


def in_thread(
    method: Callable[Concatenate[Owner, Arguments], Result],
) -> Callable[Concatenate[Owner, Arguments], Coroutine[Any, Any, Result]]:
    """Lets a blocking method run in the `threads` of its object. Callers await it."""

    @wraps(method)
    def run(owner: Owner, /, *args: Arguments.args, **kwargs: Arguments.kwargs) -> Coroutine[Any, Any, Result]:
        return owner.threads.run(partial(method, owner, *args, **kwargs))

    return run
