"""How the text of one setting becomes a value. Every ValueError here says what the setting takes."""

import ipaddress
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated
from urllib.parse import SplitResult, urlsplit

import platformdirs
from pydantic import AfterValidator, BeforeValidator

from domain.access import Credentials
from domain.authorization import decode_basic
from domain.upstreams import Origin
from entrypoints.version import NAME

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

# RFC 3986 section 3.2.2 and 3.2.3, as far as host names go.
HOST = re.compile(r"(?:\[[0-9a-fA-F:.]+\]|[A-Za-z0-9](?:[A-Za-z0-9._-]{0,253}[A-Za-z0-9])?)(?::[0-9]{1,5})?")
_ADDRESS = re.compile(r"[!$%&'()*+,\-./0-9:;=@A-Z_a-z~\[\]]{1,2048}")
_SECRET_BYTES = 32
_DEFAULT_PORTS = {"http": 80, "https": 443}
_PROXIES = frozenset({"http", "https", "socks5", "socks5h"})
_SIZE = re.compile(r"(?P<number>[0-9]{1,15}(?:\.[0-9]{1,6})?) ?(?P<unit>%|[kmgt]?i?b?)", re.IGNORECASE)
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "i": 1}
_UNITS |= {"ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}
_WHOLE_PERCENT = 100
_SMALLEST_CACHE = 2**20
# What may hold a secret, if only by mistake, is not repeated when it is refused.
_UNSPOKEN = {"accounts", "server_secret", "http_proxy", "https_proxy", "proxy"}
_UNSPOKEN |= {"upstream_username", "upstream_password", "username", "password"}
_SHOWN = 200
"""So many characters."""


def parse_address(text: str) -> str:
    """An http or https address, without the slash at its end."""
    parts = _split(text)
    if parts is None or parts.scheme not in _DEFAULT_PORTS or not HOST.fullmatch(parts.netloc):
        raise ValueError("takes an address such as https://registry.example.com, without user, query or fragment")
    return text.rstrip("/")


def parse_addresses(given: object) -> tuple[str, ...]:
    """Several of them, in their order."""
    return tuple(map(parse_address, _words(given, "takes addresses, separated by commas")))


def parse_proxy(text: str) -> str:
    """An outbound proxy, with or without a scheme and a login, as the usual environment variables have it."""
    parts = _split(text if "://" in text else f"http://{text}")
    if parts is None or parts.scheme not in _PROXIES or not HOST.fullmatch(parts.netloc.rpartition("@")[2]):
        raise ValueError("takes an address such as http://proxy.example.com:3128 or socks5://proxy.example.com:1080")
    return parts.geturl()


def _split(text: str) -> SplitResult | None:
    """The address in its parts; None where it holds what no address here may: spaces, a query, a port too large."""
    if not _ADDRESS.fullmatch(text):
        return None
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        return None
    return parts if port != 0 and parts.hostname else None


def origin_of_address(address: str) -> Origin:
    """Scheme, host and port of an address that parse_address has passed."""
    parts = urlsplit(address)
    return Origin(parts.scheme, parts.hostname or "", parts.port or _DEFAULT_PORTS[parts.scheme])


def parse_accounts(text: str) -> tuple[Credentials, ...]:
    """base64 of `user:password`, separated by commas or lines. A malformed one is named by its position only."""
    entries = [entry.strip() for entry in re.split(r"[,\n]", text)]
    accounts = []
    for position, entry in enumerate(entries, start=1):
        if not entry:
            continue
        credentials = decode_basic(entry)
        if credentials is None or not credentials.username:
            raise ValueError(f"entry {position} is not the base64 of user:password (see encode-account)")
        accounts.append(credentials)
    if not accounts:
        raise ValueError("is set but holds no entry; takes base64 of user:password, separated by commas")
    return tuple(accounts)


def parse_secret(text: str) -> str:
    if len(text.encode()) < _SECRET_BYTES:
        raise ValueError(f"is too short; takes {_SECRET_BYTES} bytes or more")
    return text


def parse_networks(text: str) -> tuple[Network, ...]:
    try:
        return tuple(ipaddress.ip_network(word.strip()) for word in text.split(",") if word.strip())
    except ValueError as error:
        raise ValueError("takes addresses or networks such as 10.0.0.0/8, separated by commas") from error


def parse_hosts(given: object) -> frozenset[str]:
    takes = "takes hosts, each HOST or HOST:PORT, separated by commas"
    hosts = _words(given, takes)
    if not all(map(HOST.fullmatch, hosts)):
        raise ValueError(takes)
    return frozenset(map(str.lower, hosts))


def _words(given: object, takes: str) -> list[str]:
    """Out of the environment's text, or the settings file's list."""
    words = given.split(",") if isinstance(given, str) else given
    if not isinstance(words, list | tuple | frozenset) or not all(isinstance(word, str) for word in words):
        raise ValueError(takes)
    return [word.strip() for word in words if word.strip()]


@dataclass(frozen=True)
class CacheSize:
    """Either a number of bytes or a share of the file system, from 0 to 1."""

    size: int = 0
    share: float = 0.0

    def of(self, folder: Path) -> int:
        """Bytes. Raises OSError where the folder is not there."""
        if not self.share:
            return self.size
        state = os.statvfs(folder)
        return int(state.f_blocks * state.f_frsize * self.share)


def parse_cache_size(text: str) -> CacheSize:
    matched = _SIZE.fullmatch(text.strip())
    if not matched:
        raise ValueError("takes bytes, a size such as 20GiB, or a share of the disk such as 80%")
    number, unit = float(matched["number"]), matched["unit"].lower()
    if unit == "%":
        if not 0 < number <= _WHOLE_PERCENT:
            raise ValueError("takes a share of the disk from 1% to 100%")
        return CacheSize(share=number / _WHOLE_PERCENT)
    size = int(number * _UNITS[unit.removesuffix("b")])
    if size < _SMALLEST_CACHE:
        raise ValueError("takes 1MiB at least; CACHE_DIR=off turns the cache off")
    return CacheSize(size=size)


def parse_cache_folder(value: object) -> Path | None:
    """None for `off`."""
    text = str(value)
    if text.strip().lower() == "off":
        return None
    try:
        path = Path(text).expanduser()
    except RuntimeError as error:
        raise ValueError("takes an absolute path, or off") from error
    if not path.is_absolute():
        raise ValueError("takes an absolute path, or off")
    return path


def default_cache_folder() -> Path:
    """Where this platform keeps the data of a program."""
    return platformdirs.user_data_path(NAME, appauthor=False)


def shown(name: str, value: object) -> str:
    """What was given, where a message may repeat it; "" where it may be a secret, if only by mistake. `name` is that of
    the setting, or of the key in the settings file.
    """
    text = str(value)
    if name in _UNSPOKEN:
        return ""
    # The secret itself stands here where somebody took the wrong variable. What follows is a path for sure.
    if name.endswith(("_file", "_key")) and not text.startswith(("/", ".")):
        return ""
    # An address may hold a login, whether it is to or not.
    text = re.sub(r"^.*@", "***@", text, flags=re.DOTALL)
    text = text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
    return f"got {text!r}; " if isinstance(value, str | Path) else f"got {text}; "


def check_fallbacks(url: str, fallbacks: tuple[str, ...], name: str) -> None:
    """Whoever cuts us off from the first address would have the logins sent by the second in the clear."""
    bare = [other for other in fallbacks if other.startswith("http://")]
    if bare and url.startswith("https://"):
        raise ValueError(f"{name}: got {bare[0]!r}; takes addresses by https, as the first is")


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


Address = Annotated[str, AfterValidator(parse_address)]
Addresses = Annotated[tuple[str, ...], BeforeValidator(parse_addresses)]
Proxy = Annotated[str, AfterValidator(parse_proxy)]
Hosts = Annotated[frozenset[str], BeforeValidator(parse_hosts)]
