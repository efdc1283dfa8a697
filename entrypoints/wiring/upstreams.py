"""Builds the clients of the upstreams from the settings."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from adapters.upstream.clients import ConnectionSettings, UpstreamClients, open_clients
from adapters.upstream.http_sessions import SessionSettings
from adapters.upstream.proxies import ProxyRules
from adapters.upstream.request_limits import RequestLimits
from entrypoints.settings import Settings, UpstreamSettings
from entrypoints.version import NAME, VERSION


@asynccontextmanager
async def open_upstreams(settings: Settings, worker: int) -> AsyncIterator[UpstreamClients]:
    """The clients of all upstreams for one worker. Each worker gets a share of the configured limits, so that all
    workers together keep them.
    """
    proxies = ProxyRules(settings.http_proxy, settings.https_proxy, settings.no_proxy)
    pairs = zip(settings.table.upstreams, settings.upstreams, strict=True)
    connections = {upstream: _connection_settings(one, worker, settings.workers) for upstream, one in pairs}
    async with open_clients(connections, proxies, f"{NAME}/{VERSION}") as clients:
        yield clients


def _connection_settings(one: UpstreamSettings, worker: int, workers: int) -> ConnectionSettings:
    certificate = (one.client_cert, one.client_key) if one.client_cert and one.client_key else None
    session = SessionSettings(one.timeout, one.ca, certificate, one.proxy)
    return ConnectionSettings(session, RequestLimits(one.max_connections, one.max_rate).share(worker, workers))
