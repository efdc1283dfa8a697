"""Upstream registries, and how a request names them."""

import hashlib
from dataclasses import dataclass, field, replace
from typing import Self

from domain.access import Credentials, Scope
from domain.known_registries import DOCKER_HUB
from domain.names import RepositoryName
from domain.trust import TrustPolicy, UpstreamIdentity
from domain.value import Value

DEFAULT_PORTS = {"http": 80, "https": 443}


def without_default_port(host: str) -> str:
    """The registry name without the port of https, which is the default of all clients."""
    return host.removesuffix(f":{DEFAULT_PORTS['https']}")


class Origin(Value, frozen=True):
    """Scheme, host and port (RFC 6454 section 4). URLs with the same origin belong to the same server."""

    scheme: str
    host: str
    port: int

    @property
    def authority(self) -> str:
        """`host:port`, an IPv6 address in brackets (RFC 3986 section 3.2)."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


_FOR_CALLERS = TrustPolicy(skip_auth_proxy=False, has_accounts=False, identity=UpstreamIdentity.CLIENT)


@dataclass(frozen=True)
class Upstream:
    """A mirrored registry. Upstreams with the same `url` are equal: cached data stays valid when other settings change.

    `url`: no trailing slash, may end in a path. `search_url`: the v1 search endpoint, or None. `library_prefix`: a name
    of one segment means `library/<name>`. `fallbacks`: URL and origin of each further endpoint with the same content.
    `aliases`: further names that clients use for the registry. `hosts`: host names of the mirror for this upstream.
    `credentials`: the mirror's own login at the upstream, or None. `realms`: further hosts to which the mirror may send
    credentials. `title`: the operator's name for the upstream.
    """

    url: str
    origin: Origin
    library_prefix: bool = field(default=False, compare=False)
    search_url: str | None = field(default=None, compare=False)
    fallbacks: tuple[tuple[str, Origin], ...] = field(default=(), compare=False)
    aliases: frozenset[str] = field(default=frozenset(), compare=False)
    hosts: frozenset[str] = field(default=frozenset(), compare=False)
    trust: TrustPolicy = field(default=_FOR_CALLERS, compare=False)
    credentials: Credentials | None = field(default=None, compare=False, repr=False)
    realms: frozenset[str] = field(default=frozenset(), compare=False)
    title: str = field(default="", compare=False)

    @classmethod
    def at(cls, url: str, origin: Origin, search_url: str | None = None) -> Self:
        """An upstream with default settings. For the hosts of Docker Hub, sets `library_prefix` and `search_url`."""
        is_hub = origin.host in DOCKER_HUB.hosts
        return cls(url, origin, is_hub, search_url or (DOCKER_HUB.search if is_hub else None))

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits of the BLAKE2b hash of `url`, for file names. All endpoints share it, because they are
        one registry.
        """
        return hashlib.blake2b(self.url.encode(), digest_size=8).hexdigest()

    @property
    def endpoints(self) -> tuple[Self, ...]:
        """The upstream at each of its URLs, its own URL first."""
        others = (replace(self, url=url, origin=origin, fallbacks=()) for url, origin in self.fallbacks)
        return (self, *others)

    @property
    def names(self) -> frozenset[str]:
        """The names that clients use: the host, with the port if it is not the default, and the aliases. Docker
        Hub has several names.
        """
        is_default_port = self.origin.port == DEFAULT_PORTS.get(self.origin.scheme)
        from_url = {self.origin.authority, self.origin.host} if is_default_port else {self.origin.authority}
        known = self.aliases | from_url
        return known | DOCKER_HUB.hosts if known & DOCKER_HUB.hosts else known

    @property
    def name(self) -> str:
        """The name for people: the title, `docker.io`, or the host."""
        if self.title or self.names & DOCKER_HUB.hosts:
            return self.title or DOCKER_HUB.name
        return self.origin.host if self.origin.host in self.names else self.origin.authority

    @property
    def forwards_client_credentials(self) -> bool:
        """Whether the mirror sends the callers' own credentials to the upstream."""
        return self.trust.identity is UpstreamIdentity.CLIENT


@dataclass(frozen=True)
class Source:
    """An upstream and the name of a repository there."""

    upstream: Upstream
    repository: RepositoryName

    @property
    def pull_scope(self) -> Scope:
        return Scope.pull(self.repository)
