"""The HTTP client of each upstream."""

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from adapters.upstream.addresses import ConfiguredOrigins
from adapters.upstream.client import HttpClient
from adapters.upstream.http_sessions import Sessions, SessionSettings, open_sessions
from adapters.upstream.proxies import ProxyRules
from adapters.upstream.request_limits import RequestLimiter, RequestLimits
from domain.upstreams import Upstream


@dataclass(frozen=True)
class ConnectionSettings:
    """How the mirror connects to one upstream: the session settings, and the limits of requests."""

    session: SessionSettings
    bounds: RequestLimits


class UpstreamClients:
    """Finds the client of an upstream by any of the upstream's URLs."""

    def __init__(self, clients: Mapping[Upstream, HttpClient]) -> None:
        found = {endpoint: client for upstream, client in clients.items() for endpoint in upstream.endpoints}
        # An upstream that is also a fallback of another upstream keeps its own client.
        self._clients = found | dict(clients)

    def of(self, upstream: Upstream) -> HttpClient:
        return self._clients[upstream]


@asynccontextmanager
async def open_clients(
    connections: Mapping[Upstream, ConnectionSettings], proxies: ProxyRules, agent: str
) -> AsyncIterator[UpstreamClients]:
    """A client for each of these upstreams, open until the context ends. Needs a running event loop.

    Upstreams with equal session settings share a session and its connections. Each upstream has its own limits.
    `agent`: the User-Agent header.
    """
    opened: dict[SessionSettings, Sessions] = {}
    async with AsyncExitStack() as stack:
        for connection in connections.values():
            if connection.session not in opened:
                opened[connection.session] = open_sessions(connection.session, proxies)
                stack.push_async_callback(opened[connection.session].close)
        yield UpstreamClients(
            {
                upstream: HttpClient(
                    opened[connection.session],
                    RequestLimiter(connection.bounds),
                    agent,
                    _configured(upstream, connections),
                )
                for upstream, connection in connections.items()
            }
        )


def _configured(upstream: Upstream, connections: Mapping[Upstream, ConnectionSettings]) -> ConfiguredOrigins:
    """The origins of this upstream, and of the upstreams that have it as a fallback and so use its client."""
    return ConfiguredOrigins.of(*(one for one in connections if upstream in one.endpoints))
