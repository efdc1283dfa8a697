"""Settings: the values together, the rules that they must agree on, and the domain's values that follow from them."""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property

from domain.access import Credentials
from domain.access_rules import AccessRule, AccessRules
from domain.cache_policy import CachePolicy, CacheTimes
from domain.download_policy import DownloadPolicy
from domain.trust import TrustPolicy, UpstreamIdentity
from domain.upstream_table import UpstreamTable
from domain.upstreams import Upstream
from entrypoints.settings.definitions import (
    AccountAndTokenSettings,
    CacheSettings,
    ProxySettings,
    ServerSettings,
    SharedTierSettings,
    TraceSettings,
    UpstreamDefinitions,
)
from entrypoints.settings.schema import definitions_of, shown
from entrypoints.settings.values import check_key_pair, is_loopback, origin_of_address, read_htpasswd

VARIABLES = {name: one.variable for name, one in definitions_of(UpstreamDefinitions).items() if one.variable}
"""The environment variable of each setting of the only upstream, by the setting's name."""


class SettingsError(Exception):
    """An invalid setting. The message is one line for the operator."""


@dataclass(frozen=True)
class UpstreamSettings(UpstreamDefinitions):
    """The settings of one upstream. `place` says, for messages, where they are in the settings file; "" for the only
    upstream, which variables define.
    """

    place: str = field(default="", compare=False)

    def check(self, workers: int) -> None:
        """Raises ValueError if values contradict each other."""
        is_service = self.identity is UpstreamIdentity.SERVICE
        if {self.username is not None, self.password is not None} != {is_service}:
            raise self._wrong(
                "identity",
                f"got {self.identity.value!r}; {self._label('username')} and {self._label('password')} must both be "
                "set if the identity is 'service', and neither for another identity",
            )
        names = (f"{self.place}{self._label('client_cert')}", self._label("client_key"))
        check_key_pair(self.client_cert, self.client_key, names)
        bare = [other for other in self.fallbacks if other.startswith("http://")]
        if bare and self.url.startswith("https://"):
            # An attacker who blocks the first address would get the logins for the second one in clear text.
            raise self._wrong("fallbacks", f"got {bare[0]!r}; takes addresses by https, as the first is")
        if self.max_connections is not None and self.max_connections < workers:
            raise self._wrong(
                "max_connections",
                f"got {self.max_connections}; takes WORKERS ({workers}) or more, because the workers share them",
            )

    def _label(self, name: str) -> str:
        return name if self.place else VARIABLES[name]

    def _wrong(self, name: str, reason: str) -> ValueError:
        return ValueError(f"{self.place}{self._label(name)}: {reason}")

    @property
    def credentials(self) -> Credentials | None:
        """The mirror's own login at this upstream; None if it has none."""
        if self.username is None or self.password is None:
            return None
        return Credentials(self.username, self.password.value)

    def upstream(self, trust: TrustPolicy) -> Upstream:
        """The domain's value for this upstream."""
        url, *others = (address.removesuffix("/v2") for address in (self.url, *self.fallbacks))
        known = Upstream.at(url, origin_of_address(url), self.search)
        return replace(
            known,
            library_prefix=known.library_prefix if self.library is None else self.library,
            fallbacks=tuple((other, origin_of_address(other)) for other in others),
            aliases=self.names | {self.name} if self.name else self.names,
            hosts=self.hosts,
            trust=trust,
            credentials=self.credentials,
            realms=self.realms,
            title=self.name,
        )


