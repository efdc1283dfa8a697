"""The service around a FakeUpstream, as the tests of its use cases call it."""

import asyncio
import base64
import os
from collections.abc import Coroutine
from typing import Any

from dependency_injector import providers

from application.access.access_request import Caller
from application.blobs.blob_query import BlobQuery, Piece
from application.manifests.manifest_query import ManifestAnswer, ManifestQuery
from application.ports.content import ContentPart
from domain.access import Credentials, Scope, ScopeSet
from domain.authorization import encode_basic, parse_authorization
from domain.digest import Digest
from domain.events import Event
from domain.names import Reference, RepositoryName
from entrypoints.wiring.container import close_container
from entrypoints.wiring.storage import Storage
from tests.fakes.clock import StoppedClock
from tests.fakes.parts import container_of, settings_of
from tests.fakes.steps import InlineSteps
from tests.fakes.storage import MemoryContentStore
from tests.fakes.upstream import FakeUpstream

REALM = "https://mirror.test/v2/auth"
NAME = RepositoryName("public/app")
PRIVATE = RepositoryName("private/app")
LAYER = b"a layer of some bytes" * 20
LAYER_DIGEST = Digest.of(LAYER)
IMAGE_TYPE = "application/vnd.oci.image.manifest.v1+json"
IMAGE_CONTENT = b'{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","layers":[]}'
IMAGE_DIGEST = Digest.of(IMAGE_CONTENT)
ALICE = Credentials("alice", "right")
BOB = Credentials("bob", "right")
EVERYTHING = ScopeSet((Scope.pull(NAME), Scope.pull(PRIVATE), Scope.catalog()))


def stocked(scheme: str) -> FakeUpstream:
    """An upstream with a public and a private repository; alice is its user."""
    upstream = FakeUpstream(scheme, users={"alice": "right"})
    for name in (str(NAME), str(PRIVATE)):
        upstream.put_manifest(name, "1", IMAGE_CONTENT)
        upstream.put_blob(name, LAYER)
    return upstream


def accounts(*known: Credentials) -> str:
    """The value of ACCOUNTS."""
    return ",".join(encode_basic(one) for one in known)


def basic(credentials: Credentials) -> str:
    return f"Basic {encode_basic(credentials)}"


class Service:
    """One container and its callers; `run` leaves no task of the service behind."""

    def __init__(
        self,
        upstream: FakeUpstream,
        clock: StoppedClock | None = None,
        storage: Storage | None = None,
        **settings: object,
    ) -> None:
        self.upstream = upstream
        self.clock = clock or StoppedClock()
        self.parts = container_of(settings_of(**settings), upstream, self.clock, storage)
        self._steps = InlineSteps()
        self.parts.passwords.override(providers.Object(self._steps))

    def run(self, action: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run(self._finish(action))

    async def _finish(self, action: Coroutine[Any, Any, Any]) -> Any:
        try:
            return await action
        finally:
            await close_container(self.parts)
            self._steps.is_closed = False  # another run may follow

    @property
    def events(self) -> list[Event]:
        return self.parts.events().events

    def own_token(self, account: str = "", scopes: ScopeSet = EVERYTHING) -> str:
        return self.parts.issuer().issue(self.parts.policy().account(account), scopes).text

    async def warm_up(self) -> None:
        """Learn the trust row, and forget that the upstream was asked for it."""
        await self.parts.upstream_auth().row(self.parts.upstream())
        self.upstream.pinged.clear()

    async def ping(self, header: str | None = None) -> None:
        await self.parts.answer_ping()(_caller(header), self.parts.upstream())

    async def manifest(
        self, header: str | None = None, name: RepositoryName = NAME, reference: str = "1", **query: Any
    ) -> ManifestAnswer:
        asked = ManifestQuery(name, Reference.parse(reference), **self._resolved(query))
        return await self.parts.pull_manifest()(_caller(header), asked)

    async def blob(
        self, header: str | None = None, name: RepositoryName = NAME, digest: Digest = LAYER_DIGEST, **query: Any
    ) -> bytes:
        """All its bytes."""
        asked = BlobQuery(name, digest, **self._resolved(query))
        async with self.parts.pull_blob().open(_caller(header), asked) as answer:
            return b"".join([bytes_of(piece) async for piece in answer.pieces]) if answer.pieces else b""

    def _resolved(self, query: dict[str, Any]) -> dict[str, Any]:
        """Resolves `hint`, which names a prefix, a namespace or a host, as the routes do."""
        return query | {"hint": self.parts.upstreams().hint_of(**query.get("hint", {}))}

    async def tags(self, header: str | None = None, name: RepositoryName = NAME, query: Any = ()) -> Any:
        return await self.parts.listings().tags(_caller(header), name, query)

    async def catalog(self, header: str | None = None, query: Any = ()) -> Any:
        return await self.parts.listings().repositories(_caller(header), self.parts.upstream(), query)

    async def search(self, header: str | None = None, term: str = "app", limit: int = 25) -> Any:
        return await self.parts.search()(_caller(header), term, limit)


def replace_store(service: Service, store: MemoryContentStore) -> None:
    """From now on the service finds content and leases there."""
    storage = service.parts.storage()
    object.__setattr__(storage, "store", store)
    object.__setattr__(storage, "leases", store)


def bytes_of(piece: Piece) -> bytes:
    """As the client gets them."""
    if isinstance(piece, ContentPart):
        return os.pread(piece.file.descriptor, piece.length, piece.start)
    return bytes(piece)


def _caller(header: str | None) -> Caller:
    return Caller(parse_authorization(header), REALM)


def in_base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()
