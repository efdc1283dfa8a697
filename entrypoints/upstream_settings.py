"""One upstream, as the settings file has it; the environment's single one becomes the same."""

from dataclasses import replace
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator

from domain.access import Credentials
from domain.cache_policy import Times
from domain.trust import TrustPolicy, UpstreamIdentity
from domain.upstreams import Upstream
from entrypoints.rule_settings import FreshnessSettings
from entrypoints.setting_files import PemFile, check_authorities, check_client_pair
from entrypoints.setting_values import Address, Addresses, Hosts, Proxy, check_fallbacks, origin_of_address


class UpstreamSettings(BaseModel):
    """The keys of an upstream; each description says what it takes."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    title: str = ""
    url: Address = Field(description="the registry's address")
    names: Hosts = Field(frozenset(), description="a list of names by which clients mean it")
    hosts: Hosts = Field(frozenset(), description="a list of host names of ours that lead to it alone")
    identity: UpstreamIdentity = Field(UpstreamIdentity.CLIENT, description="client, anonymous or service")
    username: str | None = Field(None, pattern=r"^[^:]+$", description="a user name")
    password: SecretStr | None = Field(None, min_length=1, description="a password")
    ca: PemFile | None = Field(None, description="the path of a PEM file")
    realms: Hosts = Field(frozenset(), description="a list of hosts, each HOST or HOST:PORT")
    search: Address | None = Field(None, description="the address of a v1 search endpoint")
    library: bool | None = Field(None, strict=True, description="true or false")
    fallbacks: Addresses = Field((), description="a list of further addresses")
    client_cert: PemFile | None = Field(None, description="the path of a PEM file")
    client_key: PemFile | None = Field(None, description="the path of a PEM file")
    proxy: Proxy | None = Field(None, repr=False, description="an address")
    max_connections: int | None = Field(None, strict=True, ge=1, le=65535, description="a number from 1 to 65535")
    max_rate: float | None = Field(
        None, strict=True, gt=0, le=1_000_000, description="requests a second, up to 1000000"
    )
    timeout: float = Field(25, strict=True, gt=0, le=600, description="seconds of silence, up to 600")
    tag_ttl: float | None = Field(None, strict=True, ge=0, le=31_536_000, description="seconds from 0 to 31536000")
    grant_ttl: float | None = Field(None, strict=True, ge=0, le=86400, description="seconds from 0 to 86400")
    stale_ttl: float | None = Field(None, strict=True, ge=0, le=31_536_000, description="seconds from 0 to 31536000")
    freshness: tuple[FreshnessSettings, ...] = Field((), description="a list of rules of freshness")

    @model_validator(mode="after")
    def _agree(self) -> Self:
        is_service = self.identity is UpstreamIdentity.SERVICE
        if {self.username is not None, self.password is not None} != {is_service}:
            raise ValueError(
                f"identity: got {self.identity.value!r}; 'service' and the pair of user name and password go "
                "together, and with no other identity"
            )
        if self.ca:
            check_authorities(self.ca)
        check_client_pair(self.client_cert, self.client_key, ("client_cert", "client_key"))
        check_fallbacks(self.url, self.fallbacks, "fallbacks")
        return self

    def check_connections(self, workers: int) -> None:
        """Raises ValueError where there are too few for each worker to have one."""
        if self.max_connections is not None and self.max_connections < workers:
            name = f"upstream {self.title}: max_connections" if self.title else "UPSTREAM_MAX_CONNECTIONS"
            raise ValueError(
                f"{name}: got {self.max_connections}; takes WORKERS ({workers}) or more, among whom they are shared out"
            )

    @property
    def credentials(self) -> Credentials | None:
        """The mirror's own login there, None where it has none."""
        if self.username is None or self.password is None:
            return None
        return Credentials(self.username, self.password.get_secret_value())

    def times(self, usual: Times) -> Times:
        """How long what it says is believed. Raises ValueError where its rules contradict that."""
        return Times(
            usual.tag_ttl if self.tag_ttl is None else self.tag_ttl,
            usual.grant_ttl if self.grant_ttl is None else self.grant_ttl,
            usual.stale_ttl if self.stale_ttl is None else self.stale_ttl,
            tuple(one.rule for one in self.freshness),
        )

    def registry(self, trust: TrustPolicy) -> Upstream:
        """The same as a value of the domain."""
        url, *others = (address.removesuffix("/v2") for address in (self.url, *self.fallbacks))
        known = Upstream.at(url, origin_of_address(url), self.search)
        return replace(
            known,
            library_prefix=known.library_prefix if self.library is None else self.library,
            fallbacks=tuple((other, origin_of_address(other)) for other in others),
            aliases=self.names | {self.title} if self.title else self.names,
            hosts=self.hosts,
            trust=trust,
            credentials=self.credentials,
            realms=self.realms,
            title=self.title,
        )
