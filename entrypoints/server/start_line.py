"""The start line: one line on standard output that tells the operator what is mirrored, where, and how to use it."""

import asyncio
from collections.abc import Iterable
from contextlib import suppress

from application.ports.shared import SharedService, SharedUnavailable
from domain.errors import RegistryError
from domain.upstreams import Upstream
from entrypoints.http.app import App
from entrypoints.server.listening_sockets import ListeningSockets
from entrypoints.settings import Settings
from entrypoints.version import NAME, VERSION
from entrypoints.wiring.container import Container
from entrypoints.wiring.storage import storage_folder


async def print_start_line(app: App) -> None:
    """Print the line from a worker, because only workers ask the upstreams how they authenticate. Prints nothing if the
    service is stopped before the answer. Ends normally then, because Sanic logs a warning for a cancelled task.
    """
    with suppress(asyncio.CancelledError):
        print(await _start_line(app), flush=True)  # noqa: T201 - the one line for the person who starts the service


async def _start_line(app: App) -> str:
    settings: Settings = app.ctx.settings
    container: Container = app.ctx.runtimes.current.container
    upstreams = container.upstreams().upstreams
    modes = await asyncio.gather(*(_trust_mode(container, one) for one in upstreams))
    mirrored = by_mode((one.url, mode) for one, mode in zip(upstreams, modes, strict=True))
    scheme = "https" if settings.tls_cert else "http"
    listening: ListeningSockets = app.ctx.listening
    reachable = "localhost" if listening.is_on_all_addresses else listening.host
    families = f" ({listening.families})" if listening.families else ""
    address = settings.self_registry or f"{scheme}://{reachable}:{settings.port}"
    folder = storage_folder(settings)
    shared = await asyncio.gather(*map(_state, container.shared_services()))
    return (
        f"{NAME} {VERSION} mirrors {mirrored} on {scheme}://{listening.host}:{settings.port}{families}, "
        f"{f'cache in {folder}' if folder else 'without a cache'}"
        f"{', shared in ' if shared else ''}{' and '.join(shared)}; point docker at it with "
        f'{{"registry-mirrors": ["{address}"]}} in /etc/docker/daemon.json, or pull {address.partition("//")[2]}/NAME'
    )


def by_mode(upstreams: Iterable[tuple[str, str]]) -> str:
    """Each mode once, behind the upstreams that have it."""
    found: dict[str, list[str]] = {}
    for url, mode in upstreams:
        found.setdefault(mode, []).append(url)
    return "; ".join(f"{', '.join(urls)} ({mode})" for mode, urls in found.items())


async def _state(service: SharedService) -> str:
    """The address of the service, and why it cannot be used."""
    try:
        await service.check()
    except SharedUnavailable as error:
        return f"{service.address} (not available: {error})"
    return service.address


async def _trust_mode(container: Container, upstream: Upstream) -> str:
    try:
        row, _ = await container.upstream_auth().row(upstream)
    except RegistryError as error:
        return error.message
    return f"trust row {row.number}: {row.meaning}"
