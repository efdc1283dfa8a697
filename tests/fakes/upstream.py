"""A registry in memory, with its token server and its search."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

from application.ports.upstream import (
    ForwardedCredentials,
    PingResponse,
    RedirectTarget,
    ResourceKind,
    ResponseMetadata,
    SearchResult,
    SessionCredentials,
    TokenRequest,
    UpstreamCredentials,
    UpstreamRequest,
    UpstreamResponse,
)
from domain.access import Credentials
from domain.authorization import Basic, Bearer, encode_basic, parse_authorization
from domain.challenge import Challenge
from domain.digest import Digest
from domain.errors import (
    BlobUnknown,
    CredentialsRejected,
    ManifestUnknown,
    MirrorBusy,
    NameUnknown,
    RegistryError,
    UpstreamBroken,
    UpstreamChallenged,
)
from domain.tokens import IssuedToken
from domain.upstreams import Upstream

IMAGE = "application/vnd.oci.image.manifest.v1+json"


async def _at_once(_: int) -> None:
    """Does not wait."""


@dataclass
class FakeAnswer:
    """Implements UpstreamResponse: `content` in pieces of `piece` bytes. The body breaks off at `cut_after` bytes.
    `pace` is awaited before each piece, with the length of the piece in bytes.
    """

    metadata: ResponseMetadata
    content: bytes
    piece: int = 64 * 1024
    cut_after: int | None = None
    target: RedirectTarget | None = field(default=None, kw_only=True)
    pace: Callable[[int], Awaitable[None]] = field(default=_at_once, kw_only=True)

    def unread(self) -> int:
        return 0

    async def pieces(self) -> AsyncIterator[bytes]:
        for start in range(0, len(self.content), self.piece):
            if self.cut_after is not None and start >= self.cut_after:
                raise UpstreamBroken("the upstream closed the connection too early")
            await self.pace(len(self.content[start : start + self.piece]))
            yield self.content[start : start + self.piece]

    async def read(self, limit: int) -> bytes:
        if len(self.content) > limit:
            raise UpstreamBroken("too long")
        return b"".join([piece async for piece in self.pieces()])


@dataclass
class FakeUpstream:
    """Implements UpstreamRegistry, UpstreamRequests, TokenRelay and UpstreamSearch.

    `scheme` is "none", "bearer" or "basic". `users` (a name and its password) and `logins` may read everything; an
    anonymous caller only repositories in `public`. While `fault` is set, every request to the registry, the token
    server or the search raises it. `refusal` is raised only by the token server.
    `accepts_ranges`: whether a request for a part of a blob is answered with that part, or with the whole blob.
    `storage`: the address of a storage; if set, the registry redirects each request for a blob to a new signed address
    there. `signed`: the addresses that are valid; a test that clears it lets them expire. `signatures`: the
    number of addresses that were signed. `connections`: while that
    many responses are open, an extra request raises MirrorBusy. `open_count`: the open responses; `most_open`: their
    largest number at one time.
    `alter` changes an answer before it is returned. `asked` records every fetch, `redirected` those that the registry
    answered by a redirect, `relayed` every token request, `searched` every search.
    """

    scheme: str = "none"
    service: str = "upstream.test"
    users: dict[str, str] = field(default_factory=dict)
    logins: set[Credentials] = field(default_factory=set)
    public: set[str] = field(default_factory=lambda: {"public/app"})
    manifests: dict[tuple[str, str], tuple[str, bytes]] = field(default_factory=dict)
    blobs: dict[tuple[str, str], bytes] = field(default_factory=dict)
    tags: dict[str, list[str]] = field(default_factory=dict)
    results: tuple[SearchResult, ...] = ()
    fault: RegistryError | None = None
    refusal: RegistryError | None = None
    accepts_ranges: bool = True
    storage: str | None = None
    signed: set[str] = field(default_factory=set)
    signatures: int = 0
    connections: int | None = None
    open_count: int = 0
    most_open: int = 0
    alter: Callable[[FakeAnswer], FakeAnswer] = lambda answer: answer
    refresh_token: str | None = None
    asked: list[UpstreamRequest] = field(default_factory=list)
    redirected: list[UpstreamRequest] = field(default_factory=list)
    pinged: list[UpstreamCredentials] = field(default_factory=list)
    relayed: list[TokenRequest] = field(default_factory=list)
    searched: list[tuple[str, str, int]] = field(default_factory=list)

    def put_manifest(self, name: str, tag: str, content: bytes, media_type: str = IMAGE) -> Digest:
        digest = Digest.of(content)
        self.manifests[name, tag] = self.manifests[name, str(digest)] = (media_type, content)
        self.tags.setdefault(name, []).append(tag)
        return digest

    def put_blob(self, name: str, content: bytes) -> Digest:
        digest = Digest.of(content)
        self.blobs[name, str(digest)] = content
        return digest

    # --- the registry ---

    async def ping(self, upstream: Upstream, right: UpstreamCredentials, *, is_probe: bool = False) -> PingResponse:
        self.pinged.append(right)
        self._fail()
        if self.scheme == "none" or self._caller(right) is not None:
            return PingResponse(accepted=True)
        return PingResponse(accepted=False, challenges=(self.challenge(),))

    @asynccontextmanager
    async def open(self, fetch: UpstreamRequest) -> AsyncIterator[UpstreamResponse]:
        self.asked.append(fetch)
        if fetch.is_extra and self.connections is not None and self.open_count >= self.connections:
            raise MirrorBusy("all connections to the upstream are in use", retry_after=1)
        target = self._target(fetch)
        answer = self.alter(self._answer(fetch))
        answer.target = target
        self.open_count += 1
        self.most_open = max(self.most_open, self.open_count)
        try:
            yield answer
        finally:
            self.open_count -= 1

    def sign(self, path: str) -> str:
        """A new signed address of the storage."""
        self.signatures += 1
        address = f"{self.storage}/{path}?signature={self.signatures}"
        self.signed.add(address)
        return address

    def _target(self, fetch: UpstreamRequest) -> RedirectTarget | None:
        """The redirect target that answers the request; None if the registry itself answers it."""
        if fetch.target and fetch.target.url in self.signed:
            return fetch.target
        self._fail()
        self._authorize(fetch)
        if self.storage is None or fetch.resource.kind is not ResourceKind.BLOB or fetch.head:
            return None
        self.redirected.append(fetch)
        return RedirectTarget(fetch.resource.upstream, self.sign(fetch.resource.path.rsplit("/", 1)[-1]))

    # --- the token server ---

    async def fetch(self, request: TokenRequest) -> IssuedToken:
        self.relayed.append(request)
        self._fail()
        if self.refusal:
            raise self.refusal
        name = self._login(request.credentials)
        if request.refresh_token is not None and request.refresh_token != self.refresh_token:
            raise CredentialsRejected("unknown refresh token")
        text = f"upstream-token-of-{name}="
        return IssuedToken(text, 300, 1_800_000_000, request.scopes, self.refresh_token if request.offline else None)

    def running(self) -> dict[str, int]:
        return {"https://upstream.test": self.open_count}

    # --- the search ---

    async def search(self, upstream: Upstream, term: str, limit: int) -> tuple[SearchResult, ...]:
        self.searched.append((upstream.search_url or "", term, limit))
        self._fail()
        return tuple(one for one in self.results if term in one.name)[:limit]

    def challenge(self, scope: str | None = None, error: str | None = None) -> Challenge:
        if self.scheme == "basic":
            return Challenge.of("Basic", realm="Upstream Registry")
        realm = "https://auth.upstream.test/token"
        return Challenge.of("Bearer", realm=realm, service=self.service, scope=scope, error=error)

    def _fail(self) -> None:
        if self.fault:
            raise self.fault

    def _login(self, credentials: Credentials | None) -> str:
        if credentials is None:
            return ""
        if not self._knows(credentials):
            raise CredentialsRejected("the upstream rejected the credentials: wrong user name or password")
        return credentials.username

    def _knows(self, credentials: Credentials) -> bool:
        return self.users.get(credentials.username) == credentials.password or credentials in self.logins

    def _caller(self, right: UpstreamCredentials) -> str | None:
        """The user name, "" for an anonymous caller, None for invalid credentials."""
        if isinstance(right, SessionCredentials) and self.scheme == "bearer":
            return self._login(right.login)
        raw = (
            right.raw
            if isinstance(right, ForwardedCredentials)
            else right.login and f"Basic {encode_basic(right.login)}"
        )
        match parse_authorization(raw):
            case Bearer(token) if self.scheme == "bearer" and token.startswith("upstream-token-of-"):
                return token.removeprefix("upstream-token-of-").rstrip("=")
            case Basic(credentials) if self.scheme == "basic":
                return credentials.username if self._knows(credentials) else None
        return None

    def _authorize(self, fetch: UpstreamRequest) -> None:
        if self.scheme == "none":
            return
        caller = self._caller(fetch.credentials)
        name = fetch.resource.scope.name
        if caller or (caller == "" and (name in self.public or name == "catalog")):
            return
        error = None if fetch.credentials == ForwardedCredentials() else "insufficient_scope"
        challenge = self.challenge(str(fetch.resource.scope), error)
        raise UpstreamChallenged("authentication required", challenges=(challenge,))

    def _answer(self, fetch: UpstreamRequest) -> FakeAnswer:
        name = fetch.resource.scope.name
        last = fetch.resource.path.rsplit("/", 1)[-1]
        match fetch.resource.kind:
            case ResourceKind.MANIFEST:
                return self._manifest(name, last)
            case ResourceKind.BLOB:
                return self._blob(name, last, fetch)
            case ResourceKind.TAGS:
                return self._listing({"name": name, "tags": self._tags(name)})
            case ResourceKind.CATALOG:
                return self._listing({"repositories": sorted(self.tags)})
        return self._listing({"schemaVersion": 2, "manifests": []})

    def _manifest(self, name: str, reference: str) -> FakeAnswer:
        if (name, reference) not in self.manifests:
            raise ManifestUnknown("manifest unknown")
        media_type, content = self.manifests[name, reference]
        stated = Digest.of(content)
        metadata = ResponseMetadata(media_type, len(content), stated, etag=f'"{stated}"')
        return FakeAnswer(metadata, content)

    def _blob(self, name: str, digest: str, fetch: UpstreamRequest) -> FakeAnswer:
        if (name, digest) not in self.blobs:
            raise BlobUnknown("blob unknown")
        content = self.blobs[name, digest]
        metadata = ResponseMetadata(
            "application/octet-stream",
            len(content),
            Digest.parse(digest),
            etag=f'"{digest}"',
            accepts_ranges=self.accepts_ranges,
        )
        if fetch.byte_range is None or not self.accepts_ranges:
            return FakeAnswer(metadata, content)
        span = fetch.byte_range.of(len(content))
        partial = replace(metadata, size=span.length, span=span, whole_size=len(content))
        return FakeAnswer(partial, content[span.start : span.stop])

    def _tags(self, name: str) -> list[str]:
        if name not in self.tags:
            raise NameUnknown("repository name not known to registry")
        return self.tags[name]

    def _listing(self, document: dict[str, object]) -> FakeAnswer:
        content = json.dumps(document).encode()
        return FakeAnswer(ResponseMetadata("application/json", len(content)), content)
