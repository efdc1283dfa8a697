"""Every setting, defined once: its type, parser, default, description and names.

A setting of the service is a field of ServerSettings, AccountAndTokenSettings, ProxySettings, CacheSettings,
SharedTierSettings or TraceSettings. Its environment variable is its name in capitals; its key at the top of the
settings file is its name.

A setting of one upstream is a field of UpstreamDefinitions. Its name is its key in a table of `upstreams`. `variable`
is the environment variable for the only upstream, and in lower case its key at the top of the file. A setting without
`variable` can only be set in such a table.

A field of ServiceAndUpstreamSettings is both: an upstream that does not set it has the value of the service.

A key of a table of `rules` is a field of RuleKeys; a key of a table of an upstream's `freshness` is a field of
FreshnessKeys.

Descriptions are Markdown for docs/reference/settings.md, which `scripts/docs --write` generates.
"""

import secrets
from dataclasses import dataclass
from pathlib import Path

from domain.access import Credentials
from domain.access_rules import AccessRule, Effect
from domain.cache_policy import FreshnessRule
from domain.htpasswd import HashedLogin
from domain.patterns import RepositoryPattern, TagPattern
from domain.redis_address import RedisAddress
from domain.trust import UpstreamIdentity
from entrypoints.settings.schema import computed_setting, setting
from entrypoints.settings.shared_values import INDEX_ADDRESS, SHARED_SIZE, STORE_ADDRESS
from entrypoints.settings.values import (
    ACCOUNTS,
    ADDRESS,
    ADDRESSES,
    AUTHORITIES,
    CACHE_FOLDER,
    CACHE_SIZE,
    FIELDS,
    FILE,
    FLAG,
    HOST_LIST,
    HOSTS,
    IDENTITY,
    NETWORKS,
    OPERATORS,
    PAIRS,
    PASSWORD,
    PEM_FILE,
    PROXY,
    REGISTRY_NAME,
    SERVER_SECRET,
    SERVICE_NAME,
    TEXT,
    USER,
    CacheSize,
    Network,
    Secret,
    above_zero,
    choice,
    default_cache_folder,
    listed,
    number,
    tables,
)

_LIMITS_FOR_CLIENTS = "../guides/outages-and-limits.md#limits-for-clients"
_QUEUE = "../guides/outages-and-limits.md#limit-requests-to-an-upstream"
_WHERE_CREDENTIALS_GO = "../guides/registries.md#where-the-mirror-sends-credentials-and-connections"

REPOSITORIES = listed("a list of patterns of repositories", RepositoryPattern)
TTL = number(float, 0, 31_536_000, "seconds")


@dataclass(frozen=True)
class RuleKeys:
    """The keys of a table of `rules`: either `allow` or `deny`."""

    allow: tuple[RepositoryPattern, ...] = setting((), REPOSITORIES, "The repositories that may be pulled.")
    deny: tuple[RepositoryPattern, ...] = setting((), REPOSITORIES, "The repositories that may not be pulled.")
    accounts: tuple[str, ...] = setting(
        (),
        listed("a list of accounts", str),
        "The accounts to which the rule applies; `*` means every account.",
        default_text="all callers, with or without an account",
    )

    def rule(self) -> AccessRule:
        """Raises ValueError for a rule that can never apply."""
        if bool(self.allow) == bool(self.deny):
            raise ValueError(f"takes either allow or deny, each {REPOSITORIES.takes}")
        return AccessRule(Effect.ALLOW if self.allow else Effect.DENY, self.allow or self.deny, self.accounts)


@dataclass(frozen=True)
class FreshnessKeys:
    """The keys of a table of an upstream's `freshness`."""

    tags: tuple[TagPattern, ...] = setting(
        (),
        listed("a list of patterns of tags", TagPattern),
        "The tags to which the rule applies.",
        default_text="required",
    )
    repositories: tuple[RepositoryPattern, ...] = setting(
        (), REPOSITORIES, "The repositories to which the rule applies.", default_text="every repository"
    )
    tag_ttl: float | None = setting(None, TTL, "`TAG_TTL` for these tags.", default_text="that of the upstream")
    stale_ttl: float | None = setting(
        None,
        TTL,
        "`STALE_TTL` for these tags; at most that of the upstream, because the mirror keeps grants only for that time.",
        default_text="that of the upstream",
    )

    def rule(self) -> FreshnessRule:
        """Raises ValueError for a rule that can never apply."""
        return FreshnessRule(self.tags, self.repositories, self.tag_ttl, self.stale_ttl)


