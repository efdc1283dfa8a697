"""UpstreamTable: finds the upstream and the repository for a name that a client uses."""

import re
from collections.abc import Mapping, Sequence

from domain.access import NO_SCOPES, Scope, ScopeSet
from domain.errors import NameUnknown
from domain.known_registries import DOCKER_HUB, is_never_docker_hub
from domain.names import RepositoryName
from domain.upstreams import DEFAULT_PORTS, Source, Upstream, without_default_port
from domain.value import Value

_SHOWN = 128


class RegistryHint(Value, frozen=True):
    """What a request says about its registry, apart from the repository name. `group`: the upstreams behind the host
    name of the mirror, None for the shared host name; `upstream`: the registry that the request names, or None.
    """

    group: "_UpstreamGroup | None" = None
    upstream: Upstream | None = None


NO_HINT = RegistryHint()


class UpstreamTable:
    """Finds the source of a client's request. The first upstream is the default.

    Raises ValueError if two upstreams have the same URL, host or name.
    """

    def __init__(self, upstreams: Sequence[Upstream]) -> None:
        self.upstreams = tuple(upstreams)
        endpoints = [endpoint for upstream in upstreams for endpoint in upstream.endpoints]
        for place, endpoint in enumerate(endpoints):
            if endpoint in endpoints[:place]:
                raise ValueError(
                    f"two upstreams have the address {endpoint.url}; the cache could not tell their content apart"
                )
        shared = tuple(one for one in upstreams if not (one.hosts and one.forwards_client_credentials))
        self._shared = _UpstreamGroup(shared or self.upstreams[:1])
        self._groups: dict[str, _UpstreamGroup] = {}
        for upstream in upstreams:
            for host in upstream.hosts:
                if host in self._groups:
                    raise ValueError(f"two upstreams have the host {host}")
                self._groups[host] = _UpstreamGroup((upstream,))

    def source_of(self, name: RepositoryName, hint: RegistryHint = NO_HINT) -> Source:
        """The upstream and the repository name there.

        Raises NameUnknown if the registry is not mirrored here, or if name and hint name two registries, whose images
        must not be confused.
        """
        return (hint.group or self._shared).source_of(name, hint.upstream)

    def hint_of(
        self, *, prefix: str | None = None, namespace: str | None = None, host: str | None = None
    ) -> RegistryHint:
        """The hint of a request with this path before `/v2`, parameter `ns` (OCI distribution specification, "Registry
        Proxying") and host name. Raises NameUnknown if a registry is not mirrored here, or if they name two.
        """
        group = None if host is None else _at(self._groups, host)
        return RegistryHint(group, (group or self._shared).named_by(prefix, namespace))

    def hint_for(self, name: RepositoryName) -> RegistryHint:
        """The hint that selects the registry of a name from the operator: the mirror's host name of that registry,
        if it has one of its own.
        """
        groups = () if self._shared.split(name)[0] else self._groups.values()
        return next((RegistryHint(group) for group in groups if group.split(name)[0]), NO_HINT)

    def name_of(self, source: Source) -> str:
        """The name of the source for clients, to use with `hint_for`. Starts with a registry if there are several."""
        if len(self.upstreams) == 1:
            return str(source.repository)
        return f"{source.upstream.name}/{source.repository}"

    def request_for(self, source: Source) -> tuple[RepositoryName, RegistryHint]:
        """The name and the hint of a request for this source, whose upstream is one of this table."""
        is_shared = source.upstream in self._shared.upstreams
        group = None if is_shared else next(one for one in self._groups.values() if source.upstream in one.upstreams)
        return source.repository, RegistryHint(group, source.upstream)

    def upstream_of(self, hint: RegistryHint = NO_HINT) -> Upstream:
        """The upstream of a request without a repository."""
        return hint.upstream or (hint.group or self._shared).default

    def upstreams_of(self, hint: RegistryHint = NO_HINT) -> tuple[Upstream, ...]:
        """All upstreams behind the host name of the request, the default first."""
        return (hint.group or self._shared).upstreams

    def search_of(self, term: str, hint: RegistryHint = NO_HINT) -> tuple[Upstream, str, str]:
        """The upstream to search, the term, and the prefix of the result names for the client."""
        first, slash, rest = term.partition("/")
        if slash and (named := (hint.group or self._shared).named(first)):
            return named, rest, f"{first}/"
        return self.upstream_of(hint), term, ""

    def login_of(self, asked: ScopeSet, hint: RegistryHint = NO_HINT) -> tuple[Upstream, ScopeSet]:
        """The upstream whose token server issues a token for these scopes, and its scopes with the names of the
        upstream. Scopes that do not name a plain repository are unchanged.
        """
        return (hint.group or self._shared).login_of(asked)

    @property
    def has_own_hosts(self) -> bool:
        """Whether any upstream has a host name of its own."""
        return bool(self._groups)

    def is_own_host(self, host: str) -> bool:
        """Whether this host name of the mirror belongs to a single upstream."""
        return _at(self._groups, host) is not None


