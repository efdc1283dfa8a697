"""Several registries in memory, by address."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from application.ports.upstream import (
    PingResponse,
    SearchResult,
    TokenRequest,
    UpstreamCredentials,
    UpstreamRequest,
    UpstreamResponse,
)
from domain.tokens import IssuedToken
from domain.upstreams import Upstream
from tests.fakes.upstream import FakeUpstream


@dataclass
class FakeUpstreams:
    """Implements UpstreamRegistry, TokenRelay and UpstreamSearch for several fake upstreams."""

    by_url: dict[str, FakeUpstream]

    async def ping(self, upstream: Upstream, right: UpstreamCredentials, *, is_probe: bool = False) -> PingResponse:
        return await self.by_url[upstream.url].ping(upstream, right)

    @asynccontextmanager
    async def open(self, fetch: UpstreamRequest) -> AsyncIterator[UpstreamResponse]:
        async with self.by_url[fetch.resource.upstream.url].open(fetch) as answer:
            yield answer

    async def fetch(self, request: TokenRequest) -> IssuedToken:
        return await self.by_url[request.upstream.url].fetch(request)

    async def search(self, upstream: Upstream, term: str, limit: int) -> tuple[SearchResult, ...]:
        return await self.by_url[upstream.url].search(upstream, term, limit)
