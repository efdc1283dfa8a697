"""The values of the settings for several replicas: the address of the shared store and that of the shared index."""

import re
from dataclasses import dataclass, field, replace
from typing import NamedTuple
from urllib.parse import unquote

from entrypoints.settings.schema import Refusal
from entrypoints.settings.values import Secret, scalar, shared_size

_STORE_TAKES = "s3://BUCKET/PREFIX, gs://BUCKET/PREFIX, az://CONTAINER/PREFIX or file:///FOLDER, without user or query"
_INDEX_TAKES = (
    "redis://HOST:PORT/DATABASE, rediss:// for TLS, or redis+sentinel://HOST:PORT,HOST:PORT/PRIMARY/DATABASE, "
    "each optionally with USER:PASSWORD@"
)
# Amazon, Google and Azure each allow fewer characters.
_BUCKET = r"[A-Za-z0-9][A-Za-z0-9._-]{1,220}[A-Za-z0-9]"
_NAME = r"[A-Za-z0-9._=-]{1,255}"
_STORE = re.compile(rf"(?:(?:s3|gs|az)://{_BUCKET}(?:/{_NAME}){{0,32}}|file://(?:/{_NAME}){{1,32}})/?")
_INDEX = re.compile(
    r"redis(?P<tls>s?)(?P<sentinel>\+sentinel)?://(?:(?P<login>[^@/?#]*)@)?(?P<hosts>[^@/?#]+)(?P<path>/[^?#]*)?"
)
_HOST_AND_PORT = re.compile(
    r"(?:\[(?P<ipv6>[0-9a-fA-F:.]+)\]|(?P<name>[A-Za-z0-9](?:[A-Za-z0-9._-]{0,253}[A-Za-z0-9])?))(?::(?P<port>[0-9]{1,5}))?"
)
_PRIMARY = re.compile(r"[A-Za-z0-9._-]{1,128}")
_DATABASE = re.compile(r"[0-9]{1,5}")
_SHOWN = re.compile(
    r"(?P<scheme>[A-Za-z0-9+.-]{1,20})://(?P<login>.*@)?(?P<rest>[^@?#]*)(?P<query>[?#][^@]*)?", re.DOTALL
)
_NO_PORT = re.compile(r":(?![0-9]{1,5}(?:[,/]|\Z))[^,/]*")
_REDIS_PORT, _SENTINEL_PORT, _LAST_PORT = 6379, 26379, 65535


class HostAndPort(NamedTuple):
    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True)
class SharedIndexAddress:
    """Where the shared index is. `hosts`: one server, or the sentinels that know it. `primary`: the name under which
    the sentinels know it; None without sentinels. `str` of it contains no password.
    """

    hosts: tuple[HostAndPort, ...]
    uses_tls: bool = False
    primary: str | None = None
    database: int = 0
    username: str | None = None
    password: Secret | None = field(default=None, repr=False)

    def __str__(self) -> str:
        scheme = f"redis{'s' if self.uses_tls else ''}{'+sentinel' if self.primary else ''}"
        path = "/".join(filter(None, (self.primary, str(self.database or ""))))
        return f"{scheme}://{','.join(map(str, self.hosts))}{f'/{path}' if path else ''}"


def _store_address(text: str) -> str:
    """The address without the slash at its end."""
    matched = _STORE.fullmatch(text)
    if not matched or {".", ".."} & set(text.split("/")):
        raise Refusal(f"got {_without_secrets(text)!r}; takes {_STORE_TAKES}")
    return text.rstrip("/")


def _index_address(text: str) -> SharedIndexAddress:
    try:
        return _parse_index(text)
    except ValueError as error:
        raise Refusal(f"got {_without_secrets(text)!r}; takes {_INDEX_TAKES}") from error


def _parse_index(text: str) -> SharedIndexAddress:
    matched = _INDEX.fullmatch(text)
    if not matched:
        raise ValueError
    is_sentinel, path = bool(matched["sentinel"]), (matched["path"] or "").strip("/").split("/")
    default = _SENTINEL_PORT if is_sentinel else _REDIS_PORT
    hosts = tuple(_host_and_port(one.strip(), default) for one in matched["hosts"].split(","))
    primary = path.pop(0) if is_sentinel else None
    database = path[0] if path and path[0] else "0"
    if len(path) > 1 or not _DATABASE.fullmatch(database) or (len(hosts) > 1 and not is_sentinel):
        raise ValueError
    if primary is not None and not _PRIMARY.fullmatch(primary):
        raise ValueError
    address = SharedIndexAddress(hosts, bool(matched["tls"]), primary, int(database))
    username, _, password = map(unquote, (matched["login"] or "").partition(":"))
    return replace(address, username=username or None, password=Secret(password) if password else None)


def _host_and_port(text: str, default: int) -> HostAndPort:
    matched = _HOST_AND_PORT.fullmatch(text)
    if not matched:
        raise ValueError
    port = int(matched["port"] or default)
    if not 0 < port <= _LAST_PORT:
        raise ValueError
    return HostAndPort(matched["ipv6"] or matched["name"], port)


def _without_secrets(text: str) -> str:
    """What a message can repeat of an address: no login, no query, and nothing of a text that is no address."""
    matched = _SHOWN.fullmatch(text)
    if not matched:
        return "***"
    # Without the host, what follows the user name is the password, not a port.
    rest = _NO_PORT.sub(":***", matched["rest"])
    return f"{matched['scheme']}://{'***@' if matched['login'] else ''}{rest[:200]}{'?***' if matched['query'] else ''}"


STORE_ADDRESS = scalar(_STORE_TAKES, _store_address)
INDEX_ADDRESS = scalar(_INDEX_TAKES, _index_address)
SHARED_SIZE = scalar("bytes, or a size such as 500GiB", shared_size)