RULES = tables("tables, each under [[rules]]", RuleKeys, RuleKeys.rule)
FRESHNESS = tables("tables, each under [[upstreams.freshness]]", FreshnessKeys, FreshnessKeys.rule)


@dataclass(frozen=True)
class ServerSettings:
    config: Path | None = setting(
        None, FILE, "The settings file. `--config FILE` takes precedence. The file itself has no such key."
    )
    port: int = setting(8080, number(int, 1, 65535, "a port number"), "The port to listen on.")
    host: str = setting(
        "0.0.0.0",  # noqa: S104 - a mirror is for other machines
        TEXT,
        "The address to listen on. `127.0.0.1`: only clients on this machine can connect. `::`: all addresses, IPv6 "
        "and, if the system allows it, IPv4. A name: all addresses of the name that this machine has.",
    )
    metrics_port: int | None = setting(
        None,
        number(int, 1, 65535, "a port number"),
        "A port of its own for `/metrics`, at `HOST`. If set, `PORT` has no `/metrics`, and this port has nothing but "
        "`/metrics`, `/livez` and `/readyz`. It has its own connections, so it can be read while `PORT` has none left.",
        default_text="none: `/metrics` is at `PORT`",
    )
    workers: int = setting(2, number(int, 1, 256, "a number of processes"), "The number of worker processes.")
    self_registry: str | None = setting(
        None,
        ADDRESS,
        "The address at which clients reach this service, such as `https://mirror.example.com`. Set it if you use "
        "`ACCOUNTS` or a reverse proxy.",
        default_text="from each request's `Host`",
    )
    tls_cert: Path | None = setting(
        None, PEM_FILE, "The certificate. If this and `TLS_KEY` are set, the service uses HTTPS."
    )
    tls_key: Path | None = setting(None, PEM_FILE, "The key of `TLS_CERT`, without a passphrase.")
    trusted_proxies: tuple[Network, ...] = setting(
        (),
        NETWORKS,
        "The reverse proxies whose `X-Forwarded-Proto`, `X-Forwarded-Host` and `X-Forwarded-For` the mirror trusts. "
        "List only reverse proxies: a client at such an address can pretend to have any other address, and so avoid "
        "the delay after wrong passwords.",
    )
    request_timeout: float = setting(
        30.0,
        number(float, 1, 600, "seconds"),
        "Time in which the head of a request must arrive, and again for its body. The time for the head starts with "
        "the connection (it includes the TLS handshake), or with the first byte of a further request. A slower client "
        "gets 408.",
    )
    max_connections: int = setting(
        4096,
        number(int, 16, 1_000_000),
        f"Maximum number of [connections]({_LIMITS_FOR_CLIENTS}) of a worker; lower if the limit of open files is too "
        "low.",
    )
    max_waiting_per_address: int = setting(
        256,
        number(int, 1, 1_000_000),
        f"Maximum number of [connections]({_LIMITS_FOR_CLIENTS}) of one client address in each worker that wait for a "
        "request.",
    )
    delivery_idle: float = setting(
        120.0,
        number(float, 1, 86400, "seconds of silence"),
        "Time after which the mirror disconnects a client that reads nothing; at least three times `UPSTREAM_TIMEOUT`.",
    )
    shutdown_grace: float = setting(
        30.0, number(float, 0, 3600, "seconds"), "Time that running transfers have to finish after SIGTERM."
    )
    page: str = setting(
        "public",
        choice("off", "public", "admin"),
        "[The page](../guides/page.md) at `/`. `public`: everyone who reaches the mirror can open it; without a login "
        "it shows only what the mirror gives to anonymous callers. `admin`: only operators (`ADMIN_ACCOUNTS`) can open "
        "it. `off`: `/` is 404.",
    )
    log_level: str = setting(
        "info",
        choice("debug", "info", "warning", "error"),
        "The level of the log. The access log has the level `info`.",
    )
    log_format: str = setting("text", choice("text", "json"), "The format of the log.")


