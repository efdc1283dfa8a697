"""The registries that we mirror, and where a name that a client uses really is."""

from dataclasses import dataclass
from typing import Self

from domain.access import Scope, ScopeSet
from domain.names import RepositoryName

_DOCKER_HUB_HOSTS = frozenset({"registry-1.docker.io", "index.docker.io", "docker.io", "registry.hub.docker.com"})
_DOCKER_HUB_SEARCH = "https://index.docker.io/v1/search"


@dataclass(frozen=True)
class Origin:
    """Scheme, host and port: what two addresses must share to be the same server (RFC 6454 section 4)."""

    scheme: str
    host: str
    port: int

    @property
    def authority(self) -> str:
        """`host:port`, an IPv6 address in brackets (RFC 3986 section 3.2)."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True)
class Upstream:
    """A registry that we mirror.

    `url` has no trailing slash and may end in a path; `search_url` is its v1 search endpoint, None where it
    has none; `library_prefix` says that a name of one segment means `library/<name>` there.
    """

    url: str
    origin: Origin
    library_prefix: bool = False
    search_url: str | None = None

    @classmethod
    def at(cls, url: str, origin: Origin, search_url: str | None = None) -> Self:
        """An upstream by its address alone; Docker Hub's two peculiarities follow from its host."""
        is_hub = origin.host in _DOCKER_HUB_HOSTS
        return cls(url, origin, is_hub, search_url or (_DOCKER_HUB_SEARCH if is_hub else None))


@dataclass(frozen=True)
class Source:
    """An upstream and the repository's name there."""

    upstream: Upstream
    repository: RepositoryName

    @property
    def pull_scope(self) -> Scope:
        return Scope.pull(self.repository)


class UpstreamTable:
    """Finds the source behind the name that a client uses."""

    def __init__(self, default: Upstream) -> None:
        self.default = default

    def source_of(self, name: RepositoryName) -> Source:
        """Where the client's repository really is."""
        if self.default.library_prefix and name.has_one_segment:
            return Source(self.default, RepositoryName(f"library/{name}"))
        return Source(self.default, name)

    def scopes_there(self, asked: ScopeSet) -> ScopeSet:
        """The asked scopes with the client's repository names replaced by the upstream's.

        The class and the actions stay; a scope that names no plain repository stays as it is.
        """
        return ScopeSet.of(self._scope_there(scope) for scope in asked)

    def _scope_there(self, scope: Scope) -> Scope:
        name = scope.repository
        if name is None:
            return scope
        return Scope(scope.resource_type, str(self.source_of(name).repository), scope.actions)
