"""What the main process does while its workers serve: it replaces a dead one, and passes the word to stop on.

Sanic's main process tells each worker to stop with a SIGINT of its own. Five things go wrong with that, each seen
here before it was mended: a terminal and a service manager signal every process of the group, and a worker that
hears it twice is cut off in the middle of letting its transfers finish; a worker that is told before it serves stops
half built; a main process that is told before its workers have reported waits for them for ever; its handler
uses the very connection to its state that it may have interrupted; and a worker that has reported, but has not set up
its signal handlers, loses the SIGINT, because Sanic has it ignored for a moment, which discards a pending one. So the
signals are blocked until each process can act on them: the main process takes them in a thread that passes the word on
to its loop, and workers leave SIGTERM to the main process. A StopFlag tells a worker whose SIGINT was lost. Workers
that have not ended some seconds after the grace are killed.

Two ends are not asked for. When the main process is killed, its children are told by a ParentWatch: workers finish
their transfers as at any stop, and close the port at once. When Sanic's helper process is killed, which keeps the
workers' states, Sanic's main process cannot go on: one line says so, the workers are told in the same way, and the
exit status has a service manager start everything again.

SIGHUP, on which the settings are read anew, is held from the very start (`entrypoints/start.py`) and goes nowhere
else: workers learn what there is to learn from a SharedSettings.
"""

import asyncio
import logging
import mmap
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from multiprocessing.process import BaseProcess
from typing import NoReturn

from sanic.worker.manager import WorkerManager

from entrypoints.http.app import App
from entrypoints.server.parent_watch import ParentWatch
from entrypoints.server.reload import Reloading
from entrypoints.server.signals import hold_hang_up

_LOG = logging.getLogger("docker_image_proxy")
_STOP = (signal.SIGINT, signal.SIGTERM)
_POLL_SECONDS = 0.02
_WATCH_SECONDS = 1.0  # not shorter: a process must not be asked for twice before Sanic has begun it
_MARGIN_SECONDS = 10.0
"""Beyond the grace: for a stop that ends by itself."""
STATUS_TO_RESTART = 1
"""The exit status of a service that ended without being told to; 2 is for settings that stop the start."""
_TERMINATE = "__TERMINATE__"  # what Sanic's own workers send to have everything stopped


class StopFlag:
    """Whether the service is to stop, in memory that the main process shares with the workers that it forks."""

    def __init__(self) -> None:
        self._byte = mmap.mmap(-1, 1)

    def set(self) -> None:
        self._byte[0] = 1

    @property
    def is_set(self) -> bool:
        return self._byte[0] == 1


def supervise(app: App, reloading: Reloading) -> None:
    """Called in the main process, before it starts the workers."""
    hold_hang_up()
    reloading.guard_forks()
    parent, flag = ParentWatch(), StopFlag()
    parent.guard_forks()
    signal.pthread_sigmask(signal.SIG_BLOCK, _STOP)
    app.main_process_ready(partial(_release_in_main, reloading=reloading, parent=parent, flag=flag))
    app.before_server_start(_hold_in_worker)
    app.after_server_start(partial(_release_in_worker, parent=parent, flag=flag))
    app.before_server_stop(_close_connections_early)


def end_workers() -> None:
    """Called in the main process when it fails. Python would wait for the workers, whose socket is shut by then, and no
    service manager would see that it has something to start again.
    """
    for process in multiprocessing.active_children():
        process.kill()


async def _release_in_main(app: App, *, reloading: Reloading, parent: ParentWatch, flag: StopFlag) -> None:
    """When the workers have reported. Sanic has no event for that moment, hence the wrapped methods."""
    manager = app.manager
    # Sanic's helper is the only child that is there before the workers are.
    helpers = multiprocessing.active_children()
    is_ending = threading.Event()
    wait_for_workers: Callable[[], None] = manager.wait_for_ack
    manage: Callable[[], None] = manager.run

    def wait_then_listen() -> None:
        wait_for_workers()
        watch = partial(_watch, app, reloading, flag, is_ending)
        threading.Thread(target=watch, name="supervision", daemon=True).start()

    def run() -> None:
        try:
            manage()
        except (EOFError, OSError):
            # Whatever fails when the helper is gone: a pipe is broken, a connection refused, its socket not there.
            dead = [helper for helper in helpers if _has_ended(helper)]
            if not dead:
                raise
            is_ending.set()
            _end_without(dead[0], parent, app.ctx.settings.shutdown_grace)

    manager.wait_for_ack = wait_then_listen  # type: ignore[method-assign]
    manager.run = run  # type: ignore[method-assign]