class _UpstreamGroup:
    """The upstreams behind one host name of the mirror."""

    def __init__(self, upstreams: Sequence[Upstream]) -> None:
        self.upstreams = tuple(upstreams)
        self.default = upstreams[0]
        self._named: dict[str, Upstream] = {}
        for upstream in upstreams:
            for name in _spellings(upstream):
                if self._named.setdefault(name, upstream) != upstream:
                    raise ValueError(f"two upstreams have the name {name}")
        logins = [one for one in upstreams if one.forwards_client_credentials]
        if len(logins) > 1:
            raise ValueError(
                f"{logins[0].url} and {logins[1].url} both have the identity client under one host name, for which "
                "clients store only one login; give one of them the identity anonymous or service, or hosts of its own"
            )
        self._login = logins[0] if logins else self.default
        self._namespaces = self._named
        if not self._named.keys() & DOCKER_HUB.hosts and not any(
            is_never_docker_hub(name.partition(":")[0]) for name in self.default.names
        ):
            # dockerd uses registry-mirrors only for Docker Hub, and names it in `ns`, whatever the upstream is.
            self._namespaces = self._named | dict.fromkeys(DOCKER_HUB.hosts, self.default)

    def split(self, name: RepositoryName) -> tuple[Upstream | None, RepositoryName]:
        """The registry whose name is the first segment, or None, and the rest of the name."""
        first, _, rest = str(name).partition("/")
        registry = self._named.get(first) if rest else None
        return registry, RepositoryName(rest) if registry else name

    def named(self, name: str) -> Upstream | None:
        return self._named.get(without_default_port(name.lower()))

    def source_of(self, name: RepositoryName, hinted: Upstream | None) -> Source:
        registry, rest = self.split(name)
        named = _agreed(hinted, registry)
        upstream = named or self.default
        first, slash, _ = str(name).partition("/")
        if named is None and upstream.library_prefix and slash and "." in first:
            # Namespaces at Docker Hub contain no dot, so Docker Hub would only answer with a misleading error.
            raise NameUnknown("this registry is not mirrored here", detail={"registry": first[:_SHOWN]})
        return Source(upstream, _at_upstream(upstream, rest))

    def login_of(self, asked: ScopeSet) -> tuple[Upstream, ScopeSet]:
        of_login, others = [], []
        for scope in asked:
            # A scope without a registry may belong to any of them: containerd omits the registry for mirrors.
            registry, rest = self.split(scope.repository) if scope.repository else (None, None)
            if registry and registry != self._login:
                others.append(registry)
            elif rest:
                of_login.append(Scope(scope.resource_type, str(_at_upstream(self._login, rest)), scope.actions))
            else:
                of_login.append(scope)
        if others and not of_login:
            return others[0], NO_SCOPES
        return self._login, ScopeSet.of(of_login)

    def named_by(self, prefix: str | None, namespace: str | None) -> Upstream | None:
        """The upstream that the request names, or None. Raises NameUnknown if a registry is not mirrored here."""
        return _agreed(_find("prefix", prefix, self._named), _find("ns", namespace, self._namespaces))


def _find(kind: str, text: str | None, known: Mapping[str, Upstream]) -> Upstream | None:
    if text is None:
        return None
    upstream = known.get(without_default_port(text.lower()))
    if upstream is None:
        raise NameUnknown("this registry is not mirrored here", detail={kind: text[:_SHOWN]})
    return upstream


def _agreed(one: Upstream | None, other: Upstream | None) -> Upstream | None:
    """The upstream that is named in one way or in two. Raises NameUnknown if these are two upstreams."""
    if one and other and one != other:
        raise NameUnknown("the request names two different registries", detail={"upstreams": [one.url, other.url]})
    return one or other


def _at_upstream(upstream: Upstream, name: RepositoryName) -> RepositoryName:
    """The name of the repository at the upstream."""
    return RepositoryName(f"library/{name}") if upstream.library_prefix and "/" not in str(name) else name


def _spellings(upstream: Upstream) -> frozenset[str]:
    """The names for clients, without the port of https, and with the port of http if the upstream uses http."""
    names = frozenset(map(without_default_port, upstream.names))
    if upstream.origin.scheme != "http":
        return names
    return names | {f"{name}:{DEFAULT_PORTS['http']}" for name in names if ":" not in name}


def _at(groups: dict[str, _UpstreamGroup], host: str) -> _UpstreamGroup | None:
    """The upstreams of a host name, with or without its port (RFC 3986 section 3.2)."""
    host = host.lower()
    bare = re.sub(r":[0-9]+$", "", host)
    with_default_port = (f"{host}:{port}" for port in DEFAULT_PORTS.values() if bare == host)
    return next((found for one in (host, *with_default_port, bare) if (found := groups.get(one))), None)
