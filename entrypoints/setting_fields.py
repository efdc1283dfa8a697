"""What each setting takes."""

import secrets
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    SecretStr,
    model_validator,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from domain.access import Credentials
from domain.trust import UpstreamIdentity
from entrypoints.rule_settings import RuleSettings
from entrypoints.setting_files import PemFile, read_htpasswd, read_secret_file
from entrypoints.setting_values import (
    Address,
    Addresses,
    CacheSize,
    Hosts,
    Network,
    Proxy,
    default_cache_folder,
    parse_accounts,
    parse_cache_folder,
    parse_cache_size,
    parse_networks,
    parse_secret,
    shown,
)
from entrypoints.upstream_settings import UpstreamSettings

SECRETS = frozenset({"accounts", "server_secret", "upstream_password"})

Secret = Annotated[SecretStr, AfterValidator(lambda value: SecretStr(parse_secret(value.get_secret_value())))]


class SettingFields(BaseSettings):
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
    tls_cert: PemFile | None = Field(None, description="the path of a PEM file")
    tls_key: PemFile | None = Field(None, description="the path of a PEM file")
    trusted_proxies: Annotated[tuple[Network, ...], NoDecode, BeforeValidator(parse_networks)] = Field(
        (), description="addresses or networks, separated by commas", validate_default=False
    )
    request_timeout: float = Field(30, ge=1, le=600, description="seconds from 1 to 600")
    max_connections: int = Field(4096, ge=16, le=1_000_000, description="a number from 16 to 1000000")
    max_waiting_per_address: int = Field(256, ge=1, le=1_000_000, description="a number from 1 to 1000000")
    shutdown_grace: float = Field(30, ge=0, le=3600, description="seconds from 0 to 3600")
    token_ttl: int = Field(300, ge=60, le=86400, description="seconds from 60 to 86400")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="debug, info, warning or error")
    log_format: Literal["text", "json"] = Field("text", description="text or json")

    # --- how we go upstream ---
    upstream_identity: UpstreamIdentity = Field(UpstreamIdentity.CLIENT, description="client, anonymous or service")
    upstream_username: str | None = Field(None, pattern=r"^[^:]+$", description="a user name")
    upstream_password: SecretStr | None = Field(None, min_length=1, description="a password")
    upstream_names: Annotated[Hosts, NoDecode] = Field(
        frozenset(), description="hosts, each HOST or HOST:PORT, separated by commas", validate_default=False
    )
    allow_everyone: bool = Field(False, description="true or false")
    upstream_ca: PemFile | None = Field(None, description="the path of a PEM file")
    upstream_client_cert: PemFile | None = Field(None, description="the path of a PEM file")
    upstream_client_key: PemFile | None = Field(None, description="the path of a PEM file")
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
                raise ValueError(f"{name.upper()}_FILE: {shown(f'{name}_file', path)}{error}") from error
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
                takes = "takes the path of a file of user:hash lines, as htpasswd -B writes them"
                raise ValueError(f"HTPASSWD_FILE: {shown('htpasswd_file', path)}{error}; {takes}") from error
        return self
