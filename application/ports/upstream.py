"""The ports to an upstream: its registry, its token server and its search, and how waiting in its queue is reported.

An upstream may have bounds (requests under way, requests a second). A request that exceeds them waits in a queue of
the adapter. The time in the queue is the mirror's own and does not count as silence of the upstream. A client that
waits may leave meanwhile.
"""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol, Self

from domain.access import Credentials, Scope, ScopeSet
from domain.allowance import RateLimit
from domain.challenge import Challenge
from domain.content import ByteRange, Span
from domain.digest import Bytes, Digest
from domain.names import Reference
from domain.tokens import IssuedToken
from domain.upstreams import Source, Upstream


@dataclass(frozen=True)
class ForwardedCredentials:
    """The caller's own Authorization header, exactly as it came; None sends none. A 401 is the answer."""

    raw: str | None = field(default=None, repr=False)


@dataclass(frozen=True)
class SessionCredentials:
    """The mirror answers the upstream's challenge with a token that it fetches for `login`; without one, with an
    anonymous token.
    """

    login: Credentials | None = None


UpstreamCredentials = ForwardedCredentials | SessionCredentials


def mirror_credentials(upstream: Upstream) -> UpstreamCredentials:
    """The mirror's own credentials for this upstream; it has none where callers use their own login."""
    return ForwardedCredentials() if upstream.forwards_client_credentials else SessionCredentials(upstream.credentials)


class ResourceKind(Enum):
    MANIFEST = "manifest"
    BLOB = "blob"
    TAGS = "tags"
    CATALOG = "catalog"
    REFERRERS = "referrers"

    @property
    def noun(self) -> str:
        """As messages call it."""
        return {"tags": "tag list", "referrers": "list of referrers"}.get(self.value, self.value)


@dataclass(frozen=True)
class Resource:
    """One thing of an upstream. `path` is what follows `/v2/` there; `query` goes with it; `scope` is what a
    token for it is usually asked with. `digest`: what its content has, where it is asked for by that.
    """

    kind: ResourceKind
    upstream: Upstream
    path: str
    scope: Scope
    query: tuple[tuple[str, str], ...] = ()
    digest: Digest | None = None

    @property
    def may_be_empty(self) -> bool:
        """Whether content of 0 bytes can be right: the one blob with that digest."""
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
class UpstreamRequest:
    """One request to make. `accept` holds whole Accept lines."""

    resource: Resource
    credentials: UpstreamCredentials
    head: bool = False
    accept: tuple[str, ...] = ()
    byte_range: ByteRange | None = None


@dataclass(frozen=True)
class ResponseMetadata:
    """What the headers of the answer say; None for a header that is missing.

    `size` is the length of this answer's body in bytes; `span` and `whole_size` come from Content-Range and
    are set on a partial answer only. `digest` is a claim until the bytes have been hashed. `allowance` is that of
    the credentials of the request. `link` is all Link lines as one list.
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


class UpstreamResponse(Protocol):
    """A success of the upstream. The body can be read once; a broken one raises UpstreamFault."""

    @property
    def metadata(self) -> ResponseMetadata: ...

    def pieces(self) -> AsyncIterator[Bytes]:
        """The body as it arrives, never more than a few pieces ahead of the reader."""
        ...

    async def read(self, limit: int) -> bytes:
        """The whole body; raises UpstreamBroken where it is longer than `limit` bytes."""
        ...


@dataclass(frozen=True)
class PingResponse:
    """A registry's definite answer to GET /v2/: accepted, or the challenges of its 401. `server_time`: the time that it
    says it is, in seconds since 1970.
    """

    accepted: bool
    challenges: tuple[Challenge, ...] = ()
    server_time: float | None = None


class UpstreamRegistry(Protocol):
    """Speaks to registries."""

    async def ping(
        self, upstream: Upstream, credentials: UpstreamCredentials, *, is_probe: bool = False
    ) -> PingResponse:
        """Ask `GET /v2/`. Raises UpstreamFault for everything that is no registry's definite answer, MirrorFault.

        `is_probe`: the mirror asks on its own account, seldom, and without waiting in a queue before the upstream.
        """
        ...

    def open(self, fetch: UpstreamRequest) -> AbstractAsyncContextManager[UpstreamResponse]:
        """Make the request; leaving the context gives the connection up.

        A web page is no answer, nor is a HEAD that says 0 bytes of content that is not empty: UpstreamBroken.
        Raises ContentUnknown, Denied, RangeUnsatisfiable, UpstreamChallenged (401, also when the session's own
        token is refused), or another UpstreamFault.
        """
        ...


@dataclass(frozen=True)
class TokenRequest:
    """What to ask the token server that the challenge names.

    `offline` asks for a refresh token as well; `refresh_token` is the grant instead of credentials.
    """

    upstream: Upstream
    challenge: Challenge
    scopes: ScopeSet
    credentials: Credentials | None = None
    refresh_token: str | None = field(default=None, repr=False)
    offline: bool = False
    client_id: str | None = None


class TokenRelay(Protocol):
    """Gets tokens of the upstream."""

    async def fetch(self, request: TokenRequest) -> IssuedToken:
        """The upstream's token, its lifetime completed where it was silent.

        Raises CredentialsRejected (its 401), Denied (403), RealmNotTrusted before anything is sent to a realm that
        is not trusted, or another UpstreamFault.
        """
        ...


@dataclass(frozen=True)
class SearchResult:
    """One repository as `docker search` shows it."""

    name: str
    description: str = ""
    star_count: int = 0
    is_official: bool = False


class UpstreamSearch(Protocol):
    """Asks a registry's v1 search endpoint."""

    async def search(self, upstream: Upstream, term: str, limit: int) -> tuple[SearchResult, ...]:
        """At most `limit` results; the upstream has a `search_url`. Raises UpstreamFault."""
        ...


class QueueWatch:
    """One piece of work, which may have requests in the queue. Other pieces of work that wait for it follow it."""

    def __init__(self, is_wanted: Callable[[], bool] | None = None) -> None:
        """`is_wanted`: whether a request still waits for the work. Without it, the work ends with its own request."""
        self._is_wanted = is_wanted
        self._queued = 0
        self._followers: list[QueueWatch] = []

    @property
    def is_wanted(self) -> bool:
        """A request of the work is taken out of the queue when this has become False."""
        return self._is_wanted is None or self._is_wanted()

    @contextmanager
    def queued(self) -> Iterator[None]:
        """While one of its requests is in the queue."""
        self.enter()
        try:
            yield
        finally:
            self.leave()

    @contextmanager
    def followed_by(self, other: "QueueWatch") -> Iterator[None]:
        """While the other work waits for this one: a request in the queue counts for both."""
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
    """Work that outlives the request that began it, as long as another one waits for it."""

    def __init__(self) -> None:
        super().__init__(lambda: any(follower.is_wanted for follower in self._followers))


_current: ContextVar[QueueWatch | None] = ContextVar("queue_watch", default=None)


def current_watch() -> QueueWatch:
    """The watch of the work that the current task does; without one, a new watch that has no effect."""
    return _current.get() or QueueWatch()


@contextmanager
def watched_by(watch: QueueWatch) -> Iterator[None]:
    """What the current task does, and the tasks that it begins, are this work."""
    token = _current.set(watch)
    try:
        yield
    finally:
        _current.reset(token)
