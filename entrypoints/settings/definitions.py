"""Every setting, defined once: its type, parser, default, description and names.

A setting of the service is a field of ServiceDefinitions. Its environment variable is its name in capitals; its key at
the top of the settings file is its name. A setting of one upstream is a field of UpstreamDefinitions. Its name is the
key in a table of `upstreams`; `variable` is the environment variable that sets it for the only upstream, and in small
letters the key at the top of the file. The fields of CacheTimes are both: an upstream that does not set one has the
service's.
"""

import secrets
from dataclasses import dataclass
from pathlib import Path

from domain.access import Credentials
from domain.access_rules import AccessRule
from domain.cache_policy import FreshnessRule
from domain.trust import UpstreamIdentity
from entrypoints.settings.rules import FRESHNESS, RULES, TTL
from entrypoints.settings.schema import computed_setting, setting
from entrypoints.settings.values import (
    ACCOUNTS,
    ADDRESS,
    ADDRESSES,
    AUTHORITIES,
    CACHE_FOLDER,
    CACHE_SIZE,
    FILE,
    FLAG,
    HOST_LIST,
    HOSTS,
    IDENTITY,
    NETWORKS,
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
    number,
)


@dataclass(frozen=True)
class CacheTimes:
    """How long the cache is used without asking the upstream. Set for all upstreams, or for one."""

    tag_ttl: float = setting(
        60.0, TTL, "How many seconds a tag is used before the mirror asks the upstream again what it means."
    )
    grant_ttl: float = setting(
        300.0,
        number(float, 0, 86400, "seconds"),
        "How many seconds a caller may read a repository before the mirror asks the upstream again whether the caller "
        "may. With `0` it asks for every request.",
    )
    stale_ttl: float = setting(
        86400.0,
        TTL,
        "How many seconds public content, and content that the mirror's own login pulled, is served while the "
        "upstream cannot be reached.",
    )


@dataclass(frozen=True)
class UpstreamDefinitions(CacheTimes):
    """The settings of one upstream."""

    name: str = setting(
        "",
        REGISTRY_NAME,
        "What clients call the registry. The name of a well-known registry brings the other settings with it.",
        default_text="none",
    )
    url: str = setting(
        "https://registry-1.docker.io",
        ADDRESS,
        "The address of the registry to mirror. In a table of `upstreams` the default is the address of the well-known "
        "registry, or `https://` and the name. A well-known registry at another address has neither its usual search "
        "nor its usual `realms`.",
        variable="UPSTREAM_REGISTRY",
    )
    names: frozenset[str] = setting(
        frozenset(),
        HOSTS,
        "Further names by which clients mean the upstream, where another registry stands behind it: `quay.io` for a "
        "company's mirror of Quay. A name can be the path before `/v2`, the first segment of an image's name, or `ns`.",
        default_text="the host of the upstream; for Docker Hub all its names",
        variable="UPSTREAM_NAMES",
    )
    hosts: frozenset[str] = setting(
        frozenset(),
        HOSTS,
        "Host names of the mirror that lead to this upstream only. You set up their DNS and, for HTTPS, their "
        "certificates.",
    )
    identity: UpstreamIdentity = setting(
        UpstreamIdentity.CLIENT,
        IDENTITY,
        "Whose login goes to the upstream: that of the caller (`client`), none (`anonymous`), or the mirror's own "
        "(`service`). Clients keep one login for a host name, so at most one upstream under a host name can have "
        "`client`.",
        default_text="`service` with a user name, else `client`; `anonymous` for one of several upstreams",
        variable="UPSTREAM_IDENTITY",
    )
    username: str | None = setting(
        None,
        USER,
        "The user name of the mirror's own login at the upstream. Everyone who may use the mirror can read what this "
        "login can read.",
        variable="UPSTREAM_USERNAME",
        may_hold_secret=True,
    )
    password: Secret | None = setting(
        None, PASSWORD, "The password of this login.", variable="UPSTREAM_PASSWORD", is_secret=True
    )
    ca: Path | None = setting(
        None,
        AUTHORITIES,
        "A PEM file with further certificate authorities for the upstream.",
        variable="UPSTREAM_CA",
    )
    realms: frozenset[str] = setting(
        frozenset(),
        HOSTS,
        "Further hosts that logins for the upstream may be sent to. Set it where the token server of the registry is "
        "on another domain or port, or on another host of a domain that many tenants share. A host that is named here "
        "may also have an address that is refused otherwise, such as a private one.",
        variable="UPSTREAM_REALMS",
    )
    search: str | None = setting(
        None,
        ADDRESS,
        "The address of a v1 search endpoint. Without one, a search looks through the catalog of the upstream.",
        default_text="that of the well-known registry; else none",
        variable="SEARCH_UPSTREAM",
    )
    library: bool | None = setting(
        None,
        FLAG,
        "`true`: a name of one segment means `library/` and the name, as at Docker Hub.",
        default_text="`true` for Docker Hub, else `false`",
    )
    fallbacks: tuple[str, ...] = setting(
        (),
        ADDRESSES,
        "Further addresses of the same registry, with the same content and the same logins. The mirror asks them in "
        "this order when an address fails. If the first address is `https://`, all must be.",
        variable="UPSTREAM_FALLBACKS",
    )
    client_cert: Path | None = setting(
        None,
        PEM_FILE,
        "The PEM file of the certificate that the mirror shows to an upstream that asks for one. Set it together with "
        "the key. Everyone who may use the mirror can read what the certificate may read.",
        variable="UPSTREAM_CLIENT_CERT",
    )
    client_key: Path | None = setting(
        None,
        PEM_FILE,
        "The PEM file of the key of this certificate, without a passphrase.",
        variable="UPSTREAM_CLIENT_KEY",
    )
    proxy: str | None = setting(
        None,
        PROXY,
        "The outbound proxy of this upstream alone. `HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY` do not count for it.",
        may_hold_secret=True,
    )
    max_connections: int | None = setting(
        None,
        number(int, 1, 65535),
        "How many requests to the upstream and its token server run at once, downloads included; the others wait in a "
        "queue. The workers share the number, so it must be at least `WORKERS`.",
        default_text="no limit",
        variable="UPSTREAM_MAX_CONNECTIONS",
    )
    max_rate: float | None = setting(
        None,
        above_zero(1_000_000, "requests a second"),
        "How many requests a second go to the upstream and its token server, evenly spaced; the others wait in a "
        "queue. The workers share the number.",
        default_text="no limit",
        variable="UPSTREAM_MAX_RATE",
    )
    timeout: float = setting(
        25.0,
        above_zero(600, "seconds of silence"),
        "After how many seconds of silence a request to the upstream fails. A long transfer is fine. A connection must "
        "be open after at most 10 seconds.",
        variable="UPSTREAM_TIMEOUT",
    )
    freshness: tuple[FreshnessRule, ...] = setting(
        (), FRESHNESS, "Other times for some tags and repositories; the first rule that matches counts."
    )


