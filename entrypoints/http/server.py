"""Starts the worker processes and says so."""

import asyncio
import socket
import ssl
from collections.abc import Iterable
from functools import partial

from sanic import Sanic
from sanic.server.protocols.http_protocol import HttpProtocol

from domain.errors import RegistryError
from domain.upstreams import Upstream
from entrypoints.container import Container, make_counters, open_container
from entrypoints.http.app import App, create_app
from entrypoints.http.certificates import Certificates
from entrypoints.http.logs import configure_logging
from entrypoints.http.protocol import PlainProtocol
from entrypoints.http.reloading import Load, Reloading, take_settings
from entrypoints.http.settings_board import SettingsBoard
from entrypoints.http.supervision import end_workers, supervise
from entrypoints.settings import Settings
from entrypoints.settings_file import SettingsError
from entrypoints.storage import prepare_storage, storage_folder, sweep_storage
from entrypoints.version import NAME, VERSION

_FIRST_WORKER = "Sanic-Server-0-0"
_BACKLOG = 1024


def run(settings: Settings, load: Load) -> None:
    """Serve until a signal ends it. The settings, a random SERVER_SECRET among them, are those of every worker; `load`
    reads them anew on SIGHUP.
    """
    configure_logging(settings)
    prepare_storage(settings)
    sweep_storage(settings)
    app = create_app(settings, open_parts=partial(open_container, counters=make_counters(settings)))
    app.after_server_start(_announce)
    board = SettingsBoard(settings.workers)
    supervise(app, Reloading(app, load, board))
    app.after_server_start(partial(_listen_for_settings, board=board))
    app.prepare(
        sock=_listen(settings),
        workers=settings.workers,
        ssl=_tls(app),
        protocol=HttpProtocol if settings.tls_cert else PlainProtocol,
        motd=False,
        access_log=False,
    )
    # Forked workers share the memory of all that was imported, half of what spawned ones need; nothing has
    # started a thread or a loop by now that a fork could break.
    Sanic.start_method = "fork"
    try:
        Sanic.serve(primary=app)
    except BaseException:
        end_workers()
        raise


def _listen(settings: Settings) -> socket.socket:
    """The socket that all workers accept from. Raises SettingsError where the address cannot be had."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        return socket.create_server((settings.host.strip("[]"), settings.port), family=family, backlog=_BACKLOG)
    except (OSError, ValueError) as error:  # of a name that can be none, Python's codec for names says so
        reason = (getattr(error, "strerror", None) or str(error)).partition(" (")[0]
        message = f"HOST, PORT: got {settings.host!r}, {settings.port}; cannot listen there: {reason}"
        raise SettingsError(message) from error


def _tls(app: App) -> ssl.SSLContext | None:
    if app.ctx.settings.tls_cert is None:
        return None
    certificates = Certificates(app.ctx.settings)
    app.ctx.certificates = certificates
    return certificates.listening


async def _listen_for_settings(app: App, *, board: SettingsBoard) -> None:
    app.add_task(take_settings(app, board))


async def _announce(app: App) -> None:
    """Not waited for: an upstream that is slow to answer is no reason to start late."""
    if app.m.name == _FIRST_WORKER:
        app.add_task(_print_start_line(app))


async def _print_start_line(app: App) -> None:
    """One line, from one of the workers: only there is it known how the upstream wants to be asked."""
    settings: Settings = app.ctx.settings
    scheme = "https" if settings.tls_cert else "http"
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    reachable = "localhost" if host in {"0.0.0.0", "[::]"} else host  # noqa: S104 - compared, not bound
    address = settings.self_registry or f"{scheme}://{reachable}:{settings.port}"
    print(  # noqa: T201 - the one line for the person who started it
        f"{NAME} {VERSION} mirrors {await _upstreams(app)} on {scheme}://{host}:{settings.port}, "
        f"{_cache_mode(settings)}; point docker at it with "
        f'{{"registry-mirrors": ["{address}"]}} in /etc/docker/daemon.json, or pull {address.partition("//")[2]}/NAME',
        flush=True,
    )


def _cache_mode(settings: Settings) -> str:
    folder = storage_folder(settings)
    return f"cache in {folder}" if folder else "without a cache"


async def _upstreams(app: App) -> str:
    parts: Container = app.ctx.generations.current.parts
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
        row, _ = await parts.stances().row(upstream)
    except RegistryError as error:
        return error.message
    return f"trust row {row.number}: {row.meaning}"
