"""An upstream with two endpoints, each a WireServer."""

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

from application.ports.upstream import ForwardedCredentials, UpstreamCredentials, UpstreamRequest
from domain.errors import UpstreamBroken, UpstreamTimedOut
from domain.upstreams import Upstream
from entrypoints.settings.values import origin_of_address
from tests.adapters.upstream.line import CONTENT, Parts, parts, resources, upstream_at
from tests.adapters.upstream.wire import Heard, Say, Script, WireServer, whole

MIB = 1024 * 1024
LARGE = random.Random(3).randbytes(4 * MIB)  # noqa: S311 - content, not a secret
TRIAL = 0.3  # seconds


def gives(heard: Heard) -> Say:
    return whole(heard, CONTENT)


@dataclass
class Pair:
    """Two servers, and the adapters whose upstream they are."""

    first: WireServer
    second: WireServer
    parts: Parts
    upstream: Upstream

    async def fetch(self, credentials: UpstreamCredentials | None = None, **fetch: Any) -> bytes:
        asked = UpstreamRequest(resources(self.upstream)["blob"], credentials or ForwardedCredentials(), **fetch)
        async with self.parts.registry.open(asked) as answer:
            return b"" if asked.head else await answer.read(8 * MIB)

    async def begin(self) -> bytes:
        """The bytes of a blob until the connection fails."""
        got = bytearray()
        with suppress(UpstreamBroken, UpstreamTimedOut):
            async with self.parts.registry.open(
                UpstreamRequest(resources(self.upstream)["blob"], ForwardedCredentials())
            ) as answer:
                async for piece in answer.pieces():
                    got += piece
        return bytes(got)

    @property
    def request_counts(self) -> tuple[int, int]:
        """The number of requests at each server."""
        return len(self.first.heard), len(self.second.heard)

    @property
    def endpoint_events(self) -> list[tuple[str, str]]:
        return [(type(event).__name__, event.endpoint) for event in self.parts.events.events]


def also_at(upstream: Upstream, *urls: str) -> Upstream:
    return replace(upstream, fallbacks=tuple((url, origin_of_address(url)) for url in urls))


@asynccontextmanager
async def pair(first: Script, second: Script = gives, read_timeout: float = 5, **options: Any) -> AsyncIterator[Pair]:
    servers = WireServer(first), WireServer(second)
    async with servers[0], servers[1], parts(read_timeout, trial_after=TRIAL, **options) as adapters:
        yield Pair(*servers, adapters, also_at(upstream_at(servers[0].url), servers[1].url))
