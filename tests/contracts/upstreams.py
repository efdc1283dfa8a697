"""The implementations of the upstream ports for the contracts, all with the same content."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from adapters.upstream.request_limits import RequestLimits
from application.ports.upstream import TokenRelay, UpstreamRegistry
from domain.access import Credentials
from domain.challenge import Challenge
from domain.digest import Digest
from domain.names import RepositoryName
from domain.upstreams import Source, Upstream
from tests.adapters.upstream.line import line, upstream_at
from tests.adapters.upstream.wire import WireServer
from tests.contracts.honest_registry import HonestRegistry
from tests.fakes.upstream import FakeUpstream

PLAYERS = ["fake", "http"]
PUBLIC = RepositoryName("public/app")
PRIVATE = RepositoryName("private/app")
MANIFEST = b'{"schemaVersion":2,"layers":[]}'
BLOB = b"some bytes of a layer"
BLOB_DIGEST = Digest.of(BLOB)
ALICE = Credentials("alice", "right")


@dataclass(frozen=True)
class Player:
    """One implementation, with the address of its upstream and the challenge for its tokens."""

    registry: UpstreamRegistry
    relay: TokenRelay
    upstream: Upstream
    challenge: Challenge
    content: FakeUpstream

    def source(self, name: RepositoryName = PUBLIC) -> Source:
        return Source(self.upstream, name)


@asynccontextmanager
async def playing(
    player: str, scheme: str = "none", *, has_storage: bool = False, connections: int | None = None
) -> AsyncIterator[Player]:
    """The implementation "fake" or "http", with an upstream that uses this authentication scheme. `has_storage`: the
    upstream redirects requests for blobs to a storage. `connections`: the most concurrent requests.
    """
    content = FakeUpstream(scheme, users={"alice": "right"}, refresh_token="refresh", connections=connections)
    for name in (str(PUBLIC), str(PRIVATE)):
        content.put_manifest(name, "1", MANIFEST)
        content.put_blob(name, BLOB)
    if player == "fake":
        challenge = Challenge.of("Bearer", realm="https://auth.upstream.test/token", service="upstream.test")
        content.storage = "https://storage.test" if has_storage else None
        yield Player(content, content, upstream_at("https://upstream.test"), challenge, content)
        return
    registry = HonestRegistry(content)
    async with WireServer(registry.stored) as storage, line(registry, limits=RequestLimits(connections)) as link:
        content.storage = storage.url if has_storage else None
        registry.url = link.server.url
        challenge = Challenge.of("Bearer", realm=f"{link.server.url}/token", service="honest")
        yield Player(link.parts.registry, link.parts.relay, link.upstream, challenge, content)