@dataclass(frozen=True)
class AccountAndTokenSettings:
    accounts: tuple[Credentials, ...] = setting(
        (),
        ACCOUNTS,
        "Accounts, separated by commas or lines, each the base64 form of `user:password` (`encode-account` prints it). "
        "If set, nothing works without an account.",
        is_secret=True,
    )
    htpasswd_file: Path | None = setting(
        None,
        FILE,
        "[A file of accounts](../guides/accounts.md#accounts-in-a-file) as `htpasswd -B` writes it, instead of "
        "`ACCOUNTS` or in addition. The service reads it again when it changes.",
    )
    metrics_accounts: tuple[Credentials, ...] = setting(
        (),
        ACCOUNTS,
        "Accounts for `/metrics`, in the format of `ACCOUNTS`. If set, `/metrics` requires one of them by Basic "
        "authentication. They can do nothing else, and other accounts cannot read `/metrics`.",
        is_secret=True,
    )
    admin_accounts: tuple[HashedLogin, ...] = setting(
        (),
        OPERATORS,
        "The logins of operators, as `htpasswd -nB NAME` prints them, separated by commas or lines. They open "
        "[the administration](../guides/page.md#administration) at `/admin`, which is 404 without this setting. They "
        "give no right to pull, and their names must differ from those of other accounts. `ADMIN_ACCOUNTS_FILE` names "
        "an htpasswd file; reload the settings after you change it.",
        is_secret=True,
    )
    allow_everyone: bool = setting(
        False, FLAG, "`true`: everyone who can reach the mirror may read what the mirror's own upstream login can read."
    )
    skip_auth_proxy: bool = setting(
        False,
        FLAG,
        "`true`: clients use the upstream's own authentication, unchanged. Requires one upstream, no accounts and the "
        "default `UPSTREAM_IDENTITY`.",
    )
    rules: tuple[AccessRule, ...] = setting(
        (),
        RULES,
        "[Access rules](../guides/access-rules.md): which repositories can be pulled, and by which accounts. Only in "
        "the settings file.",
    )
    self_auth_service: str = setting(
        "docker-image-proxy",
        SERVICE_NAME,
        "The service name in the mirror's challenges and the issuer of its tokens. If the upstream is a mirror of this "
        "kind too, the two need different names.",
    )
    server_secret: Secret = computed_setting(
        lambda: Secret(secrets.token_urlsafe(48), is_random=True),
        SERVER_SECRET,
        "The key of the mirror's tokens (HMAC-SHA256). Set it if tokens and grants should stay valid after a restart, "
        "or if several machines serve one host name.",
        default_text="random at each start",
        is_secret=True,
    )
    token_ttl: int = setting(300, number(int, 60, 86400, "seconds"), "Time for which a token of the mirror is valid.")


@dataclass(frozen=True)
class ProxySettings:
    http_proxy: str | None = setting(
        None,
        PROXY,
        "The outbound proxy for `http://` upstreams: `http://`, `https://`, `socks5://` or `socks5h://`, optionally "
        f"with `user:password@`. The proxy resolves names, so it must itself refuse [addresses that the mirror would "
        f"refuse]({_WHERE_CREDENTIALS_GO}).",
        may_hold_secret=True,
    )
    https_proxy: str | None = setting(None, PROXY, "The outbound proxy for `https://` upstreams.", may_hold_secret=True)
    no_proxy: str = setting("", HOST_LIST, "The hosts to which the mirror connects directly.")


@dataclass(frozen=True)
class ServiceAndUpstreamSettings:
    tag_ttl: float = setting(
        60.0,
        TTL,
        "Time for which the mirror uses [a cached tag](../guides/cache.md#freshness-of-tags) before it asks the "
        "upstream again.",
    )
    grant_ttl: float = setting(
        300.0,
        number(float, 0, 86400, "seconds"),
        "Time for which a caller's grant to read a repository is valid before the mirror asks the upstream again. With "
        "`0` it asks for every request.",
    )
    stale_ttl: float = setting(
        86400.0,
        TTL,
        "Time for which the mirror serves public content, and content that it fetched with its own login, [during an "
        "outage](../guides/outages-and-limits.md#when-the-upstream-is-down).",
    )
    download_connections: int = setting(
        4,
        number(int, 1, 64),
        "Maximum number of connections over which the mirror fetches one blob. It opens more than one if the upstream "
        "supports ranges and the transfer would take longer than about two seconds. `1`: always one connection.",
    )


