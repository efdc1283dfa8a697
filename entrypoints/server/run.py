"""Starts the worker processes and says so."""

import asyncio
import logging
import socket
import ssl
from collections.abc import Iterable
from contextlib import suppress
from functools import partial

from sanic import Sanic

from domain.errors import RegistryError
from domain.upstreams import Upstream
from entrypoints.http.app import App, create_app
from entrypoints.http.connection.acceptor import Acceptor
from entrypoints.http.connection.connections import ConnectionTable, Limits
from entrypoints.http.connection.protocol import MirrorProtocol
from entrypoints.server.certificates import Certificates
from entrypoints.server.descriptors import connections_for_descriptors, raise_descriptor_limit
from entrypoints.server.listening import Listening, listen
from entrypoints.server.logs import configure_logging
from entrypoints.server.reload import Load, Reloading, take_settings
from entrypoints.server.shared_settings import SharedSettings
from entrypoints.server.workers import end_workers, supervise
from entrypoints.settings import Settings
from entrypoints.version import NAME, VERSION
from entrypoints.wiring.container import Container, make_counters, open_container
from entrypoints.wiring.storage import prepare_storage, storage_folder, sweep_storage

_LOG = logging.getLogger("docker_image_proxy")
_FIRST_WORKER = "Sanic-Server-0-0"


def run(settings: Settings, load: Load) -> None:
    """Serve until a signal ends it. The settings, a random SERVER_SECRET among them, are those of every worker; `load`
    reads them anew on SIGHUP.
    """
    configure_logging(settings)
    raise_descriptor_limit()
    prepare_storage(settings)
    sweep_storage(settings)
    app = create_app(settings, open_parts=partial(open_container, counters=make_counters(settings)))
    app.after_server_start(_announce)
    board = SharedSettings(settings.workers)
    supervise(app, Reloading(app, load, board))
    app.after_server_start(partial(_listen_for_settings, board=board))
    app.ctx.listening = listen(settings)
    _prepare(app, _tls(app))
    # Forked workers share the memory of all that was imported, half of what spawned ones need; nothing has
    # started a thread or a loop by now that a fork could break.
    Sanic.start_method = "fork"
    try:
        Sanic.serve(primary=app)
    except (EOFError, ConnectionError):
        # Sanic speaks with its helper over a socket, before it starts the workers too.
        end_workers()
        _LOG.error("the helper process, which keeps the workers' states, ended during the start; the service ends")
        raise SystemExit(1) from None
    except BaseException:
        end_workers()
        raise
    finally:
        _stop_listening(app.ctx.listening)


def _prepare(app: App, tls: ssl.SSLContext | None) -> None:
    """Sanic starts and stops the workers; what they accept is up to the Acceptor. Sanic's own server has the first
    socket, but does not begin to serve.
    """
    connections: set[MirrorProtocol] = set()
    app.prepare(sock=app.ctx.listening.sockets[0], workers=app.ctx.settings.workers, motd=False, access_log=False)
    for info in app.state.server_info:
        info.settings["asyncio_server_kwargs"] = {"start_serving": False}
        info.settings["connections"] = connections  # which Sanic closes at the end: each worker's copy has its own
    app.after_server_start(partial(_accept, connections=connections, tls=tls))
    app.before_server_stop(_accept_no_more)


async def _accept(app: App, *, connections: set[MirrorProtocol], tls: ssl.SSLContext | None) -> None:
    loop = asyncio.get_running_loop()
    most = connections_for_descriptors()
    if most < app.ctx.settings.max_connections and app.m.name == _FIRST_WORKER:
        _LOG.warning("MAX_CONNECTIONS: the limit of open files is enough for %d connections per worker", most)

    def limits() -> Limits:
        settings: Settings = app.ctx.settings
        connections = min(settings.max_connections, most)
        return Limits(settings.request_timeout, connections, settings.max_waiting_per_address)

    def is_exempt(address: str) -> bool:
        return bool(app.ctx.part_sets.current.proxies.trusts(address))

    app.ctx.acceptor = Acceptor(
        app.ctx.listening.sockets,
        ConnectionTable(limits),
        partial(MirrorProtocol, loop=loop, app=app, connections=connections),
        is_exempt=is_exempt,
        tls=tls,
    )


async def _accept_no_more(app: App) -> None:
    app.ctx.acceptor.close()


def _stop_listening(listening: Listening) -> None:
    """For the workers too, if any is left: they have the sockets in common."""
    for one in listening.sockets:
        with suppress(OSError):  # closed by then
            one.shutdown(socket.SHUT_RDWR)
    listening.close()


def _tls(app: App) -> ssl.SSLContext | None:
    if app.ctx.settings.tls_cert is None:
        return None
    certificates = Certificates(app.ctx.settings)
    app.ctx.certificates = certificates
    return certificates.listening


async def _listen_for_settings(app: App, *, board: SharedSettings) -> None:
    app.add_task(take_settings(app, board))


async def _announce(app: App) -> None:
    """Not waited for: an upstream that is slow to answer is no reason to start late."""
    if app.m.name == _FIRST_WORKER:
        app.add_task(_print_start_line(app))


async def _print_start_line(app: App) -> None:
    """One line, from one of the workers: only there is it known how the upstream wants to be asked. Nothing where the
    service is stopped before that (the cancellation ends here, because Sanic would write a warning about it).
    """
    with suppress(asyncio.CancelledError):
        print(await _start_line(app), flush=True)  # noqa: T201 - the one line for the person who started it


async def _start_line(app: App) -> str:
    settings: Settings = app.ctx.settings
    scheme = "https" if settings.tls_cert else "http"
    listening: Listening = app.ctx.listening
    reachable = "localhost" if listening.is_everywhere else listening.host
    families = f" ({listening.families})" if listening.families else ""
    address = settings.self_registry or f"{scheme}://{reachable}:{settings.port}"
    return (
        f"{NAME} {VERSION} mirrors {await _upstreams(app)} on {scheme}://{listening.host}:{settings.port}{families}, "
        f"{_cache_mode(settings)}; point docker at it with "
        f'{{"registry-mirrors": ["{address}"]}} in /etc/docker/daemon.json, or pull {address.partition("//")[2]}/NAME'
    )


def _cache_mode(settings: Settings) -> str:
    folder = storage_folder(settings)
    return f"cache in {folder}" if folder else "without a cache"


async def _upstreams(app: App) -> str:
    parts: Container = app.ctx.part_sets.current.parts
    upstreams = parts.upstreams().upstreams
    modes = await asyncio.gather(*(_trust_mode(parts, one) for one in upstreams))
    return by_mode((one.url, mode) for one, mode in zip(upstreams, modes, strict=True))


def by_mode(upstreams: Iterable[tuple[str, str]]) -> str:
    """Each mode once, behind the upstreams that have it."""
    found: dict[str, list[str]] = {}
    for url, mode in upstreams:
        found.setdefault(mode, []).append(url)
    return "; ".join(f"{', '.join(urls)} ({mode})" for mode, urls in found.items())


async def _trust_mode(parts: Container, upstream: Upstream) -> str:
    try:
        row, _ = await parts.upstream_auth().row(upstream)
    except RegistryError as error:
        return error.message
    return f"trust row {row.number}: {row.meaning}"
