"""The adapter, wired as in production, and a WireServer as its upstream."""

import asyncio
import functools
import os
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import pytest

from adapters.public_suffixes import BundledPublicSuffixes
from adapters.upstream.addresses import ConfiguredOrigins
from adapters.upstream.client import HttpClient, UpstreamClients
from adapters.upstream.connections import ProxyRules, Sessions, SessionSettings
from adapters.upstream.failover import Failover
from adapters.upstream.registry import HttpUpstreamRegistry
from adapters.upstream.request_limits import RequestLimiter, RequestLimits
from adapters.upstream.search import HttpUpstreamSearch
from adapters.upstream.token_client import HttpTokenRelay
from adapters.upstream.upstream_logins import UpstreamLogins
from application.ports.upstream import (
    ForwardedCredentials,
    PingResponse,
    Resource,
    ResponseMetadata,
    UpstreamCredentials,
    UpstreamRequest,
)
from domain.digest import Digest
from domain.names import Reference, RepositoryName
from domain.realm_policy import RealmPolicy
from domain.upstreams import Origin, Source, Upstream
from entrypoints.settings.values import origin_of_address
from tests.adapters.upstream.wire import Script, WireServer
from tests.fakes.clock import StoppedClock
from tests.fakes.events import RecordingEventSink

NAME = RepositoryName("some/app")
CONTENT = b"some bytes of a blob"
DIGEST = Digest.of(CONTENT)
_SUFFIXES = functools.cache(BundledPublicSuffixes)


def upstream_at(url: str) -> Upstream:
    return Upstream.at(url, origin_of_address(url))


def resources(upstream: Upstream) -> dict[str, Resource]:
    source = Source(upstream, NAME)
    return {
        "manifest": Resource.manifest(source, Reference.parse("1")),
        "blob": Resource.blob(source, DIGEST),
        "tags": Resource.tags(source, (("n", "5"),)),
        "catalog": Resource.catalog(upstream, ()),
        "referrers": Resource.referrers(source, DIGEST, ()),
    }


@dataclass
class Parts:
    """The adapters of one upstream, the events that they emitted, and those of the HTTP client for the metrics."""

    clients: UpstreamClients
    relay: HttpTokenRelay
    registry: HttpUpstreamRegistry
    search: HttpUpstreamSearch
    clock: StoppedClock
    events: RecordingEventSink
    measured: RecordingEventSink


class AnyUpstream(dict[Upstream, HttpClient]):
    """Creates the client when the upstream is known: most tests know its address only when it listens."""

    def __init__(self, client: Callable[[Upstream], HttpClient]) -> None:
        super().__init__()
        self.client = client

    def __missing__(self, upstream: Upstream) -> HttpClient:
        return self.client(upstream)


@contextmanager
def no_authorities() -> Iterator[None]:
    """Without the certificate authorities of this machine: the tests do not need them, and reading them is slow."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("SSL_CERT_FILE", os.devnull)
        environment.setenv("SSL_CERT_DIR", os.devnull)
        yield


@asynccontextmanager
async def parts(
    read_timeout: float = 5,
    proxies: ProxyRules | None = None,
    limits: RequestLimits | None = None,
    trial_after: float = 10,
    **session: Any,
) -> AsyncIterator[Parts]:
    """`session`: further SessionSettings."""
    clock, events, limiter = StoppedClock(), RecordingEventSink(), RequestLimiter(limits or RequestLimits())
    measured = RecordingEventSink()
    async with AsyncExitStack() as stack:
        with no_authorities():
            sessions = Sessions(SessionSettings(read_timeout, **session), proxies or ProxyRules())
        stack.push_async_callback(sessions.close)

        def client_of(upstream: Upstream) -> HttpClient:
            return HttpClient(sessions, limiter, "test-agent/1", ConfiguredOrigins.of(upstream), measured, upstream.url)

        clients = AnyUpstream(client_of)
        relay = HttpTokenRelay(clients, RealmPolicy(_SUFFIXES()), clock)
        failover = Failover(events, trial_after)
        registry = HttpUpstreamRegistry(clients, UpstreamLogins(relay, clock), failover)
        yield Parts(clients, relay, registry, HttpUpstreamSearch(clients), clock, events, measured)
    await asyncio.sleep(0)


@dataclass
class Line:
    """A server, and the adapter whose upstream it is."""

    server: WireServer
    parts: Parts
    upstream: Upstream

    async def fetch(
        self, kind: str = "blob", credentials: UpstreamCredentials | None = None, **fetch: Any
    ) -> tuple[ResponseMetadata, bytes]:
        """The metadata of the response, and its body."""
        asked = UpstreamRequest(resources(self.upstream)[kind], credentials or ForwardedCredentials(), **fetch)
        async with self.parts.registry.open(asked) as answer:
            return answer.metadata, b"" if asked.head else await answer.read(8 * 1024 * 1024)

    async def ping(self, credentials: UpstreamCredentials | None = None) -> PingResponse:
        return await self.parts.registry.ping(self.upstream, credentials or ForwardedCredentials())

    @property
    def requests(self) -> list[tuple[str, str]]:
        """Method and target of every request."""
        return [(heard.method, heard.target) for heard in self.server.heard]


@asynccontextmanager
async def line(
    script: Script | None = None, path: str = "", realms: frozenset[str] = frozenset(), **options: Any
) -> AsyncIterator[Line]:
    """`path`: the path of the upstream's URL."""
    server = WireServer(script) if script else WireServer()
    async with server, parts(**options) as adapters:
        upstream = Upstream.at(f"{server.url}{path}", Origin("http", "127.0.0.1", server.port))
        upstream = replace(upstream, realms=realms)
        yield Line(server, adapters, upstream)


def in_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run an asynchronous test in its own event loop."""

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        asyncio.run(test(*args, **kwargs))

    return run