@dataclass(frozen=True)
class CacheSettings(ServiceAndUpstreamSettings):
    cache_dir: Path | None = computed_setting(
        default_cache_folder,
        CACHE_FOLDER,
        "The folder of [the cache](../guides/cache.md), on a local file system. `off`: the mirror stores nothing.",
        default_text="`~/.local/share/docker-image-proxy`",
    )
    cache_size: CacheSize = setting(
        CacheSize(size=20 * 1024**3),
        CACHE_SIZE,
        "The limit of the cache, at least 1 MiB. A share is a share of the whole file system.",
        default_text="`20GiB`",
    )
    fill_retries: int = setting(
        5, number(int, 0, 100), "Number of attempts to resume a download that makes no progress."
    )
    pin_check_interval: float = setting(
        3600.0,
        number(float, 1, 31_536_000, "seconds"),
        "Time between two checks of [a pinned image](../guides/cache.md#pinned-images) for an update.",
    )


@dataclass(frozen=True)
class SharedTierSettings:
    shared_store: str | None = setting(
        None,
        STORE_ADDRESS,
        "The object store in which all replicas keep their content. Set it together with `SHARED_INDEX`, "
        "`SERVER_SECRET` and a `CACHE_DIR`, with the same values on every replica. The login comes from the usual "
        "variables of the store, such as `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_REGION` and "
        "`AWS_ENDPOINT_URL`.",
        may_hold_secret=True,
    )
    shared_index: RedisAddress | None = setting(
        None,
        INDEX_ADDRESS,
        "The Redis or Valkey in which all replicas keep what they know. With `redis+sentinel://` the hosts are those "
        "of the Sentinels, and `SERVICE` is the name under which they know the server; `?sentinel_auth=yes`: they need "
        "the same login. With `rediss`, `?ca_file=PATH` names a PEM file of certificate authorities.",
        may_hold_secret=True,
    )
    shared_index_password: Secret | None = setting(
        None, PASSWORD, "The password of `SHARED_INDEX`, if its address contains none.", is_secret=True
    )
    shared_size: int = setting(
        100 * 1024**3,
        SHARED_SIZE,
        "The limit of the content in `SHARED_STORE`, at least 1 MiB.",
        default_text="`100GiB`",
    )


@dataclass(frozen=True)
class TraceSettings:
    otel_exporter_otlp_endpoint: str | None = setting(
        None,
        ADDRESS,
        "The address of a collector of [traces](../guides/operation.md#traces) that takes OTLP over HTTP, such as "
        "`http://localhost:4318`; the mirror adds `/v1/traces`. If set, the mirror sends traces; otherwise it makes "
        "none.",
    )
    otel_exporter_otlp_headers: tuple[tuple[str, str], ...] = setting(
        (),
        FIELDS,
        "Header fields for the collector, such as `authorization=Bearer%20TOKEN`, separated by commas.",
        is_secret=True,
        may_hold_secret=True,  # so that no repr has them, because they are plain texts
    )
    otel_service_name: str = setting("docker-image-proxy", TEXT, "The name of the mirror in traces.")
    otel_resource_attributes: tuple[tuple[str, str], ...] = setting(
        (),
        PAIRS,
        "Attributes of all spans, such as `deployment.environment.name=production,region=eu`.",
    )
    otel_traces_sampler: str = setting(
        "parentbased_always_on",
        choice(
            "always_on",
            "always_off",
            "traceidratio",
            "parentbased_always_on",
            "parentbased_always_off",
            "parentbased_traceidratio",
        ),
        "Which traces are recorded. `parentbased_`: if a client names its trace, as the client decided.",
    )
    otel_traces_sampler_arg: float = setting(
        1.0, number(float, 0, 1), "The share of the traces that the samplers with `traceidratio` record."
    )