def _has_ended(process: BaseProcess) -> bool:
    """The failure may be noticed a moment before the kernel reports the end."""
    process.join(_WATCH_SECONDS)
    return not process.is_alive()


def _end_without(helper: BaseProcess, parent: ParentWatch, grace: float) -> NoReturn:
    """End this process, whose helper is gone, after its workers. Not by an exception: on its way out, Sanic would ask
    the helper once more.
    """
    _LOG.critical(
        "the helper process %s, which keeps the workers' states, ended with status %s; "
        "the service ends with status %s, to be started again",
        helper.pid,
        helper.exitcode,
        STATUS_TO_RESTART,
    )
    workers = multiprocessing.active_children()
    parent.release()
    ends_by = time.monotonic() + grace
    for worker in workers:
        worker.join(max(0.0, ends_by - time.monotonic()))
    end_workers()
    logging.shutdown()
    os._exit(STATUS_TO_RESTART)


def _watch(app: App, reloading: Reloading, flag: StopFlag, is_ending: threading.Event) -> None:
    """Sanic leaves a worker dead that was killed, by the kernel for want of memory, say. All that is done here is to
    send what Sanic's loop in the main thread acts on: a process by its name to be restarted, or the end.

    The first signal lets the workers finish; a second one, or the end of the time that they have, kills them.
    """
    manager = app.manager
    watched = time.monotonic()
    while (came := _next_signal(reloading)) not in _STOP:
        if came == signal.SIGHUP:
            reloading.begin()
        reloading.look()
        if time.monotonic() >= watched + _WATCH_SECONDS and not is_ending.is_set():
            _replace_dead(manager)
            watched = time.monotonic()
    flag.set()  # before Sanic sends any SIGINT: a worker that has lost its own looks for the flag later
    with suppress(OSError):
        manager.monitor_publisher.send(_TERMINATE)
    if not is_ending.is_set():
        seconds = app.ctx.settings.shutdown_grace + _MARGIN_SECONDS
        if signal.sigtimedwait(_STOP, seconds) is None:
            _LOG.error("workers did not end within SHUTDOWN_GRACE and %d more seconds, and are killed", _MARGIN_SECONDS)
    for process in manager.processes:
        with suppress(ProcessLookupError, ValueError):  # ended already
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


async def _release_in_worker(app: App, *, parent: ParentWatch, flag: StopFlag) -> None:
    app.add_task(_release_when_serving(app, parent, flag))


async def _release_when_serving(app: App, parent: ParentWatch, flag: StopFlag) -> None:
    """Sanic installs its handlers before it serves, and stops cleanly only once it does."""
    while not app.state.is_running:  # noqa: ASYNC110 - Sanic sets a flag, no event
        await asyncio.sleep(_POLL_SECONDS)
    loop = asyncio.get_running_loop()

    def stop() -> None:
        # Told twice, a worker would be cut off in the middle of letting its transfers finish.
        if not app.ctx.is_stopping:
            app.ctx.is_stopping = True
            app.stop(terminate=False)

    def stop_if_orphaned() -> None:
        if parent.is_orphan:
            stop()

    def stop_soon() -> float:
        with suppress(RuntimeError):  # its loop is closed, it ends already
            loop.call_soon_threadsafe(stop)
        grace: float = app.ctx.settings.shutdown_grace
        return grace

    parent.stop_by(stop_soon)
    loop.add_signal_handler(signal.SIGINT, stop)
    # SIGTERM is the main process's: it tells each worker once. A worker without one takes it for itself.
    loop.add_signal_handler(signal.SIGTERM, stop_if_orphaned)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOP)
    if flag.is_set:
        stop()


async def _close_connections_early(app: App) -> None:
    """Sanic closes idle connections once, when it begins to stop; those that are busy then are to close themselves
    when they are done, or the whole grace would pass in waiting for clients that keep theirs open.
    """
    app.ctx.is_stopping = True
