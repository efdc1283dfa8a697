"""The ports to an upstream: its registry, its token server, its search, and the queue of requests to it.

The operator can limit the concurrent requests to an upstream and their rate. The adapter keeps requests above the limit
in a queue. The mirror causes this wait, so it does not count as silence of the upstream. The client may disconnect
while its request is in the queue.
"""

from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol, Self

from domain.access import Credentials, Scope, ScopeSet
from domain.allowance import RateLimit
from domain.byte_ranges import ByteRange, Span
from domain.challenge import Challenge
from domain.digest import Bytes, Digest
from domain.names import Reference
from domain.tokens import IssuedToken
from domain.upstreams import Source, Upstream
from domain.value import Value


@dataclass(frozen=True)
class ForwardedCredentials:
    """The Authorization header of the caller, unchanged; None sends no header. The mirror does not react to a 401 by
    fetching a token.
    """

    raw: str | None = field(default=None, repr=False)


class SessionCredentials(Value, frozen=True):
    """After a challenge, the mirror fetches a token with `login` and sends the request again; without a login, it
    fetches an anonymous token.
    """

    login: Credentials | None = None


UpstreamCredentials = ForwardedCredentials | SessionCredentials


def mirror_credentials(upstream: Upstream) -> UpstreamCredentials:
    """The mirror's own credentials for this upstream; empty if callers use their own login there."""
    return ForwardedCredentials() if upstream.forwards_client_credentials else SessionCredentials(upstream.credentials)


class ResourceKind(Enum):
    MANIFEST = "manifest"
    BLOB = "blob"
    TAGS = "tags"
    CATALOG = "catalog"
    REFERRERS = "referrers"

    @property
    def noun(self) -> str:
        """The word for messages."""
        return {"tags": "tag list", "referrers": "list of referrers"}.get(self.value, self.value)


class Resource(Value, frozen=True):
    """A resource of an upstream. `path`: the part of the path after `/v2/`; `scope`: the usual scope of a token for the
    resource; `digest`: the digest of its content, if the resource is requested by digest.
    """

    kind: ResourceKind
    upstream: Upstream
    path: str
    scope: Scope
    query: tuple[tuple[str, str], ...] = ()
    digest: Digest | None = None

    @property
    def may_be_empty(self) -> bool:
        """Whether content of 0 bytes can be right, because its digest is that of 0 bytes."""
        return self.digest is not None and self.digest.is_of_empty_content

    @classmethod
    def manifest(cls, source: Source, reference: Reference) -> Self:
        path = f"{source.repository}/manifests/{reference}"
        return cls(ResourceKind.MANIFEST, source.upstream, path, source.pull_scope, digest=reference.digest)

    @classmethod
    def blob(cls, source: Source, digest: Digest) -> Self:
        path = f"{source.repository}/blobs/{digest}"
        return cls(ResourceKind.BLOB, source.upstream, path, source.pull_scope, digest=digest)

    @classmethod
    def tags(cls, source: Source, query: tuple[tuple[str, str], ...]) -> Self:
        path = f"{source.repository}/tags/list"
        return cls(ResourceKind.TAGS, source.upstream, path, source.pull_scope, query)

    @classmethod
    def catalog(cls, upstream: Upstream, query: tuple[tuple[str, str], ...]) -> Self:
        return cls(ResourceKind.CATALOG, upstream, "_catalog", Scope.catalog(), query)

    @classmethod
    def referrers(cls, source: Source, digest: Digest, query: tuple[tuple[str, str], ...]) -> Self:
        path = f"{source.repository}/referrers/{digest}"
        return cls(ResourceKind.REFERRERS, source.upstream, path, source.pull_scope, query)


@dataclass(frozen=True)
class RedirectTarget:
    """The address to which `endpoint` of an upstream redirected a request, usually a signed address of its storage. It
    is valid for some time, for the same resource and the same credentials.
    """

    endpoint: Upstream
    url: str = field(repr=False)


@dataclass(frozen=True)
class UpstreamRequest:
    """One request. `accept`: the values of its Accept header lines.

    `is_extra`: one of several requests for different parts of the same content. It is sent only if the request limits
    allow it at once and no other request waits; otherwise `open` raises MirrorBusy. `target`: a redirect target of an
    earlier response for this resource. It is asked first; if it does not answer with the content, for instance because
    it has expired, the upstream is asked.
    """

    resource: Resource
    credentials: UpstreamCredentials
    head: bool = False
    accept: tuple[str, ...] = ()
    byte_range: ByteRange | None = None
    is_extra: bool = False
    target: RedirectTarget | None = None


@dataclass(frozen=True)
class ResponseMetadata:
    """The headers of a response; None for a missing header.

    `size`: the length of this body in bytes. `span` and `whole_size`: from Content-Range, for a partial response only.
    `digest`: what the upstream claims, until the bytes have been hashed. `link`: all Link lines as one list.
    `allowance`: the allowance of the credentials of the request. `etag`: the strong validator of the content (RFC 9110
    section 8.8.1); None for a weak one. `accepts_ranges`: a request for a part would be answered with that part.
    """

    media_type: str | None = None
    size: int | None = None
    digest: Digest | None = None
    span: Span | None = None
    whole_size: int | None = None
    link: str | None = None
    filters_applied: str | None = None
    warnings: tuple[str, ...] = ()
    allowance: RateLimit | None = None
    etag: str | None = None
    accepts_ranges: bool = False


