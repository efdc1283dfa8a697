"""Starts the service: settings, storage and sockets in the main process, then the worker processes."""

import asyncio
import gc
import logging
import resource
from dataclasses import replace
from functools import partial
from typing import Any

from sanic import Sanic
from sanic.exceptions import ServerError

from entrypoints.http.app import App, create_app
from entrypoints.http.connection.acceptor import Acceptor
from entrypoints.http.connection.connection_protocol import MetricsProtocol, MirrorProtocol
from entrypoints.http.connection.connection_table import ConnectionLimits, ConnectionTable
from entrypoints.http.worker_state import report_worker_state
from entrypoints.server.certificates import Certificates
from entrypoints.server.listening_sockets import listen
from entrypoints.server.logging_setup import configure_logging
from entrypoints.server.memory import return_free_memory
from entrypoints.server.reload import Load, SettingsReloader, apply_published_settings
from entrypoints.server.settings_channel import SettingsChannel
from entrypoints.server.start_line import print_start_line
from entrypoints.server.workers import end_workers, supervise
from entrypoints.settings import Settings
from entrypoints.wiring.container import make_counters, open_container
from entrypoints.wiring.storage import prepare_storage, sweep_storage
from entrypoints.wiring.tracing import prepare_tracing

_LOG = logging.getLogger("docker_image_proxy")
_FIRST_WORKER = "Sanic-Server-0-0"
_FILES_PER_CONNECTION = 3
"""A client that receives content uses its socket, the duplicate of the socket for sendfile, and the file."""
_RESERVED_FILES = 256
"""For connections to upstreams, the index, and files that are being downloaded."""
_FEWEST_CONNECTIONS = 16
_METRICS_CONNECTIONS = 16
"""The most connections of a worker at METRICS_PORT."""


def run(settings: Settings, load: Load) -> None:
    """Serve until a signal stops the service. All workers use these settings, including a generated SERVER_SECRET.
    `load` reads the settings again on SIGHUP. No other thread may be running: the workers are forked.
    """
    configure_logging(settings)
    _raise_open_file_limit()
    prepare_tracing(settings)
    prepare_storage(settings)
    sweep_storage(settings)
    app = create_app(settings, container_factory=partial(open_container, counters=make_counters(settings)))
    channel = SettingsChannel(settings.workers)
    supervise(app, SettingsReloader(app, load, channel))
    app.ctx.reloads = channel
    app.ctx.listening = listen(settings)
    app.ctx.metrics_listening = (
        listen(settings, settings.metrics_port, "METRICS_PORT") if settings.metrics_port is not None else None
    )
    app.ctx.certificates = Certificates(settings) if settings.tls_cert else None
    # Sanic starts and stops the workers. Its own server has the first socket, but does not start serving: the Acceptor
    # accepts the connections.
    app.prepare(sock=app.ctx.listening.sockets[0], workers=settings.workers, motd=False, access_log=False)
    connections: set[MirrorProtocol] = set()
    for info in app.state.server_info:
        info.settings["asyncio_server_kwargs"] = {"start_serving": False}
        info.settings["connections"] = connections  # Sanic closes these at the end; each worker has a copy
    app.after_server_start(partial(_start_worker, connections=connections, channel=channel))
    app.before_server_stop(_stop_worker)
    # Forked workers share the memory of imported modules and need half as much as spawned ones. No thread and no event
    # loop runs yet that a fork could break.
    Sanic.start_method = "fork"
    return_free_memory()
    # A collection writes to each object that it examines, so the workers would get own copies of the memory that they
    # share with this process. It does not examine objects that exist now.
    gc.freeze()
    gc.enable()
    try:
        Sanic.serve(primary=app)
    except (EOFError, ConnectionError, ServerError):
        # Sanic uses a connection to its helper process before it starts the workers, too. It raises a ServerError if
        # the helper has ended before it told its address, and for no other reason.
        end_workers()
        _LOG.error("the helper process, which keeps the workers' states, ended during the start; the service exits")
        raise SystemExit(1) from None
    except BaseException:
        end_workers()
        raise
    finally:
        app.ctx.listening.close()
        if app.ctx.metrics_listening:
            app.ctx.metrics_listening.close()


def _raise_open_file_limit() -> None:
    """Raise the soft limit to the hard limit, also for processes that are forked later. Many systems start services
    with a soft limit of 1,024 because programs that use select(2) need it; this one does not.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == hard:
        return
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError) as error:
        _LOG.warning("cannot raise the limit of open files, which stays at %d: %s", soft, error)


def _connections_within_open_file_limit() -> int:
    """How many connections one process can have with its limit of open files."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return 2**31
    return max(_FEWEST_CONNECTIONS, (soft - _RESERVED_FILES) // _FILES_PER_CONNECTION)


async def _start_worker(app: App, *, connections: set[MirrorProtocol], channel: SettingsChannel) -> None:
    loop = asyncio.get_running_loop()
    limit = _connections_within_open_file_limit()
    if limit < app.ctx.settings.max_connections and app.m.name == _FIRST_WORKER:
        _LOG.warning("MAX_CONNECTIONS: the limit of open files allows only %d connections per worker", limit)

    def limits() -> ConnectionLimits:
        settings: Settings = app.ctx.settings
        connections = min(settings.max_connections, limit)
        return ConnectionLimits(settings.request_timeout, connections, settings.max_waiting_per_address)

    def is_exempt(address: str) -> bool:
        return bool(app.ctx.runtimes.current.addresses.is_trusted(address))

    table = ConnectionTable(limits)
    tls = app.ctx.certificates.listening if app.ctx.certificates else None
    protocol: dict[str, Any] = {"loop": loop, "app": app, "connections": connections}
    app.ctx.acceptors = [
        Acceptor(app.ctx.listening.sockets, table, partial(MirrorProtocol, **protocol), is_exempt=is_exempt, tls=tls)
    ]
    if app.ctx.metrics_listening:
        # A table of its own: clients that use all connections of the service do not hide what the service is doing.
        metrics_table = ConnectionTable(lambda: replace(limits(), connections=_METRICS_CONNECTIONS))
        make = partial(MetricsProtocol, **protocol)
        app.ctx.acceptors.append(
            Acceptor(app.ctx.metrics_listening.sockets, metrics_table, make, is_exempt=is_exempt, tls=tls)
        )
    app.add_task(apply_published_settings(app, channel))
    app.add_task(report_worker_state(app.ctx.runtimes, table.__len__))
    if app.m.name == _FIRST_WORKER:
        # A task, because a slow upstream must not delay the start.
        app.add_task(print_start_line(app))


async def _stop_worker(app: App) -> None:
    """Stop accepting, and make busy connections close after their response. Sanic closes idle connections only once,
    when it begins to stop; without this, it would wait the whole grace period for clients that keep their connections
    open.
    """
    app.ctx.is_stopping = True
    for acceptor in app.ctx.acceptors:
        acceptor.close()
