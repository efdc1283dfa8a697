"""Supervision of the worker processes: dead workers are replaced, and signals reach each worker once.

Sanic's main process stops each worker with SIGINT. This fails in five cases, all of which occurred here:

- A terminal and a service manager signal every process of the group. A worker that receives the signal twice closes
  its connections in the middle of a transfer.
- A worker that receives the signal before it serves stops half initialised.
- A main process that receives it before its workers have reported waits for them for ever.
- In the main process, Sanic's signal handler uses the connection to the process that keeps the workers' states. If the
  signal interrupts another use of this connection, their messages are mixed up.
- A worker that has reported, but has not installed its signal handlers, loses the SIGINT, because Sanic ignores it for
  a moment.

So signals are blocked until each process can handle them. The main process receives them in a thread, which passes the
stop on to Sanic's loop. Workers leave SIGTERM to the main process. A flag in shared memory reaches a worker that lost
its SIGINT. Workers that still run some seconds after SHUTDOWN_GRACE are killed.

Two kinds of end are not requested by a signal. If the main process is killed, a ParentWatch tells its children: workers
finish their transfers as at any stop, and close the port at once. If Sanic's helper process is killed, which keeps the
states of the workers, Sanic's main process cannot go on: it logs one line, stops the workers in the same way, and exits
with a status that makes a service manager restart the service.

SIGHUP, which reloads the settings, is blocked from the start of the process (`entrypoints/start.py`). Only the main
process handles it; workers get new settings through a SettingsChannel.
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
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import NoReturn

from sanic.worker.manager import WorkerManager

from entrypoints.http.app import App
from entrypoints.server.reload import SettingsReloader

_LOG = logging.getLogger("docker_image_proxy")
_STOP = (signal.SIGINT, signal.SIGTERM)
_POLL_SECONDS = 0.02
_WATCH_SECONDS = 1.0  # not shorter: Sanic must have started a process before it is requested again
_MARGIN_SECONDS = 10.0
"""Added to SHUTDOWN_GRACE, so that workers that are about to end by themselves are not killed."""
_ORPHAN_MARGIN_SECONDS = 5.0
"""The same for a worker whose main process has ended, which ends by itself or is killed by its ParentWatch."""
STATUS_TO_RESTART = 1
"""The exit status of a service that ended without a request to stop. Invalid settings exit with 2."""
_TERMINATE = "__TERMINATE__"  # the message by which Sanic's workers request a stop of everything


class ParentWatch:
    """Makes all processes of the service end when the main process ends, for whatever reason. Created in the main
    process before it forks the workers: every child that is forked from then on watches the main process.

    A main process that is killed by SIGKILL, for instance by the kernel when memory is short, cannot tell its children.
    They would keep the listening socket, and a restarted service could not bind its port. So all children have the read
    end of a pipe whose write end only the main process has: when the main process ends, the kernel closes the write
    end, and each child reads the end of the file. Linux's own means, PR_SET_PDEATHSIG of prctl(2), depends on the
    thread that forked, and exists on no other system.
    """

    def __init__(self) -> None:
        self._read_end, self._write_end = os.pipe()  # not inherited by other programs (PEP 446)
        self._main = os.getpid()
        self.stop: Callable[[], float] | None = None
        """In a child: the function that stops it. It is called in another thread, and returns how many seconds the stop
        may take; after that the process is killed. A child without such a function ends immediately.
        """
        os.register_at_fork(after_in_child=self._begin)

    def release(self) -> None:
        """In the main process: make all children end, as if the main process had ended."""
        os.close(self._write_end)

    @property
    def is_orphan(self) -> bool:
        """In a child: whether the main process has ended."""
        return os.getppid() != self._main

    def _begin(self) -> None:
        os.close(self._write_end)
        threading.Thread(target=self._wait, name="parent watch", daemon=True).start()

    def _wait(self) -> None:
        while os.read(self._read_end, 1):
            pass  # the main process never writes
        if self.stop is not None:
            time.sleep(self.stop() + _ORPHAN_MARGIN_SECONDS)
        os._exit(STATUS_TO_RESTART)


class _PatientConnection:
    """The end of the connection at which Sanic's loop in the main process waits for messages.

    Sanic waits a tenth of a second, then it asks its helper for the state of each worker, and waits again. With that,
    an idle service would use several percent of a processor. Nothing here needs these states so often: `_replace_dead`
    notices the end of a worker itself, and a message ends the wait at once.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def poll(self, seconds: float) -> bool:
        """Whether there is a message. Waits at least a second for one."""
        return self._connection.poll(max(seconds, _WATCH_SECONDS))

    def recv(self) -> object:
        """The next message. Raises EOFError and OSError as the connection does."""
        return self._connection.recv()