@dataclass(frozen=True)
class ServiceDefinitions(CacheTimes):
    """The settings of the service."""

    config: Path | None = setting(
        None,
        FILE,
        "The settings file. The command's option `--config FILE` goes before it. The file itself cannot set it.",
    )

    # --- where the service listens ---
    port: int = setting(8080, number(int, 1, 65535, "a port number"), "The port to listen on.")
    host: str = setting(
        "0.0.0.0",  # noqa: S104 - a mirror is for other machines
        TEXT,
        "The address to listen on. `127.0.0.1`: this machine only. `::`: every address, of IPv6 and, where the system "
        "allows it, of IPv4. A name: each of its addresses that this machine has. The start line says what is served.",
    )
    workers: int = setting(2, number(int, 1, 256, "a number of processes"), "The number of worker processes.")
    tls_cert: Path | None = setting(
        None, PEM_FILE, "The PEM file of the certificate. Set it together with `TLS_KEY`, and the service speaks HTTPS."
    )
    tls_key: Path | None = setting(None, PEM_FILE, "The PEM file of the key of `TLS_CERT`, without a passphrase.")
    self_registry: str | None = setting(
        None,
        ADDRESS,
        "The address by which clients reach this service, such as `https://mirror.example.com`. Set it when you use "
        "`ACCOUNTS`, or when the service stands behind another server.",
        default_text="from each request's `Host`",
    )
    trusted_proxies: tuple[Network, ...] = setting(
        (),
        NETWORKS,
        "The reverse proxies whose `X-Forwarded-Proto`, `X-Forwarded-Host` and `X-Forwarded-For` the service believes. "
        "Name proxies only: a client with such an address can claim any other address, and guess passwords as each of "
        "them.",
    )

    # --- bounds for clients ---
    request_timeout: float = setting(
        30.0,
        number(float, 1, 600, "seconds"),
        "Within how many seconds a request must arrive: its head, counted from the start of the connection (with the "
        "TLS handshake) or from the first byte of a further request, and again its body. A slower client gets 408, "
        "however often it sends a byte.",
    )
    max_connections: int = setting(
        4096,
        number(int, 16, 1_000_000),
        "How many connections a worker has at a time; fewer where the system's limit of open files is too low.",
    )
    max_waiting_per_address: int = setting(
        256,
        number(int, 1, 1_000_000),
        "How many connections of one client address may wait for a request at a time, in each worker.",
    )
    delivery_idle: float = setting(
        120.0,
        number(float, 1, 86400, "seconds of silence"),
        "After how many seconds the service cuts off a client that takes nothing of its answer; but never sooner than "
        "three times `UPSTREAM_TIMEOUT`.",
    )
    shutdown_grace: float = setting(
        30.0, number(float, 0, 3600, "seconds"), "How many seconds running transfers have to finish after SIGTERM."
    )

    # --- who may use it ---
    accounts: tuple[Credentials, ...] = setting(
        (),
        ACCOUNTS,
        "Accounts, separated by commas or lines, each the base64 of `user:password`; the command `encode-account` "
        "prints it. When accounts are set, a caller without one gets nothing. An empty variable stops the start.",
        is_secret=True,
    )
    htpasswd_file: Path | None = setting(
        None,
        FILE,
        "A file of accounts, as `htpasswd -B` writes it, instead of `ACCOUNTS` or beside it; no user may be in both. "
        "The service reads it again when it changes. An empty variable stops the start.",
    )
    allow_everyone: bool = setting(
        False, FLAG, "`true`: everyone may use the mirror's own upstream login, without an account."
    )
    skip_auth_proxy: bool = setting(
        False,
        FLAG,
        "`true`: leave authentication to the upstream, untouched. It takes one upstream, no `ACCOUNTS`, no "
        "`HTPASSWD_FILE` and no `UPSTREAM_IDENTITY` but `client`.",
    )
    rules: tuple[AccessRule, ...] = setting(
        (),
        RULES,
        "Who may pull what. Only in the settings file. The first rule that matches decides. If none matches, a pull is "
        "denied if any rule has `allow`, else allowed.",
    )

    # --- tokens ---
    self_auth_service: str = setting(
        "docker-image-proxy",
        SERVICE_NAME,
        "The service name of this mirror in challenges, and the issuer of its tokens. Two mirrors in a row need two "
        "names.",
    )
    server_secret: Secret = computed_setting(
        lambda: Secret(secrets.token_urlsafe(48), is_random=True),
        SERVER_SECRET,
        "The key of the mirror's tokens (HMAC-SHA256). Set it where tokens and grants should survive a restart, or "
        "where several machines answer to one name. A token of an account also ends when the password of the account "
        "changes, over a restart too.",
        default_text="random at each start",
        is_secret=True,
    )
    token_ttl: int = setting(300, number(int, 60, 86400, "seconds"), "How many seconds a token of the mirror is valid.")

    # --- the cache ---
    cache_dir: Path | None = computed_setting(
        default_cache_folder,
        CACHE_FOLDER,
        "The folder of the cache, on a local file system; `off` keeps nothing.",
        default_text="`~/.local/share/docker-image-proxy`",
    )
    cache_size: CacheSize = setting(
        CacheSize(size=20 * 1024**3),
        CACHE_SIZE,
        "How much the cache may hold: bytes, a size such as `500MB` or `20GiB`, or a share of the whole file system "
        "such as `80%`. At least 1 MiB.",
        default_text="`20GiB`",
    )
    fill_retries: int = setting(
        5,
        number(int, 0, 100),
        "How often the mirror tries a broken download again without any progress before it gives up.",
    )

    # --- outbound proxies ---
    http_proxy: str | None = setting(
        None,
        PROXY,
        "The outbound proxy for upstreams with `http://`. A proxy is `http://`, `https://`, `socks5://` or "
        "`socks5h://`, with `user:password@` where it wants a login. The proxy resolves names, so it must also check "
        "which addresses they lead to.",
        may_hold_secret=True,
    )
    https_proxy: str | None = setting(
        None, PROXY, "The outbound proxy for upstreams with `https://`.", may_hold_secret=True
    )
    no_proxy: str = setting("", HOST_LIST, "The hosts that the mirror reaches without a proxy.", default_text="none")

    # --- the log ---
    log_level: str = setting(
        "info", choice("debug", "info", "warning", "error"), "How much is logged. The access log has the level `info`."
    )
    log_format: str = setting("text", choice("text", "json"), "The format of the log.")
