"""The address of a Redis or Valkey service."""

from dataclasses import dataclass, field
from enum import Enum
from typing import Self
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

_OPTIONS = frozenset({"ca_file", "sentinel_auth"})
_PORT, _SENTINEL_PORT = 6379, 26379


class RedisKind(Enum):
    """How the servers of an address work together. The value follows the `+` in the scheme of the address."""

    SINGLE = ""
    """One server, or a name behind which another service keeps one primary."""
    SENTINEL = "sentinel"
    """The nodes are Sentinels. They know the address of the primary."""
    CLUSTER = "cluster"
    """The nodes belong to a Redis Cluster."""


@dataclass(frozen=True)
class RedisAddress:
    """How to reach a Redis or Valkey service, and how to log in to it."""

    kind: RedisKind
    nodes: tuple[tuple[str, int], ...]
    """Host and port of the server, of the Sentinels, or of some nodes of the cluster."""
    service: str = ""
    """The name under which the Sentinels know the primary; empty without Sentinels."""
    database: int = 0
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    is_sentinel_login: bool = False
    """Whether the Sentinels need the same login as the servers."""
    uses_tls: bool = False
    ca_file: str = ""
    """A PEM file of the authorities that sign the certificates of the servers; "" for those of the system."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """The address in one of these forms. `rediss` instead of `redis` uses TLS.

            redis://[[user]:password@]host[:6379][/database]
            redis+sentinel://[[user]:password@]host[:26379][,host...]/service[/database]
            redis+cluster://[[user]:password@]host[:6379][,host...]

        Options follow `?`: `ca_file=PATH`, and `sentinel_auth=yes` if the Sentinels need the same login. Raises
        ValueError with a message that contains no part of the text, because the text contains the password.
        """
        try:
            url = urlsplit(text)
        except ValueError as error:
            raise ValueError("it is not a valid URL") from error
        scheme, _, suffix = url.scheme.partition("+")
        kinds = {kind.value: kind for kind in RedisKind}
        if scheme not in {"redis", "rediss"} or suffix not in kinds or url.scheme.endswith("+"):
            raise ValueError(
                "it must begin with redis://, rediss://, redis+sentinel://, rediss+sentinel://, redis+cluster:// or "
                "rediss+cluster://"
            )
        kind = kinds[suffix]
        login, _, hosts = url.netloc.rpartition("@")
        username, _, password = login.partition(":")
        service, database = _path(kind, url.path)
        options = _options(url)
        return cls(
            kind,
            _nodes(kind, hosts),
            service,
            database,
            unquote(username) or None,
            unquote(password) or None,
            options.get("sentinel_auth") == "yes",
            scheme == "rediss",
            options.get("ca_file", ""),
        )

    def __str__(self) -> str:
        """The address without the login, for messages."""
        hosts = ",".join(f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in self.nodes)
        return f"{hosts}/{self.service}" if self.service else hosts


def _nodes(kind: RedisKind, hosts: str) -> tuple[tuple[str, int], ...]:
    default = _SENTINEL_PORT if kind is RedisKind.SENTINEL else _PORT
    nodes = tuple(_node(host, default) for host in hosts.split(","))
    if kind is RedisKind.SINGLE and len(nodes) > 1:
        raise ValueError("several hosts need redis+sentinel:// or redis+cluster://")
    return nodes


def _node(text: str, default: int) -> tuple[str, int]:
    try:
        parsed = urlsplit(f"//{text}")
        host, port = parsed.hostname, parsed.port
    except ValueError as error:
        raise ValueError("it has an invalid host or port") from error
    if not host or port == 0:
        raise ValueError("it has an invalid host or port")
    return host, port or default


def _path(kind: RedisKind, path: str) -> tuple[str, int]:
    """The service and the number of the database."""
    service, database = "", path.strip("/")
    if kind is RedisKind.SENTINEL:
        service, _, database = database.partition("/")
        if not service:
            raise ValueError("with Sentinel it must contain the name of the service: redis+sentinel://host/service")
    if kind is RedisKind.CLUSTER and database not in {"", "0"}:
        raise ValueError("a Redis Cluster has only database 0")
    if database and not (database.isascii() and database.isdigit()):
        raise ValueError("the database must be a number")
    return unquote(service), int(database or 0)


def _options(url: SplitResult) -> dict[str, str]:
    if url.fragment:
        raise ValueError("it must not contain '#'; in a password, write %23")
    options = dict(parse_qsl(url.query, keep_blank_values=True))
    if options.keys() - _OPTIONS:
        raise ValueError(f"it has an unknown option; known are {', '.join(sorted(_OPTIONS))}")
    if options.get("sentinel_auth", "no") not in {"yes", "no"}:
        raise ValueError("sentinel_auth must be yes or no")
    if "ca_file" in options and not url.scheme.startswith("rediss"):
        raise ValueError("ca_file needs rediss://")
    return options
