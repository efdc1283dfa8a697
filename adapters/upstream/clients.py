"""Each upstream's own client."""

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from adapters.upstream.addresses import ConfiguredOrigins
from adapters.upstream.client import HttpClient
from adapters.upstream.http_sessions import Sessions, SessionSettings, open_sessions
from adapters.upstream.proxies import ProxyRules
from adapters.upstream.request_limits import Gate, RequestLimits
from domain.upstreams import Upstream


@dataclass(frozen=True)
class Way:
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
async def open_clients(ways: Mapping[Upstream, Way], proxies: ProxyRules, agent: str) -> AsyncIterator[UpstreamClients]:
    """A client for each of these upstreams, until the context is left. Needs a running event loop.

    Equal settings share one session and its connections; bounds are each upstream's own. `agent` is our User-Agent.
    """
    opened: dict[SessionSettings, Sessions] = {}
    async with AsyncExitStack() as stack:
        for way in ways.values():
            if way.session not in opened:
                opened[way.session] = open_sessions(way.session, proxies)
                stack.push_async_callback(opened[way.session].close)
        yield UpstreamClients(
            {
                upstream: HttpClient(opened[way.session], Gate(way.bounds), agent, _configured(upstream, ways))
                for upstream, way in ways.items()
            }
        )


def _configured(upstream: Upstream, ways: Mapping[Upstream, Way]) -> ConfiguredOrigins:
    """Also what was named for those upstreams that it is a fallback of: its client speaks for them too."""
    return ConfiguredOrigins.of(*(one for one in ways if upstream in one.endpoints))