class UpstreamResponse(Protocol):
    """A successful response. The body can be read once. Reading raises UpstreamFault if the body breaks off."""

    @property
    def metadata(self) -> ResponseMetadata: ...

    @property
    def target(self) -> RedirectTarget | None:
        """The redirect target that sent the response; None if the upstream itself sent it."""

    def unread(self) -> int:
        """The bytes that have arrived at this machine and wait in the kernel to be read."""

    def pieces(self) -> AsyncIterator[Bytes]:
        """The body as it arrives. At most a few pieces are buffered."""

    async def read(self, limit: int) -> bytes:
        """The whole body. Raises UpstreamBroken if it is longer than `limit` bytes."""


class PingResponse(Value, frozen=True):
    """A registry's definite answer to GET /v2/: accepted, or the challenges of its 401. `server_time`: the time in its
    Date header, in seconds since 1970.
    """

    accepted: bool
    challenges: tuple[Challenge, ...] = ()
    server_time: float | None = None


class UpstreamRegistry(Protocol):
    """Sends requests to registries."""

    async def ping(
        self, upstream: Upstream, credentials: UpstreamCredentials, *, is_probe: bool = False
    ) -> PingResponse:
        """Send `GET /v2/`. Raises UpstreamFault if the response is not a registry's definite answer, and MirrorFault.

        `is_probe`: the mirror sends it for itself, which is rare, so it does not wait in the queue.
        """

    def open(self, fetch: UpstreamRequest) -> AbstractAsyncContextManager[UpstreamResponse]:
        """Send the request. The end of the context releases the connection.

        Raises UpstreamBroken for a web page, and for a HEAD that reports 0 bytes of content that is not empty;
        UpstreamChallenged for a 401, also if it refuses the token of the session; ContentUnknown, Denied,
        RangeUnsatisfiable, or another UpstreamFault.
        """


class UpstreamRequests(Protocol):
    """The requests to upstreams that this process has sent."""

    def running(self) -> Mapping[str, int]:
        """The number of requests whose response has not ended, by the URL of the upstream."""


@dataclass(frozen=True)
class TokenRequest:
    """A request to the token server that the challenge names.

    `offline`: also request a refresh token; `refresh_token`: sent instead of credentials.
    """

    upstream: Upstream
    challenge: Challenge
    scopes: ScopeSet
    credentials: Credentials | None = None
    refresh_token: str | None = field(default=None, repr=False)
    offline: bool = False
    client_id: str | None = None


class TokenRelay(Protocol):
    """Fetches tokens from the token servers of upstreams."""

    async def fetch(self, request: TokenRequest) -> IssuedToken:
        """The token, with the default lifetime if the token server states none.

        Raises CredentialsRejected for a 401, Denied for a 403, RealmNotTrusted (nothing is sent to a realm that is not
        trusted), or another UpstreamFault.
        """


@dataclass(frozen=True)
class SearchResult:
    """One repository as `docker search` shows it."""

    name: str
    description: str = ""
    star_count: int = 0
    is_official: bool = False


class UpstreamSearch(Protocol):
    """Searches with the v1 search endpoint of a registry."""

    async def search(self, upstream: Upstream, term: str, limit: int) -> tuple[SearchResult, ...]:
        """At most `limit` results. The upstream must have a `search_url`. Raises UpstreamFault."""


class QueueWatch:
    """Watches one piece of work, whose requests may be in the queue. If other work waits for it, the watch of that work
    follows this one.
    """

    def __init__(self, is_wanted: Callable[[], bool] | None = None) -> None:
        """`is_wanted`: returns whether a request still waits for the work. Without it, the work is always wanted: its
        task is cancelled together with its request.
        """
        self._is_wanted = is_wanted
        self._queued = 0
        self._followers: list[QueueWatch] = []

    @property
    def is_wanted(self) -> bool:
        """If this is False, the requests of the work are removed from the queue."""
        return self._is_wanted is None or self._is_wanted()

    @contextmanager
    def queued(self) -> Iterator[None]:
        """The context lasts while one of its requests is in the queue."""
        self.enter()
        try:
            yield
        finally:
            self.leave()

    @contextmanager
    def followed_by(self, other: "QueueWatch") -> Iterator[None]:
        """The context lasts while the other work waits for this one. Requests in the queue count for both."""
        self._followers.append(other)
        if self._queued:
            other.enter()
        try:
            yield
        finally:
            self._followers.remove(other)
            if self._queued:
                other.leave()

    def paused(self) -> None:
        """Called when the first request enters the queue."""

    def resumed(self) -> None:
        """Called when the last request has left the queue."""

    def enter(self) -> None:
        """A request of this work, or of work that it waits for, has entered the queue."""
        self._queued += 1
        if self._queued == 1:
            self.paused()
            for follower in self._followers:
                follower.enter()

    def leave(self) -> None:
        """The request has left the queue."""
        self._queued -= 1
        if not self._queued:
            self.resumed()
            for follower in self._followers:
                follower.leave()


class SharedWork(QueueWatch):
    """Watches work for several requests. It is wanted as long as one of them waits for it."""

    def __init__(self) -> None:
        super().__init__(lambda: any(follower.is_wanted for follower in self._followers))


_current: ContextVar[QueueWatch | None] = ContextVar("queue_watch", default=None)


def current_watch() -> QueueWatch:
    """The watch of the current task; if it has none, a new watch without followers."""
    return _current.get() or QueueWatch()


@contextmanager
def watched_by(watch: QueueWatch) -> Iterator[None]:
    """Within the context, `watch` is the watch of the current task and of the tasks that it starts."""
    token = _current.set(watch)
    try:
        yield
    finally:
        _current.reset(token)
