"""Each upstream's own client."""

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
    """How one upstream is gone to."""

    session: SessionSettings
    bounds: RequestLimits


class UpstreamClients:
    """Finds the client that speaks to an upstream, by any of its addresses."""

    def __init__(self, clients: Mapping[Upstream, HttpClient]) -> None:
        found = {endpoint: client for upstream, client in clients.items() for endpoint in upstream.endpoints}
        # What is an upstream of its own is asked as such, even where it is another one's fallback too.
        self._clients = found | dict(clients)

    def of(self, upstream: Upstream) -> HttpClient:
        return self._clients[upstream]


@asynccontextmanager
async def open_clients(
    connections: Mapping[Upstream, ConnectionSettings], proxies: ProxyRules, agent: str
) -> AsyncIterator[UpstreamClients]:
    """A client for each of these upstreams, until the context is left. Needs a running event loop.

    Equal settings share one session and its connections; bounds are each upstream's own. `agent` is our User-Agent.
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
    """Also what was named for those upstreams that it is a fallback of: its client speaks for them too."""
    return ConfiguredOrigins.of(*(one for one in connections if upstream in one.endpoints))