def supervise(app: App, reloader: SettingsReloader) -> None:
    """Called in the main process before it starts the workers."""
    # Forked processes inherit the mask, so they never receive SIGHUP.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    reloader.guard_forks()
    parent = ParentWatch()
    stop_flag = mmap.mmap(-1, 1)  # one byte that the main process shares with the workers: 1 if they should stop
    signal.pthread_sigmask(signal.SIG_BLOCK, _STOP)
    app.main_process_ready(partial(_supervise_when_ready, reloader=reloader, parent=parent, stop_flag=stop_flag))
    app.before_server_start(_block_signals_in_worker)
    app.before_server_start(_end_worker_without_helper)
    app.after_server_start(partial(_handle_signals_in_worker, parent=parent, stop_flag=stop_flag))


def end_workers() -> None:
    """Called in the main process when it fails. Otherwise Python would wait for the workers, whose socket is closed by
    then, and a service manager would not notice that it has to restart the service.
    """
    for process in multiprocessing.active_children():
        process.kill()


async def _supervise_when_ready(
    app: App, *, reloader: SettingsReloader, parent: ParentWatch, stop_flag: mmap.mmap
) -> None:
    """Start the supervision when the workers have reported. Sanic has no event for that, so two methods are wrapped."""
    manager = app.manager
    # Sanic's helper is the only child that exists before the workers.
    helpers = multiprocessing.active_children()
    helper_ended = threading.Event()
    wait_for_workers: Callable[[], None] = manager.wait_for_ack
    manage: Callable[[], None] = manager.run

    def wait_then_listen() -> None:
        wait_for_workers()
        manager.monitor_subscriber = _PatientConnection(manager.monitor_subscriber)  # type: ignore[assignment]
        threading.Thread(
            target=_watch, args=(app, reloader, stop_flag, helper_ended), name="supervision", daemon=True
        ).start()

    def run() -> None:
        try:
            manage()
        except (EOFError, OSError):
            # Any of these follow from the end of the helper: a broken pipe, a refused connection, a missing socket.
            for helper in helpers:
                helper.join(_WATCH_SECONDS)  # the kernel may report the end of the process later
            dead = [helper for helper in helpers if not helper.is_alive()]
            if not dead:
                raise
            helper_ended.set()
            _end_without(dead[0], parent, app.ctx.settings.shutdown_grace)

    manager.wait_for_ack = wait_then_listen  # type: ignore[method-assign]
    manager.run = run  # type: ignore[method-assign]


