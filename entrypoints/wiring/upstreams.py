"""How we go upstream, by the settings. Beside storage.py, what the container has put together elsewhere."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from adapters.upstream.clients import UpstreamClients, Way, open_clients
from adapters.upstream.http_sessions import SessionSettings
from adapters.upstream.proxies import ProxyRules
from adapters.upstream.request_limits import RequestLimits
from entrypoints.settings import Settings, UpstreamSettings
from entrypoints.version import NAME, VERSION


@asynccontextmanager
async def open_upstreams(settings: Settings, row: int) -> AsyncIterator[UpstreamClients]:
    """What speaks to the upstreams, for this one of the workers."""
    proxies = ProxyRules(settings.http_proxy, settings.https_proxy, settings.no_proxy)
    pairs = zip(settings.table.upstreams, settings.upstreams, strict=True)
    ways = {upstream: _way(one, row, settings.workers) for upstream, one in pairs}
    async with open_clients(ways, proxies, f"{NAME}/{VERSION}") as clients:
        yield clients


def _way(one: UpstreamSettings, row: int, workers: int) -> Way:
    certificate = (one.client_cert, one.client_key) if one.client_cert and one.client_key else None
    session = SessionSettings(one.timeout, one.ca, certificate, one.proxy)
    return Way(session, RequestLimits(one.max_connections, one.max_rate).share(row, workers))