@dataclass(frozen=True)
class UpstreamDefinitions(ServiceAndUpstreamSettings):
    name: str = setting(
        "",
        REGISTRY_NAME,
        "The name by which clients request the registry. For a [well-known name](#well-known-registries), the mirror "
        "knows the address, search and token server.",
    )
    url: str = setting(
        "https://registry-1.docker.io",
        ADDRESS,
        "The address of the registry. In the settings file, the default is `https://` and the name. If you set the "
        "address for a well-known name, the known search and `realms` do not apply.",
        variable="UPSTREAM_REGISTRY",
    )
    names: frozenset[str] = setting(
        frozenset(),
        HOSTS,
        "Further names by which clients request this upstream, such as `quay.io` for a company's mirror of Quay. "
        "Clients use them as the path before `/v2`, as the first segment of an image name, or in `ns`.",
        default_text="the upstream's own host; for Docker Hub all of its host names",
        variable="UPSTREAM_NAMES",
    )
    hosts: frozenset[str] = setting(
        frozenset(),
        HOSTS,
        "Host names of the mirror that serve this upstream only. You provide their DNS entries and their TLS "
        "certificate.",
    )
    identity: UpstreamIdentity = setting(
        UpstreamIdentity.CLIENT,
        IDENTITY,
        "Which login the mirror sends upstream: the caller's (`client`), none (`anonymous`), its own (`service`).",
        default_text="`service` with a user name; otherwise `client`, or `anonymous` for each of several upstreams",
        variable="UPSTREAM_IDENTITY",
    )
    username: str | None = setting(
        None,
        USER,
        "The user name of the mirror's own login at the upstream.",
        variable="UPSTREAM_USERNAME",
        may_hold_secret=True,
    )
    password: Secret | None = setting(
        None, PASSWORD, "The password of this login.", variable="UPSTREAM_PASSWORD", is_secret=True
    )
    ca: Path | None = setting(
        None, AUTHORITIES, "Additional certificate authorities for the upstream.", variable="UPSTREAM_CA"
    )
    realms: frozenset[str] = setting(
        frozenset(),
        HOSTS,
        "Further hosts to which the mirror may send upstream logins. Needed if the token server is on another domain "
        f"or port, or on another host of [a domain that many tenants share]({_WHERE_CREDENTIALS_GO}). These hosts may "
        f"also have [addresses that the mirror otherwise refuses]({_WHERE_CREDENTIALS_GO}).",
        variable="UPSTREAM_REALMS",
    )
    search: str | None = setting(
        None,
        ADDRESS,
        "The address of a v1 search endpoint. Without this address, the mirror searches in the upstream's catalog.",
        default_text="that of a well-known name, and of Docker Hub; otherwise none",
        variable="SEARCH_UPSTREAM",
    )
    timeout: float = setting(
        25.0,
        above_zero(600, "seconds of silence"),
        "Time for which the upstream may be silent. The duration of a transfer is not limited. A connection must be "
        "established within at most 10 seconds.",
        variable="UPSTREAM_TIMEOUT",
    )
    fallbacks: tuple[str, ...] = setting(
        (),
        ADDRESSES,
        "[Further addresses](../guides/outages-and-limits.md#an-upstream-with-several-addresses) of the upstream. If "
        "the first address is `https://`, these must be, too.",
        variable="UPSTREAM_FALLBACKS",
    )
    client_cert: Path | None = setting(
        None,
        PEM_FILE,
        "The mirror's certificate for an upstream that requests one. Every user of the mirror reads what the "
        "certificate can read.",
        variable="UPSTREAM_CLIENT_CERT",
    )
    client_key: Path | None = setting(
        None, PEM_FILE, "The key of this certificate, without a passphrase.", variable="UPSTREAM_CLIENT_KEY"
    )
    max_connections: int | None = setting(
        None,
        number(int, 1, 65535),
        "Maximum number of concurrent requests to the upstream and its token server, including downloads. Further "
        f"requests [wait]({_QUEUE}). At least `WORKERS`, because the workers share this number.",
        default_text="unlimited",
        variable="UPSTREAM_MAX_CONNECTIONS",
    )
    max_rate: float | None = setting(
        None,
        above_zero(1_000_000, "requests a second"),
        "Maximum rate of requests to the upstream and its token server, evenly spaced. Further requests "
        f"[wait]({_QUEUE}). The workers share this rate.",
        default_text="unlimited",
        variable="UPSTREAM_MAX_RATE",
    )
    proxy: str | None = setting(
        None,
        PROXY,
        "The outbound proxy for this upstream. It overrides `HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY`.",
        may_hold_secret=True,
    )
    library: bool | None = setting(
        None,
        FLAG,
        "`true`: a repository name of one segment means `library/NAME`, as on Docker Hub.",
        default_text="`true` for Docker Hub, otherwise `false`",
    )
    freshness: tuple[FreshnessRule, ...] = setting(
        (),
        FRESHNESS,
        "Other values of `tag_ttl` and `stale_ttl` [for some tags](../guides/cache.md#freshness-of-tags).",
    )
