"""The settings: what each takes, and what must go together."""

import secrets
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    FilePath,
    SecretStr,
    model_validator,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from domain.access import Credentials
from domain.access_rules import AccessRules
from domain.cache_policy import CachePolicy, Times
from domain.trust import TrustPolicy, UpstreamIdentity
from domain.upstream_table import UpstreamTable
from entrypoints.rule_settings import RuleSettings
from entrypoints.setting_values import (
    Address,
    Addresses,
    CacheSize,
    Hosts,
    Network,
    Proxy,
    check_authorities,
    check_client_pair,
    check_fallbacks,
    check_key_pair,
    default_cache_folder,
    is_loopback,
    parse_accounts,
    parse_cache_folder,
    parse_cache_size,
    parse_networks,
    parse_secret,
    read_htpasswd,
    read_secret_file,
)
from entrypoints.settings_file import SettingsError
from entrypoints.upstream_settings import UpstreamSettings

SECRETS = frozenset({"accounts", "server_secret", "upstream_password"})

Secret = Annotated[SecretStr, AfterValidator(lambda value: SecretStr(parse_secret(value.get_secret_value())))]


class Settings(BaseSettings):
    """Every setting; its environment variable is the name in capitals, its description says what it takes."""

    model_config = SettingsConfigDict(env_ignore_empty=True, extra="ignore", frozen=True, hide_input_in_errors=True)

    # --- the seed's ---
    port: int = Field(8080, ge=1, le=65535, description="a port number from 1 to 65535")
    upstream_registry: Address = Field("https://registry-1.docker.io", description="the upstream's address")
    self_registry: Address | None = Field(None, description="the address by which clients reach this service")
    self_auth_service: str = Field(
        "docker-image-proxy",
        pattern=r"^[A-Za-z0-9._:/-]{1,128}$",
        description="a name of letters, digits and ._:/-",
    )
    accounts: Annotated[tuple[Credentials, ...], NoDecode, BeforeValidator(parse_accounts)] = Field(
        (), description="base64 of user:password, separated by commas", validate_default=False
    )
    skip_auth_proxy: bool = Field(False, description="true or false")
    server_secret: Secret = Field(
        default_factory=lambda: SecretStr(secrets.token_urlsafe(48)), description="32 bytes or more"
    )

    # --- where we listen, and what clients see ---
    host: str = Field("0.0.0.0", description="the address to listen on")  # noqa: S104 - a mirror is for other machines
    workers: int = Field(2, ge=1, le=256, description="a number of processes from 1 to 256")
    tls_cert: FilePath | None = Field(None, description="the path of a PEM file")
    tls_key: FilePath | None = Field(None, description="the path of a PEM file")
    trusted_proxies: Annotated[tuple[Network, ...], NoDecode, BeforeValidator(parse_networks)] = Field(
        (), description="addresses or networks, separated by commas", validate_default=False
    )
    shutdown_grace: float = Field(30, ge=0, le=3600, description="seconds from 0 to 3600")
    token_ttl: int = Field(300, ge=60, le=86400, description="seconds from 60 to 86400")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="debug, info, warning or error")
    log_format: Literal["text", "json"] = Field("text", description="text or json")

    # --- how we go upstream ---
    upstream_identity: UpstreamIdentity = Field(UpstreamIdentity.CLIENT, description="client, anonymous or service")
    upstream_username: str | None = Field(None, pattern=r"^[^:]+$", description="a user name")
    upstream_password: SecretStr | None = Field(None, description="a password")
    upstream_names: Annotated[Hosts, NoDecode] = Field(
        frozenset(), description="hosts, each HOST or HOST:PORT, separated by commas", validate_default=False
    )
    allow_everyone: bool = Field(False, description="true or false")
    upstream_ca: FilePath | None = Field(None, description="the path of a PEM file")
    upstream_client_cert: FilePath | None = Field(None, description="the path of a PEM file")
    upstream_client_key: FilePath | None = Field(None, description="the path of a PEM file")
    upstream_fallbacks: Annotated[Addresses, NoDecode] = Field(
        (), description="addresses, separated by commas", validate_default=False
    )
    upstream_max_connections: int | None = Field(None, ge=1, le=65535, description="a number from 1 to 65535")
    upstream_max_rate: float | None = Field(None, gt=0, le=1_000_000, description="requests a second, up to 1000000")
    upstream_realms: Annotated[Hosts, NoDecode] = Field(
        frozenset(), description="hosts, each HOST or HOST:PORT, separated by commas", validate_default=False
    )
    upstream_timeout: float = Field(25, gt=0, le=600, description="seconds of silence, up to 600")
    search_upstream: Address | None = Field(None, description="the address of a v1 search endpoint")
    http_proxy: Proxy | None = Field(None, repr=False, description="an address")
    https_proxy: Proxy | None = Field(None, repr=False, description="an address")
    no_proxy: str = Field("", description="hosts, separated by commas")

    # --- several upstreams, out of the settings file alone ---
    config: Path | None = Field(None, description="the path of a TOML file")
    upstreams: Annotated[tuple[UpstreamSettings, ...], NoDecode] = Field((), description="a list of upstreams")
    rules: Annotated[tuple[RuleSettings, ...], NoDecode] = Field((), description="a list of rules")

    # --- the cache ---
    cache_dir: Annotated[Path | None, BeforeValidator(parse_cache_folder)] = Field(
        default_factory=default_cache_folder,
        description="the path of a folder on a local file system, or off",
    )
    cache_size: Annotated[CacheSize, NoDecode, BeforeValidator(parse_cache_size)] = Field(
        CacheSize(size=20 * 1024**3),
        description="bytes, a size such as 20GiB, or a share of the disk such as 80%",
        validate_default=False,
    )
    tag_ttl: float = Field(60, ge=0, le=31_536_000, description="seconds from 0 to 31536000")
    grant_ttl: float = Field(300, ge=0, le=86400, description="seconds from 0 to 86400")
    stale_ttl: float = Field(86400, ge=0, le=31_536_000, description="seconds from 0 to 31536000")
    fill_retries: int = Field(5, ge=0, le=100, description="a number from 0 to 100")
    delivery_idle: float = Field(120, ge=1, le=86400, description="seconds of silence, from 1 to 86400")

    # --- out of files ---
    htpasswd_file: Path | None = Field(None, description="the path of a file")
    accounts_file: Path | None = Field(None, description="the path of a file")
    server_secret_file: Path | None = Field(None, description="the path of a file")
    upstream_password_file: Path | None = Field(None, description="the path of a file")

    @model_validator(mode="before")
    @classmethod
    def _read_files(cls, given: dict[str, object]) -> dict[str, object]:
        for name in sorted(SECRETS):
            path = given.get(f"{name}_file")
            if path is None:
                continue
            if given.get(name) is not None:
                raise ValueError(f"{name.upper()} and {name.upper()}_FILE are both set; takes one of them")
            try:
                given[name] = read_secret_file(Path(str(path)))
            except ValueError as error:
                # Only what is a path for sure: the secret itself stands here where somebody took the wrong variable.
                got = f"got {str(path)!r}; " if str(path).startswith(("/", ".")) else ""
                raise ValueError(f"{name.upper()}_FILE: {got}{error}") from error
        return given

    @model_validator(mode="before")
    @classmethod
    def _imply_identity(cls, given: dict[str, object]) -> dict[str, object]:
        if given.get("upstream_username") and not given.get("upstream_identity"):
            given["upstream_identity"] = UpstreamIdentity.SERVICE
        return given

    @model_validator(mode="after")
    def _check_htpasswd(self) -> Self:
        if path := self.htpasswd_file:
            try:
                read_htpasswd(path, self.accounts)
            except ValueError as error:
                # As for the secrets: only what is a path for sure.
                got = f"got {str(path)!r}; " if str(path).startswith(("/", ".")) else ""
                takes = "takes the path of a file of user:hash lines, as htpasswd -B writes them"
                raise ValueError(f"HTPASSWD_FILE: {got}{error}; {takes}") from error
        return self

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
        shared = [one for one in self.mirrored if not (one.hosts and one.identity is UpstreamIdentity.CLIENT)]
        return UpstreamTable([one.registry(self._trust(one, len(shared) > 1)) for one in self.mirrored])

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
        """A rule that is about nothing here is mistyped, and what was to be denied would not be."""
        for one in self.rules:
            for pattern in one.repositories:
                if not any(map(pattern.is_for, self.table.upstreams)):
                    raise ValueError(f"rules: got {pattern.text!r}, which is about no registry that is mirrored here")
            if one.accounts and not self.has_accounts:
                raise ValueError(
                    "rules: accounts are named, and there are none; takes ACCOUNTS, or rules for everybody"
                )

    def _trust(self, one: UpstreamSettings, is_shared: bool) -> TrustPolicy:  # noqa: FBT001 - positional in one place
        has_host = bool(one.hosts) and one.identity is UpstreamIdentity.CLIENT
        return TrustPolicy(self.skip_auth_proxy, self.has_accounts, one.identity, is_shared and not has_host)

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
