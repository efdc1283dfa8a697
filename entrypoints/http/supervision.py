"""What the main process does while its workers serve: it replaces a dead one, and passes the word to stop on.

Sanic's main process tells each worker to stop with a SIGINT of its own. Four things go wrong with that, each seen
here before it was mended: a terminal and a service manager signal every process of the group, and a worker that
hears it twice is cut off in the middle of letting its transfers finish; a worker that is told before it serves stops
half built; a main process that is told before its workers have reported waits for them for ever; and its handler
uses the very connection to its state that it may have interrupted. So the signals are blocked (they are kept, not
lost) until each process can act on them: the main process takes them in a thread that passes the word on to its
loop, and workers leave SIGTERM to the main process.

SIGHUP, on which the settings are read anew, is held from the very start (`entrypoints/start.py`) and goes nowhere
else: workers learn what there is to learn from a SettingsBoard.
"""

import asyncio
import logging
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial

from sanic.worker.manager import WorkerManager

from entrypoints.http.app import App
from entrypoints.http.reloading import Reloading
from entrypoints.start import hold_hang_up

_LOG = logging.getLogger("docker_image_proxy")
_STOP = (signal.SIGINT, signal.SIGTERM)
_POLL_SECONDS = 0.02
_WATCH_SECONDS = 1.0  # not shorter: a process must not be asked for twice before Sanic has begun it
_TERMINATE = "__TERMINATE__"  # what Sanic's own workers send to have everything stopped


def supervise(app: App, reloading: Reloading) -> None:
    """Called in the main process, before it starts the workers."""
    hold_hang_up()
    reloading.guard_forks()
    signal.pthread_sigmask(signal.SIG_BLOCK, _STOP)
    app.main_process_ready(partial(_release_in_main, reloading=reloading))
    app.before_server_start(_hold_in_worker)
    app.after_server_start(_release_in_worker)
    app.before_server_stop(_close_connections_early)


def end_workers() -> None:
    """Called in the main process when it can supervise no longer, because Sanic's helper that keeps the workers' states
    was killed, say. Python would wait for the workers, whose socket is shut by then, and no service manager would see
    that it has something to start again.
    """
    for process in multiprocessing.active_children():
        process.kill()


async def _release_in_main(app: App, *, reloading: Reloading) -> None:
    """When the workers have reported. Sanic has no event for that moment, hence the wrapped method."""
    manager = app.manager
    wait_for_workers: Callable[[], None] = manager.wait_for_ack

    def wait_then_listen() -> None:
        wait_for_workers()
        threading.Thread(target=_watch, args=(manager, reloading), name="supervision", daemon=True).start()

    manager.wait_for_ack = wait_then_listen  # type: ignore[method-assign]


def _watch(manager: WorkerManager, reloading: Reloading) -> None:
    """Sanic leaves a worker dead that was killed, by the kernel for want of memory, say. All that is done here is to
    send what Sanic's loop in the main thread acts on: a process by its name to be restarted, or the end.

    The first signal lets the workers finish; whoever sends a second one does not want to wait for that.
    """
    watched = time.monotonic()
    while (came := _next_signal(reloading)) not in _STOP:
        if came == signal.SIGHUP:
            reloading.begin()
        reloading.look()
        if time.monotonic() >= watched + _WATCH_SECONDS:
            _replace_dead(manager)
            watched = time.monotonic()
    manager.monitor_publisher.send(_TERMINATE)
    signal.sigwait(_STOP)
    for process in manager.processes:
        with suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)


def _next_signal(reloading: Reloading) -> int | None:
    """None after a while without any. One reload at a time: the kernel keeps the SIGHUP that comes meanwhile."""
    if reloading.is_under_way:
        came = signal.sigtimedwait(_STOP, _POLL_SECONDS)
    else:
        came = signal.sigtimedwait((*_STOP, signal.SIGHUP), _WATCH_SECONDS)
    return came.si_signo if came else None


def _replace_dead(manager: WorkerManager) -> None:
    for process in manager.processes:
        if not process.is_alive():
            _LOG.error("worker %s died; starting another", process.pid)
            manager.monitor_publisher.send(process.name)


async def _hold_in_worker(_: App) -> None:
    """Out of the terminal's group, a worker hears no Ctrl-C."""
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


async def _close_connections_early(app: App) -> None:
    """Sanic closes idle connections once, when it begins to stop; those that are busy then are to close themselves
    when they are done, or the whole grace would pass in waiting for clients that keep theirs open.
    """
    app.ctx.is_stopping = True
