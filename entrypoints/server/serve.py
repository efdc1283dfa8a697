"""Starts the service: settings, storage and sockets in the main process, then the worker processes."""

import asyncio
import logging
import socket
import ssl
from contextlib import suppress
from functools import partial

from sanic import Sanic

from entrypoints.http.app import App, create_app
from entrypoints.http.connection.acceptor import Acceptor
from entrypoints.http.connection.connection_protocol import MirrorProtocol
from entrypoints.http.connection.connection_table import ConnectionLimits, ConnectionTable
from entrypoints.server.certificates import Certificates
from entrypoints.server.listening_sockets import ListeningSockets, listen
from entrypoints.server.logging_setup import configure_logging
from entrypoints.server.open_file_limit import connections_within_open_file_limit, raise_open_file_limit
from entrypoints.server.reload import Load, SettingsReloader, apply_published_settings
from entrypoints.server.settings_channel import SettingsChannel
from entrypoints.server.start_line import print_start_line
from entrypoints.server.workers import end_workers, supervise
from entrypoints.settings import Settings
from entrypoints.wiring.container import make_counters, open_container
from entrypoints.wiring.storage import prepare_storage, sweep_storage

_LOG = logging.getLogger("docker_image_proxy")
_FIRST_WORKER = "Sanic-Server-0-0"


def run(settings: Settings, load: Load) -> None:
    """Serve until a signal stops the service. All workers use these settings, including a generated SERVER_SECRET.
    `load` reads the settings again on SIGHUP.
    """
    configure_logging(settings)
    raise_open_file_limit()
    prepare_storage(settings)
    sweep_storage(settings)
    app = create_app(settings, container_factory=partial(open_container, counters=make_counters(settings)))
    app.after_server_start(_announce)
    channel = SettingsChannel(settings.workers)
    supervise(app, SettingsReloader(app, load, channel))
    app.after_server_start(partial(_apply_new_settings, channel=channel))
    app.ctx.listening = listen(settings)
    _prepare(app, _tls(app))
    # Forked workers share the memory of imported modules and need half as much as spawned ones. No thread and no event
    # loop runs yet that a fork could break.
    Sanic.start_method = "fork"
    try:
        Sanic.serve(primary=app)
    except (EOFError, ConnectionError):
        # Sanic uses a connection to its helper process before it starts the workers, too.
        end_workers()
        _LOG.error("the helper process, which keeps the workers' states, ended during the start; the service exits")
        raise SystemExit(1) from None
    except BaseException:
        end_workers()
        raise
    finally:
        _stop_listening(app.ctx.listening)


def _prepare(app: App, tls: ssl.SSLContext | None) -> None:
    """Let Sanic start and stop the workers, and the Acceptor accept their connections. Sanic's own server has the first
    socket, but does not start serving.
    """
    connections: set[MirrorProtocol] = set()
    app.prepare(sock=app.ctx.listening.sockets[0], workers=app.ctx.settings.workers, motd=False, access_log=False)
    for info in app.state.server_info:
        info.settings["asyncio_server_kwargs"] = {"start_serving": False}
        info.settings["connections"] = connections  # Sanic closes these at the end; each worker has a copy
    app.after_server_start(partial(_accept, connections=connections, tls=tls))
    app.before_server_stop(_stop_accepting)


async def _accept(app: App, *, connections: set[MirrorProtocol], tls: ssl.SSLContext | None) -> None:
    loop = asyncio.get_running_loop()
    limit = connections_within_open_file_limit()
    if limit < app.ctx.settings.max_connections and app.m.name == _FIRST_WORKER:
        _LOG.warning("MAX_CONNECTIONS: the limit of open files allows only %d connections per worker", limit)

    def limits() -> ConnectionLimits:
        settings: Settings = app.ctx.settings
        connections = min(settings.max_connections, limit)
        return ConnectionLimits(settings.request_timeout, connections, settings.max_waiting_per_address)

    def is_exempt(address: str) -> bool:
        return bool(app.ctx.runtimes.current.proxies.trusts(address))

    app.ctx.acceptor = Acceptor(
        app.ctx.listening.sockets,
        ConnectionTable(limits),
        partial(MirrorProtocol, loop=loop, app=app, connections=connections),
        is_exempt=is_exempt,
        tls=tls,
    )


async def _stop_accepting(app: App) -> None:
    app.ctx.acceptor.close()


def _stop_listening(listening: ListeningSockets) -> None:
    """Close the sockets, also in workers that still run: all processes share them."""
    for one in listening.sockets:
        with suppress(OSError):  # already closed
            one.shutdown(socket.SHUT_RDWR)
    listening.close()


def _tls(app: App) -> ssl.SSLContext | None:
    if app.ctx.settings.tls_cert is None:
        return None
    certificates = Certificates(app.ctx.settings)
    app.ctx.certificates = certificates
    return certificates.listening


async def _apply_new_settings(app: App, *, channel: SettingsChannel) -> None:
    app.add_task(apply_published_settings(app, channel))


async def _announce(app: App) -> None:
    """Print the start line, without waiting for it: a slow upstream must not delay the start."""
    if app.m.name == _FIRST_WORKER:
        app.add_task(print_start_line(app))
