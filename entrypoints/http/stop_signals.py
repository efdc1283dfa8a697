"""SIGTERM and SIGINT, heard once, and only by who can act on them.

Sanic's main process tells each worker to stop with a SIGINT of its own. Three things go wrong with that [tried]:
a terminal and a service manager signal every process of the group, and a worker that hears it twice is cut off in
the middle of letting its transfers finish; a worker that is told before it serves stops half built; and a main
process that is told before its workers have reported waits for them for ever. So the signals are blocked until
each process can act on them (they are kept, not lost), and workers leave SIGTERM to the main process.
"""

import asyncio
import os
import signal
from collections.abc import Callable

from entrypoints.http.app import App

_STOP = (signal.SIGINT, signal.SIGTERM)
_POLL_SECONDS = 0.02


def hold_stop_signals(app: App) -> None:
    """Called in the main process, before it starts the workers."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _STOP)
    app.main_process_ready(_release_in_main)
    app.before_server_start(_hold_in_worker)
    app.after_server_start(_release_in_worker)


async def _release_in_main(app: App) -> None:
    """When the workers have reported. Sanic has no event for that moment, hence the wrapped method."""
    wait_for_workers: Callable[[], None] = app.manager.wait_for_ack

    def wait_then_release() -> None:
        wait_for_workers()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOP)

    app.manager.wait_for_ack = wait_then_release  # type: ignore[method-assign]


async def _hold_in_worker(_: App) -> None:
    """A worker that replaces a dead one is forked after the release. Out of the terminal's group it hears no Ctrl-C."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _STOP)
    os.setpgrp()


async def _release_in_worker(app: App) -> None:
    app.add_task(_release_when_serving(app))


async def _release_when_serving(app: App) -> None:
    """Sanic installs its handlers before it serves, and stops cleanly only once it does."""
    while not app.state.is_running:  # noqa: ASYNC110 - Sanic sets a flag, no event
        await asyncio.sleep(_POLL_SECONDS)
    asyncio.get_running_loop().remove_signal_handler(signal.SIGTERM)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOP)