def _end_without(helper: BaseProcess, parent: ParentWatch, grace: float) -> NoReturn:
    """Stop the workers and end this process after the helper has ended. An exception would not do: Sanic would call
    the helper again while it cleans up.
    """
    _LOG.critical(
        "the helper process %s, which keeps the workers' states, ended with status %s; "
        "the service exits with status %s so that it is restarted",
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


def _watch(app: App, reloader: SettingsReloader, stop_flag: mmap.mmap, helper_ended: threading.Event) -> None:
    """Handle signals and replace dead workers, which Sanic does not. This thread only sends the messages on which
    Sanic's loop in the main thread acts: the name of a process to restart, or the request to stop.

    The first signal lets the workers finish; a second one, or the end of their time, kills them.
    """
    manager = app.manager
    watched = time.monotonic()
    while (received := _next_signal(reloader)) not in _STOP:
        if received == signal.SIGHUP:
            reloader.begin()
        reloader.check()
        if time.monotonic() >= watched + _WATCH_SECONDS and not helper_ended.is_set():
            _replace_dead(manager)
            watched = time.monotonic()
    stop_flag[0] = 1  # before Sanic sends SIGINT: a worker that loses its SIGINT reads stop_flag later
    with suppress(OSError):
        manager.monitor_publisher.send(_TERMINATE)
    if not helper_ended.is_set():
        seconds = app.ctx.settings.shutdown_grace + _MARGIN_SECONDS
        if signal.sigtimedwait(_STOP, seconds) is None:
            _LOG.error("killing workers that did not end within SHUTDOWN_GRACE and %d seconds", _MARGIN_SECONDS)
    for process in manager.processes:
        with suppress(ProcessLookupError, ValueError):  # it has ended
            os.kill(process.pid, signal.SIGKILL)


def _next_signal(reloader: SettingsReloader) -> int | None:
    """The next signal, or None after a while. During a reload, the kernel keeps another SIGHUP."""
    if reloader.is_running:
        received = signal.sigtimedwait(_STOP, _POLL_SECONDS)
    else:
        received = signal.sigtimedwait((*_STOP, signal.SIGHUP), _WATCH_SECONDS)
    return received.si_signo if received else None


def _replace_dead(manager: WorkerManager) -> None:
    for process in manager.processes:
        if not process.is_alive():
            _LOG.error("worker %s died; starting another", process.pid)
            manager.monitor_publisher.send(process.name)


async def _block_signals_in_worker(_: App) -> None:
    """Block the stop signals. In a process group of its own, a worker does not receive Ctrl-C."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _STOP)
    os.setpgrp()


async def _end_worker_without_helper(app: App) -> None:
    """End this worker without a message if the helper has ended before the worker could report its start: Sanic would
    log a traceback. The main process logs what has happened, and ends the service.
    """
    report: Callable[[], None] = app.multiplexer.ack

    def report_or_end() -> None:
        try:
            report()
        except (EOFError, OSError):  # see `run` above
            os._exit(STATUS_TO_RESTART)

    app.multiplexer.ack = report_or_end  # type: ignore[method-assign]


async def _handle_signals_in_worker(app: App, *, parent: ParentWatch, stop_flag: mmap.mmap) -> None:
    app.add_task(_handle_signals_when_serving(app, parent, stop_flag))


async def _handle_signals_when_serving(app: App, parent: ParentWatch, stop_flag: mmap.mmap) -> None:
    """Handle the stop signals once the worker serves: Sanic installs its own handlers before that, and stops cleanly
    only after it.
    """
    while not app.state.is_running:  # noqa: ASYNC110 - Sanic sets a flag, no event
        await asyncio.sleep(_POLL_SECONDS)
    loop = asyncio.get_running_loop()

    def stop() -> None:
        # A second stop would close the connections of transfers that are still running.
        if not app.ctx.is_stopping:
            app.ctx.is_stopping = True
            app.stop(terminate=False)

    def stop_if_orphaned() -> None:
        if parent.is_orphan:
            stop()

    def stop_soon() -> float:
        with suppress(RuntimeError):  # the loop is closed, so the worker is ending
            loop.call_soon_threadsafe(stop)
        return float(app.ctx.settings.shutdown_grace)

    parent.stop = stop_soon
    loop.add_signal_handler(signal.SIGINT, stop)
    # The main process handles SIGTERM and stops each worker once. An orphaned worker handles it itself.
    loop.add_signal_handler(signal.SIGTERM, stop_if_orphaned)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOP)
    if stop_flag[0]:
        stop()
