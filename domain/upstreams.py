"""The registries that we mirror, and where a name that a client uses really is."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Self

from domain.access import Scope, ScopeSet
from domain.errors import NameUnknown
from domain.names import RepositoryName

_USUAL_PORTS = {"http": 80, "https": 443}
_DOCKER_HUB_HOSTS = frozenset({"registry-1.docker.io", "index.docker.io", "docker.io", "registry.hub.docker.com"})
# Whose own names clients use, with all below them; any other registry is taken for a mirror of Docker Hub.
_PUBLIC_DOMAINS = (
    "amazonaws.com", "azurecr.io", "digitalocean.com", "ecr.aws", "elastic.co", "fedoraproject.org", "gcr.io",
    "ghcr.io", "gitlab.com", "icr.io", "k8s.io", "lscr.io", "mcr.microsoft.com", "nvcr.io", "ocir.io", "pkg.dev",
    "quay.io", "redhat.com", "redhat.io", "suse.com",
)  # fmt: skip
_HUB_MIRRORS = frozenset({"mirror.gcr.io"})
_SHOWN = 128
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
    has none; `library_prefix` says that a name of one segment means `library/<name>` there. `fallbacks` are the
    address and the origin of each further place that has the same content. Two are the same where `url` is: what is
    remembered of an upstream stays true when a setting changes.
    """

    url: str
    origin: Origin
    library_prefix: bool = field(default=False, compare=False)
    search_url: str | None = field(default=None, compare=False)
    fallbacks: tuple[tuple[str, Origin], ...] = field(default=(), compare=False)

    @classmethod
    def at(cls, url: str, origin: Origin, search_url: str | None = None) -> Self:
        """An upstream by its address alone; Docker Hub's two peculiarities follow from its host."""
        is_hub = origin.host in _DOCKER_HUB_HOSTS
        return cls(url, origin, is_hub, search_url or (_DOCKER_HUB_SEARCH if is_hub else None))

    @property
    def endpoints(self) -> tuple[Self, ...]:
        """The upstream as each of its addresses shows it, its own first."""
        others = (replace(self, url=url, origin=origin, fallbacks=()) for url, origin in self.fallbacks)
        return (self, *others)

    @property
    def names(self) -> frozenset[str]:
        """What clients call it: its host, with the port where that is not the scheme's. Docker Hub has several."""
        if self.origin.host in _DOCKER_HUB_HOSTS:
            return _DOCKER_HUB_HOSTS
        is_usual = self.origin.port == _USUAL_PORTS.get(self.origin.scheme)
        return frozenset({self.origin.authority, self.origin.host} if is_usual else {self.origin.authority})


@dataclass(frozen=True)
class Source:
    """An upstream and the repository's name there."""

    upstream: Upstream
    repository: RepositoryName

    @property
    def pull_scope(self) -> Scope:
        return Scope.pull(self.repository)


@dataclass(frozen=True)
class Naming:
    """What a request says of the registry that it means, besides the repository's name: the path before `/v2`, and the
    parameter `ns` (OCI distribution specification, "Registry Proxying").
    """

    prefix: str | None = None
    namespace: str | None = None


NO_NAMING = Naming()


class UpstreamTable:
    """Finds the source behind what a client asks for. `names`: by which clients mean the upstream, besides its own."""

    def __init__(self, default: Upstream, names: Iterable[str] = ()) -> None:
        self.default = default
        known = default.names.union(names)
        self._names = known | _DOCKER_HUB_HOSTS if known & _DOCKER_HUB_HOSTS else known
        # dockerd's registry-mirrors are Docker Hub's, whatever registry really stands behind them, and say so by `ns`.
        self._namespaces = known if any(map(_is_another, known)) else known | _DOCKER_HUB_HOSTS

    def source_of(self, name: RepositoryName, naming: Naming = NO_NAMING) -> Source:
        """Where the client's repository really is.

        Raises NameUnknown for a registry that is not mirrored here: its images must not be mixed up with ours.
        """
        self.check(naming)
        first, _, rest = str(name).partition("/")
        there = RepositoryName(rest) if rest and first in self._names else name
        if self.default.library_prefix and there.has_one_segment:
            there = RepositoryName(f"library/{there}")
        return Source(self.default, there)

    def check(self, naming: Naming) -> None:
        """Raises NameUnknown where it names a registry that is not mirrored here."""
        if naming.namespace is not None and naming.namespace.lower() not in self._namespaces:
            raise NameUnknown("this registry is not mirrored here", detail={"ns": naming.namespace[:_SHOWN]})
        if naming.prefix is not None and naming.prefix.lower() not in self._names:
            raise NameUnknown("this registry is not mirrored here", detail={"prefix": naming.prefix[:_SHOWN]})

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


def _is_another(name: str) -> bool:
    """Whether this is a well-known registry that is neither Docker Hub nor a mirror of it."""
    host = name.partition(":")[0]
    return host not in _HUB_MIRRORS and any(f".{host}".endswith(f".{domain}") for domain in _PUBLIC_DOMAINS)
