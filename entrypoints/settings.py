"""The settings: what must go together, and what follows from them."""

from collections.abc import Mapping
from functools import cached_property
from typing import Any, Self

from pydantic import model_validator

from domain.access_rules import AccessRules
from domain.cache_policy import CachePolicy, Times
from domain.trust import TrustPolicy, UpstreamIdentity
from domain.upstream_table import UpstreamTable
from entrypoints.setting_fields import SettingFields
from entrypoints.setting_files import check_authorities, check_client_pair, check_key_pair
from entrypoints.setting_values import check_fallbacks, is_loopback
from entrypoints.settings_file import SettingsError
from entrypoints.upstream_settings import UpstreamSettings


class Settings(SettingFields):
    """Settings that go together. What follows from them is worked out once, when it is first asked for."""

    @model_validator(mode="after")
    def _agree(self) -> Self:
        self.demand_agreement()
        return self

    def demand_agreement(self) -> None:
        """Raises ValueError where values contradict each other."""
        is_service = self.upstream_identity is UpstreamIdentity.SERVICE
        login = {self.upstream_username is not None, self.upstream_password is not None}
        if login != {is_service}:
            raise ValueError(
                f"UPSTREAM_IDENTITY: got {self.upstream_identity.value!r}; 'service' and the pair UPSTREAM_USERNAME "
                "and UPSTREAM_PASSWORD go together, and with no other identity"
            )
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("TLS_CERT: takes a file together with TLS_KEY, or neither")
        names = ("UPSTREAM_CLIENT_CERT", "UPSTREAM_CLIENT_KEY")
        check_client_pair(self.upstream_client_cert, self.upstream_client_key, names)
        check_fallbacks(self.upstream_registry, self.upstream_fallbacks, "UPSTREAM_FALLBACKS")
        for one in self.mirrored:
            one.check_connections(self.workers)
        self.table  # noqa: B018 - raises where upstreams, or what is trusted, contradict each other
        self.cache_policy  # noqa: B018 - and so does this where times do
        self._check_rules()
        logins = any(one.credentials for one in self.table.upstreams)
        if logins and not self.has_accounts and not self.allow_everyone and not is_loopback(self.host):
            raise ValueError(
                f"UPSTREAM_IDENTITY: got 'service' without ACCOUNTS on HOST {self.host!r}: everyone who reaches this "
                "service would read your private content; takes ACCOUNTS, a loopback HOST, or ALLOW_EVERYONE=true"
            )

    @model_validator(mode="after")
    def _load_certificates(self) -> Self:
        if self.tls_cert and self.tls_key:
            check_key_pair(self.tls_cert, self.tls_key)
        if self.upstream_ca:
            check_authorities(self.upstream_ca)
        return self

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """As pydantic's, but for what has been worked out: it would be copied along, and follow from other values."""
        copied = super().model_copy(update=update, deep=deep)
        for name in copied.__dict__.keys() - type(copied).model_fields:
            del copied.__dict__[name]
        return copied

    def keeping(self, values: Mapping[str, object]) -> Self:
        """These settings, but for values that stay as they are in a running service. Raises SettingsError where the two
        do not go together: the rules of a loopback HOST, say, must not come into force where everybody listens.
        """
        mixed = self.model_copy(update=dict(values))
        try:
            mixed.demand_agreement()
        except ValueError as error:
            raise SettingsError(f"with {', '.join(map(str.upper, values))} as before: {error}") from error
        return mixed

    @cached_property
    def mirrored(self) -> tuple[UpstreamSettings, ...]:
        """The settings of each upstream; without a settings file, of the one that the environment names."""
        if self.upstreams:
            return self.upstreams
        return (
            UpstreamSettings(
                url=self.upstream_registry,
                names=self.upstream_names,
                identity=self.upstream_identity,
                username=self.upstream_username,
                password=self.upstream_password,
                ca=self.upstream_ca,
                realms=self.upstream_realms,
                search=self.search_upstream,
                timeout=self.upstream_timeout,
                fallbacks=self.upstream_fallbacks,
                client_cert=self.upstream_client_cert,
                client_key=self.upstream_client_key,
                max_connections=self.upstream_max_connections,
                max_rate=self.upstream_max_rate,
            ),
        )

    @property
    def has_accounts(self) -> bool:
        return bool(self.accounts) or self.htpasswd_file is not None

    @cached_property
    def table(self) -> UpstreamTable:
        """Where each of them is found. Raises ValueError where they cannot be told apart."""
        together = [one for one in self.mirrored if not (one.hosts and one.identity is UpstreamIdentity.CLIENT)]
        if len(together) == 1:  # one that is by itself shares with nobody
            together = []
        return UpstreamTable([one.registry(self._trust(one, shares_host=one in together)) for one in self.mirrored])

    @cached_property
    def cache_policy(self) -> CachePolicy:
        """How long what upstreams say is believed; without a cache, not at all."""
        if self.cache_dir is None:
            return CachePolicy(Times(0, 0, 0))
        usual = Times(self.tag_ttl, self.grant_ttl, self.stale_ttl)
        registries = zip(self.table.upstreams, self.mirrored, strict=True)
        return CachePolicy(usual, {registry: one.times(usual) for registry, one in registries})

    @cached_property
    def access_rules(self) -> AccessRules:
        """Who may pull what."""
        return AccessRules(tuple(one.rule for one in self.rules))

    def _check_rules(self) -> None:
        for one in self.rules:
            one.check_registries(self.table.upstreams)
            if one.accounts and not self.has_accounts:
                raise ValueError(
                    "rules: accounts are named, and there are none; takes ACCOUNTS, or rules for everybody"
                )

    def _trust(self, one: UpstreamSettings, *, shares_host: bool) -> TrustPolicy:
        return TrustPolicy(self.skip_auth_proxy, self.has_accounts, one.identity, shares_host)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What starts, but should make the operator think."""
        if self.has_accounts and self.self_registry is None and not is_loopback(self.host):
            exposed = (
                f"{'ACCOUNTS' if self.accounts else 'HTPASSWD_FILE'} without SELF_REGISTRY: "
                "clients send their passwords to whatever Host a request names; "
                "set SELF_REGISTRY to this service's own address"
            )
            return (exposed,)
        return ()
