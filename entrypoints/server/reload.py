"""Reloading: new settings for a service that runs. The main process reads them, and the workers take them."""

import asyncio
import logging
import os
import threading
from collections.abc import Callable
from contextlib import suppress

from entrypoints.http.app import App, timeouts, worker_row
from entrypoints.server.certificates import read_certificate
from entrypoints.server.logs import reconfigure_logging
from entrypoints.server.shared_settings import SharedSettings
from entrypoints.settings import Settings, SettingsError
from entrypoints.settings.changes import Change, change_of
from entrypoints.wiring.storage import prepare_storage

_LOG = logging.getLogger("docker_image_proxy")
_PATIENCE = 500
"""So often it is looked whether the workers have answered, ten seconds in all."""

Load = Callable[[], Settings]


class Reloading:
    """In the main process; used by one thread, beside the one that forks workers."""

    def __init__(self, app: App, load: Load, board: SharedSettings) -> None:
        self._app = app
        self._load = load
        self._board = board
        self._change: Change | None = None
        self._looks = 0
        self._reading = threading.Lock()

    def guard_forks(self) -> None:
        """From now on a worker is forked with the old settings or with the new ones, and with no lock of OpenSSL, say,
        that is held by the thread which reads them.
        """
        os.register_at_fork(
            before=self._reading.acquire,
            after_in_parent=self._reading.release,
            after_in_child=self._reading.release,
        )

    @property
    def is_under_way(self) -> bool:
        return self._change is not None

    def begin(self) -> None:
        """Good settings are posted for the workers; of bad ones it is said why, and all stays as it is."""
        with self._reading:
            try:
                self._change = self._read()
            except SettingsError as error:
                _LOG.error("settings not reloaded, the old ones stay in force: %s", error)
            except Exception as error:  # noqa: BLE001 - whatever it is, this thread has more to do
                _LOG.error("settings not reloaded, the old ones stay in force", exc_info=error)
            else:
                self._board.post(self._change.settings)
        self._looks = 0

    def look(self) -> None:
        """Called now and then while it is under way; says once what came of it."""
        if self._change is None:
            return
        self._looks += 1
        if self._board.is_answered or self._looks > _PATIENCE:
            _tell(self._change, self._board.missing)
            self._change = None

    def _read(self) -> Change:
        in_force: Settings = self._app.ctx.settings
        loaded = self._load()
        change = change_of(in_force, loaded)
        if change.settings.cache_dir != in_force.cache_dir:
            prepare_storage(change.settings)
        if self._app.ctx.certificates:
            self._app.ctx.certificates.show(read_certificate(change.settings))
        # A worker that takes the place of a dead one is forked with these.
        put_in_force(self._app, change.settings)
        return change


def _tell(change: Change, missing: int) -> None:
    _LOG.log(
        logging.ERROR if missing else logging.INFO,
        "settings reloaded%s; changed: %s",
        f", but not by {missing} of {change.settings.workers} workers" if missing else "",
        ", ".join(change.changed) or "none",
    )
    if change.held_back:
        _LOG.warning("these settings want a restart and stay as they were: %s", ", ".join(change.held_back))
    for warning in change.settings.warnings:
        _LOG.warning("%s", warning)


async def take_settings(app: App, board: SharedSettings) -> None:
    """In a worker, for as long as it runs: one post after the other. Returns when it is cancelled, because Sanic writes
    a warning about a task of its own that ends in any other way, and each stop would show one.
    """
    with suppress(asyncio.CancelledError):
        await _take_each(app, board)


async def _take_each(app: App, board: SharedSettings) -> None:
    row, number, rung = worker_row(app), board.number, asyncio.Event()

    def ring() -> None:
        board.hear(row)
        rung.set()

    asyncio.get_running_loop().add_reader(board.bell(row), ring)
    board.answer(row, number, taken=True)
    while await rung.wait():
        rung.clear()
        try:
            posted = board.read()
            if posted is None or posted.number == number:
                continue
            number = posted.number
            await apply_settings(app, posted.settings)
            board.answer(row, number, taken=True)
        except Exception as error:  # noqa: BLE001 - whatever it is, the old settings serve on
            _LOG.error("worker %s cannot take the new settings and keeps the old ones", os.getpid(), exc_info=error)
            board.answer(row, number, taken=False)


async def apply_settings(app: App, settings: Settings) -> None:
    """Requests begin with these from now on. Whatever is wrong with them is raised before anything has changed."""
    certificate = read_certificate(settings) if app.ctx.certificates else None
    await app.ctx.part_sets.replace(settings)
    if certificate:
        app.ctx.certificates.show(certificate)
    put_in_force(app, settings)


def put_in_force(app: App, settings: Settings) -> None:
    """All but the parts: what the main process has of them too, whose workers are forked with it."""
    app.config.update(timeouts(settings))
    reconfigure_logging(app.ctx.settings, settings)
    app.ctx.settings = settings
