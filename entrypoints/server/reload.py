"""Reload of the settings: on SIGHUP the main process reads the settings again, and the workers apply them."""

import asyncio
import logging
import os
import ssl
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

from application.ports.reloads import ReloadResult
from domain.value import Value
from entrypoints.http.app import App, timeouts, worker_number
from entrypoints.server.certificates import read_certificate
from entrypoints.server.logging_setup import configure_logging
from entrypoints.server.settings_channel import SettingsChannel
from entrypoints.settings import Settings, SettingsError
from entrypoints.wiring.authorities import prepare_authorities
from entrypoints.wiring.storage import prepare_storage
from entrypoints.wiring.tracing import prepare_tracing

_LOG = logging.getLogger("docker_image_proxy")
_CHECKS = 500
"""How often `check` looks for the acknowledgements of the workers: every 20 ms, for ten seconds."""

_AT_START = ("host", "port", "metrics_port", "workers")
"""The sockets are opened once, and so is the memory that the workers share."""

_STORED = ("cache_dir", "shared_store")
"""The settings that say where content is stored."""

Load = Callable[[], Settings]


class Change(Value, frozen=True):
    """What a reload changes. `settings` take effect now. `changed` are the settings that differ from before,
    `held_back` those that need a restart. Both are names only: values may be secrets.
    """

    settings: Settings
    changed: tuple[str, ...]
    held_back: tuple[str, ...]


class SettingsReloader:
    """In the main process. Used by one thread, which runs beside the thread that forks workers."""

    def __init__(self, app: App, load: Load, channel: SettingsChannel) -> None:
        self._app = app
        self._load = load
        self._channel = channel
        self._change: Change | None = None
        self._checks = 0
        self._results = 0
        self._reading = threading.Lock()

    def guard_forks(self) -> None:
        """Delay forks while settings are read: a worker starts with the old settings or with the new ones, never with a
        mixture, and never with a lock (of OpenSSL, for instance) that the reading thread holds.
        """
        os.register_at_fork(
            before=self._reading.acquire,
            after_in_parent=self._reading.release,
            after_in_child=self._reading.release,
        )

    @property
    def is_running(self) -> bool:
        return self._change is not None

    def begin(self) -> None:
        """Read the settings and publish them to the workers. Invalid settings are logged, and nothing changes."""
        with self._reading:
            try:
                self._change = self._read()
            except SettingsError as error:
                _LOG.error("settings not reloaded, the old ones stay in force: %s", error)
                self._publish_result(f"settings not reloaded, the old ones stay in force: {error}", is_error=True)
            except Exception as error:  # noqa: BLE001 - this thread also replaces dead workers, and must not end
                _LOG.error("settings not reloaded, the old ones stay in force", exc_info=error)
                self._publish_result("settings not reloaded, the old ones stay in force; see the log", is_error=True)
            else:
                self._channel.publish(self._change.settings)
        self._checks = 0

    def check(self) -> None:
        """Called repeatedly while a reload is running. Logs the result once all workers have acknowledged, or after
        ten seconds.
        """
        if self._change is None:
            return
        self._checks += 1
        if not self._channel.is_acknowledged and self._checks <= _CHECKS:
            return
        change, failed_workers = self._change, self._channel.failed_workers
        self._change = None
        failed = f", but not by {failed_workers} of {change.settings.workers} workers" if failed_workers else ""
        message = f"settings reloaded{failed}; changed: {', '.join(change.changed) or 'none'}"
        _LOG.log(logging.ERROR if failed_workers else logging.INFO, "%s", message)
        if change.held_back:
            held_back = f"these settings need a restart and were not changed: {', '.join(change.held_back)}"
            _LOG.warning("%s", held_back)
            message += f"; {held_back}"
        self._publish_result(message, is_error=failed_workers > 0)
        for warning in change.settings.warnings:
            _LOG.warning("%s", warning)

    def _publish_result(self, message: str, *, is_error: bool) -> None:
        self._results += 1
        self._channel.publish_result(ReloadResult(self._results, message, is_error))

    def _read(self) -> Change:
        in_force: Settings = self._app.ctx.settings
        loaded = self._load()
        change = change_of(in_force, loaded)
        prepare_tracing(change.settings)
        if any(getattr(change.settings, name) != getattr(in_force, name) for name in _STORED):
            prepare_storage(change.settings)
        certificate = read_certificate(change.settings) if self._app.ctx.certificates else None
        # A worker that replaces a dead one is forked with these.
        prepare_authorities()
        put_in_force(self._app, change.settings, certificate)
        return change


def change_of(in_force: Settings, loaded: Settings) -> Change:
    """Raises SettingsError if values that stay until a restart contradict new ones: rules for a loopback HOST, for
    instance, must not take effect where other machines have access.
    """
    held_back = [name for name in _AT_START if getattr(in_force, name) != getattr(loaded, name)]
    if (in_force.tls_cert is None) != (loaded.tls_cert is None):
        held_back += ("tls_cert", "tls_key")  # the clients of the open port speak either TLS or plain HTTP
    kept: dict[str, Any] = {name: getattr(in_force, name) for name in held_back}
    if in_force.server_secret.is_random and loaded.server_secret.is_random:
        # A random secret is another one at each load. The one in force has signed tokens.
        kept["server_secret"] = in_force.server_secret
    settings = replace(loaded, **kept)
    try:
        settings.check()
    except ValueError as error:
        raise SettingsError(f"with {', '.join(map(str.upper, kept))} as before: {error}") from error
    before, after = in_force.by_name(), settings.by_name()
    changed = sorted(name for name in after if before[name] != after[name])
    return Change(settings, tuple(changed), tuple(map(str.upper, held_back)))


async def apply_published_settings(app: App, channel: SettingsChannel) -> None:
    """In a worker, until the task is cancelled. It then returns normally, because Sanic logs a warning for a task that
    ends with CancelledError, at each stop.
    """
    worker, number, notified = worker_number(app), channel.number, asyncio.Event()

    def notify() -> None:
        channel.clear_notification(worker)
        notified.set()

    asyncio.get_running_loop().add_reader(channel.notification(worker), notify)
    channel.acknowledge(worker, number, applied=True)
    with suppress(asyncio.CancelledError):
        while await notified.wait():
            notified.clear()
            try:
                published = channel.read()
                if published is None or published.number == number:
                    continue
                number = published.number
                await apply_settings(app, published.settings)
                channel.acknowledge(worker, number, applied=True)
            except Exception as error:  # noqa: BLE001 - the worker goes on with the old settings
                _LOG.error(
                    "worker %s could not apply the new settings and keeps the old ones", os.getpid(), exc_info=error
                )
                channel.acknowledge(worker, number, applied=False)


async def apply_settings(app: App, settings: Settings) -> None:
    """Use the settings for all new requests. If they cannot be used, this raises before anything has changed."""
    certificate = read_certificate(settings) if app.ctx.certificates else None
    prepare_authorities()
    await app.ctx.runtimes.replace(settings)
    put_in_force(app, settings, certificate)


def put_in_force(app: App, settings: Settings, certificate: ssl.SSLContext | None) -> None:
    """Apply all settings that need no runtime. The main process does this too, because workers are forked with it."""
    if certificate:
        app.ctx.certificates.current = certificate
    app.config.update(timeouts(settings))
    before: Settings = app.ctx.settings
    if (before.log_format, before.log_level) != (settings.log_format, settings.log_level):
        configure_logging(settings)
    app.ctx.settings = settings