@dataclass(frozen=True)
class Settings(
    ServerSettings, AccountAndTokenSettings, ProxySettings, CacheSettings, SharedTierSettings, TraceSettings
):
    """All settings. `upstreams` is never empty; the first is the default. What follows from the values is computed
    once, at its first use.
    """

    upstreams: tuple[UpstreamSettings, ...] = (UpstreamSettings(),)

    def check(self) -> None:
        """Raises ValueError if values contradict each other, or a file does not hold what its setting takes."""
        check_key_pair(self.tls_cert, self.tls_key, ("TLS_CERT", "TLS_KEY"))
        if self.metrics_port == self.port:
            raise ValueError(f"METRICS_PORT: got {self.port}, which is PORT; takes another port")
        for one in self.upstreams:
            one.check(self.workers)
        _check_shared_tier(self)
        self.cache_policy  # noqa: B018 - raises if the times or the upstreams contradict each other
        for rule in self.rules:
            _check_registries(rule, self.table.upstreams)
            if rule.accounts and not self.has_accounts:
                raise ValueError(
                    "rules: a rule names accounts, but no accounts are set; set ACCOUNTS, or remove the names"
                )
        _check_operators(self)
        logins = any(one.credentials for one in self.upstreams)
        if logins and not self.has_accounts and not self.allow_everyone and not is_loopback(self.host):
            raise ValueError(
                f"UPSTREAM_IDENTITY: got 'service' without ACCOUNTS on HOST {self.host!r}: everyone who reaches this "
                "service would read your private content; takes ACCOUNTS, a loopback HOST, or ALLOW_EVERYONE=true"
            )
        if path := self.htpasswd_file:
            try:
                read_htpasswd(path, self.taken_names)
            except ValueError as error:
                takes = "takes the path of a file of user:hash lines, as htpasswd -B writes them"
                raise ValueError(f"HTPASSWD_FILE: {shown('htpasswd_file', path)}{error}; {takes}") from error

    def by_name(self) -> dict[str, object]:
        """Each value by the name of its variable."""
        is_single = not self.upstreams[0].place
        single = self.upstreams[0] if is_single else UpstreamSettings()
        return {
            **{one.name.upper(): getattr(self, one.name) for one in fields(self)},
            "UPSTREAMS": () if is_single else self.upstreams,
            **{variable: getattr(single, name) for name, variable in VARIABLES.items()},
        }

    @property
    def has_accounts(self) -> bool:
        return bool(self.accounts) or self.htpasswd_file is not None

    @property
    def takes_page_logins(self) -> bool:
        """Whether somebody can log in to the page."""
        return self.has_accounts or bool(self.admin_accounts)

    @property
    def taken_names(self) -> frozenset[str]:
        """The names of ACCOUNTS and ADMIN_ACCOUNTS, which HTPASSWD_FILE must not contain."""
        return frozenset(one.username for one in self.accounts) | {one.user for one in self.admin_accounts}

    @property
    def is_shared(self) -> bool:
        """Whether this is one of several replicas that share content and knowledge."""
        return self.shared_store is not None

    @property
    def longest_silence(self) -> float:
        """Seconds that an upstream may be silent."""
        return max(one.timeout for one in self.upstreams)

    @cached_property
    def table(self) -> UpstreamTable:
        """Raises ValueError if two upstreams cannot be distinguished."""
        sharing = [one for one in self.upstreams if not (one.hosts and one.identity is UpstreamIdentity.CLIENT)]
        if len(sharing) == 1:  # no other upstream has the same host name
            sharing = []
        return UpstreamTable(
            [
                one.upstream(TrustPolicy(self.skip_auth_proxy, self.has_accounts, one.identity, one in sharing))
                for one in self.upstreams
            ]
        )

    @cached_property
    def cache_policy(self) -> CachePolicy:
        """How long answers of upstreams are used; without a cache, not at all. Raises ValueError if the freshness
        rules of an upstream contradict its times.
        """
        times = {
            upstream: CacheTimes(one.tag_ttl, one.grant_ttl, one.stale_ttl, one.freshness)
            for upstream, one in zip(self.table.upstreams, self.upstreams, strict=True)
        }
        if self.cache_dir is None:
            return CachePolicy(CacheTimes(0, 0, 0))
        return CachePolicy(CacheTimes(self.tag_ttl, self.grant_ttl, self.stale_ttl), times)

    @cached_property
    def download_policy(self) -> DownloadPolicy:
        """How many connections one download may use."""
        numbers = [one.download_connections for one in self.upstreams]
        return DownloadPolicy(self.download_connections, dict(zip(self.table.upstreams, numbers, strict=True)))

    @cached_property
    def access_rules(self) -> AccessRules:
        return AccessRules(self.rules)

    @property
    def warnings(self) -> tuple[str, ...]:
        """Possible mistakes that are not errors."""
        if self.has_accounts and self.self_registry is None and not is_loopback(self.host):
            exposed = (
                f"{'ACCOUNTS' if self.accounts else 'HTPASSWD_FILE'} without SELF_REGISTRY: "
                "clients send their passwords to whatever Host a request names; "
                "set SELF_REGISTRY to this service's own address"
            )
            return (exposed,)
        return ()


def _check_operators(settings: Settings) -> None:
    """Raises ValueError if the page is for operators and there are none, or if an operator has the name of an account:
    one name would have two passwords and two sets of rights.
    """
    if settings.page == "admin" and not settings.admin_accounts:
        raise ValueError("PAGE: got 'admin' without ADMIN_ACCOUNTS, so nobody could open it; takes ADMIN_ACCOUNTS too")
    accounts = {one.username for one in settings.accounts}
    if any(one.user in accounts for one in settings.admin_accounts):
        raise ValueError("ADMIN_ACCOUNTS: contains a user name of ACCOUNTS; takes other names than those of accounts")


def _check_shared_tier(settings: Settings) -> None:
    """Raises ValueError if the settings of the shared store and the shared index contradict each other or others."""
    store, index = settings.shared_store, settings.shared_index
    if store is not None and index is None:
        raise ValueError(f"SHARED_STORE: got {store!r}; takes SHARED_INDEX as well, or neither of them")
    if index is not None and store is None:
        raise ValueError(f"SHARED_INDEX: got {str(index)!r}; takes SHARED_STORE as well, or neither of them")
    if index is None:
        return
    if settings.server_secret.is_random:
        raise ValueError(
            "SERVER_SECRET: is not set; takes the same 32 bytes or more on every replica if SHARED_STORE is set"
        )
    if settings.cache_dir is None:
        raise ValueError(
            "CACHE_DIR: got 'off'; takes a folder if SHARED_STORE is set, because downloads are written there"
        )
    if index.password and settings.shared_index_password:
        raise ValueError("SHARED_INDEX_PASSWORD: is set, and SHARED_INDEX contains a password; takes one of them")


def _check_registries(rule: AccessRule, upstreams: Sequence[Upstream]) -> None:
    """Raises ValueError for a pattern that matches no upstream, or means another repository than its author intends:
    the rule would not deny what it is meant to deny.
    """
    for pattern in rule.repositories:
        if not any(map(pattern.is_for, upstreams)):
            raise ValueError(f"rules: got {pattern.text!r}, which matches no registry that is mirrored here")
        first, _, rest = pattern.text.partition("/")
        # Clients write `corp/app` for an upstream named corp. RepositoryPattern reads `corp` as part of a repository,
        # because it has no dot.
        named = next((one for one in upstreams if rest and pattern.registry is None and first in one.names), None)
        if named:
            raise ValueError(
                f"rules: got {pattern.text!r}, where {first!r} is a name of {named.url}; takes a name with a dot "
                f"or a port, such as {named.origin.authority}/{rest}"
            )
