"""How a given value becomes the value of a setting: parsers of texts, of what a TOML file holds, and of files."""

import ipaddress
import os
import re
import ssl
from collections.abc import Callable, Container
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import TypeVar
from urllib.parse import SplitResult, unquote, urlsplit

import platformdirs

from domain.access import Credentials
from domain.authorization import decode_basic
from domain.htpasswd import HashedLogin, parse_htpasswd
from domain.trust import UpstreamIdentity
from domain.upstreams import Origin
from entrypoints.settings.schema import Parser, Refusal, check_is_file, check_keys, keys_of, read, read_text
from entrypoints.version import NAME

N = TypeVar("N", int, float)
T = TypeVar("T")
K = TypeVar("K")
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

# RFC 3986 section 3.2.2 and 3.2.3, as far as host names go.
HOST = re.compile(r"(?:\[[0-9a-fA-F:.]+\]|[A-Za-z0-9](?:[A-Za-z0-9._-]{0,253}[A-Za-z0-9])?)(?::[0-9]{1,5})?")
_ADDRESS = re.compile(r"[!$%&'()*+,\-./0-9:;=@A-Z_a-z~\[\]]{1,2048}")
_SERVICE = re.compile(r"[A-Za-z0-9._:/-]{1,128}")
_FIELD_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_FIELD = re.compile(r"[\t -~]*")
_SECRET_BYTES = 32
_DEFAULT_PORTS = {"http": 80, "https": 443}
_PROXIES = frozenset({"http", "https", "socks5", "socks5h"})
_FLAGS = dict.fromkeys(("1", "on", "t", "true", "y", "yes"), True) | dict.fromkeys(
    ("0", "off", "f", "false", "n", "no"), False
)
_SIZE = re.compile(r"(?P<number>[0-9]{1,15}(?:\.[0-9]{1,6})?) ?(?P<unit>%|[kmgt]?i?b?)", re.IGNORECASE)
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "i": 1}
_UNITS |= {"ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}
_WHOLE_PERCENT = 100
_SMALLEST_CACHE = 2**20


@dataclass(frozen=True)
class Secret:
    """A text that is never printed. `is_random`: this process made it, because none was set."""

    value: str = field(repr=False)
    is_random: bool = False


@dataclass(frozen=True)
class CacheSize:
    """Either a number of bytes or a share of the file system, from 0 to 1."""

    size: int = 0
    share: float = 0.0

    def of(self, folder: Path) -> int:
        """Bytes. Raises OSError if the folder does not exist."""
        if not self.share:
            return self.size
        state = os.statvfs(folder)
        return int(state.f_blocks * state.f_frsize * self.share)


def scalar(takes: str, parse: Callable[[str], T]) -> Parser[T]:
    """For one value: a text, or a number or a boolean of the TOML file, which is read like its text."""

    def parse_text(given: object) -> T:
        if not isinstance(given, str | int | float | PurePath):
            raise ValueError
        return parse(str(given).lower() if isinstance(given, bool) else str(given))

    return Parser(takes, parse_text)


def several(takes: str, parse: Callable[[list[str]], T]) -> Parser[T]:
    """For a list of the TOML file, or a text whose words are separated by commas or lines."""

    def parse_words(given: object) -> T:
        words = re.split(r"[,\n]", given) if isinstance(given, str) else given
        if not isinstance(words, list | tuple) or not all(isinstance(word, str) for word in words):
            raise ValueError
        return parse([word.strip() for word in words if word.strip()])

    return Parser(takes, parse_words)


def listed(takes: str, parse: Callable[[str], T]) -> Parser[tuple[T, ...]]:
    """For a list of texts of the TOML file. `parse` raises ValueError with the reason why it refuses a text."""

    def parse_list(given: object) -> tuple[T, ...]:
        if not isinstance(given, list) or not all(isinstance(one, str) for one in given):
            raise ValueError
        try:
            return tuple(map(parse, given))
        except ValueError as error:
            raise Refusal(str(error)) from error

    return Parser(takes, parse_list)


def tables(takes: str, keys: type[K], rule: Callable[[K], T]) -> Parser[tuple[T, ...]]:
    """For a list of tables of the TOML file. `rule` converts the keys of one table into the domain's rule."""

    def parse_table(position: int, table: dict[str, object]) -> T:
        try:
            check_keys(table, keys_of(keys))
            return rule(read(keys, table, {key: key for key in table}))
        except ValueError as error:
            raise Refusal(f"entry {position}: {error}") from error

    def parse_tables(given: object) -> tuple[T, ...]:
        if not isinstance(given, list) or not all(isinstance(one, dict) for one in given):
            raise ValueError
        return tuple(parse_table(position, table) for position, table in enumerate(given, start=1))

    return Parser(takes, parse_tables)


def choice(*values: str) -> Parser[str]:
    return scalar(f"{', '.join(values[:-1])} or {values[-1]}", lambda text: _require(text, text in values))


def number(kind: Callable[[str], N], low: int, high: int, unit: str = "a number") -> Parser[N]:
    return scalar(f"{unit} from {low} to {high}", lambda text: _require(value := kind(text), low <= value <= high))


def above_zero(high: int, unit: str) -> Parser[float]:
    return scalar(f"{unit}, up to {high}", lambda text: _require(value := float(text), 0 < value <= high))


def _require(value: T, is_valid: object) -> T:
    if not is_valid:
        raise ValueError
    return value


def _address(text: str) -> str:
    """An http or https address, without the slash at its end."""
    parts = _split(text)
    return _require(text.rstrip("/"), parts.scheme in _DEFAULT_PORTS and HOST.fullmatch(parts.netloc))


def _proxy(text: str) -> str:
    """An outbound proxy, with or without a scheme and a login, as HTTP_PROXY usually contains it."""
    parts = _split(text if "://" in text else f"http://{text}")
    return _require(parts.geturl(), parts.scheme in _PROXIES and HOST.fullmatch(parts.netloc.rpartition("@")[2]))


def _split(text: str) -> SplitResult:
    """The parts of an address. Raises ValueError for a text that no setting accepts: with a space, a query, or a port
    that is too large.
    """
    parts = urlsplit(text)
    return _require(parts, _ADDRESS.fullmatch(text) and parts.port != 0 and parts.hostname)


def origin_of_address(address: str) -> Origin:
    """Scheme, host and port of an address that ADDRESS accepts."""
    parts = urlsplit(address)
    return Origin(parts.scheme, parts.hostname or "", parts.port or _DEFAULT_PORTS[parts.scheme])


def _hosts(words: list[str]) -> frozenset[str]:
    return _require(frozenset(map(str.lower, words)), all(map(HOST.fullmatch, words)))


def _pairs(words: list[str]) -> tuple[tuple[str, str], ...]:
    """Names with their values, percent-encoded as the variables of OpenTelemetry have them."""
    found = [word.partition("=") for word in words]
    pairs = tuple((unquote(name.strip()), unquote(value.strip())) for name, _, value in found)
    return _require(pairs, all(name and equals for name, equals, _ in found))


def _fields(words: list[str]) -> tuple[tuple[str, str], ...]:
    """Header fields. Raises ValueError for what a header cannot contain (RFC 9110 section 5.5)."""
    pairs = _pairs(words)
    return _require(pairs, all(_FIELD_NAME.fullmatch(name) and _FIELD.fullmatch(value) for name, value in pairs))


def _name(text: str) -> str:
    name = text.strip().lower()
    return _require(name, not name or HOST.fullmatch(name))


def _accounts(entries: list[str]) -> tuple[Credentials, ...]:
    """A message names a malformed entry by its position only, because the entry may be a password."""
    accounts = []
    for position, entry in enumerate(entries, start=1):
        credentials = decode_basic(entry)
        if credentials is None or not credentials.username:
            raise Refusal(f"entry {position} is not the base64 of user:password (see encode-account)")
        accounts.append(credentials)
    if not accounts:
        raise Refusal(f"is set but contains no entry; takes {ACCOUNTS.takes}")
    return tuple(accounts)


def _operators(given: object) -> tuple[HashedLogin, ...]:
    """A message names a malformed entry by its line only, because the entry may be a password."""
    lines = given.split("\n") if isinstance(given, str) else given
    if not isinstance(lines, list | tuple) or not all(isinstance(line, str) for line in lines):
        raise ValueError
    # A comment may contain commas; a hash contains none.
    entries = [line if line.lstrip().startswith("#") else line.replace(",", "\n") for line in lines]
    try:
        return tuple(HashedLogin(user, hashed) for user, hashed in parse_htpasswd("\n".join(entries)).items())
    except ValueError as error:
        raise Refusal(f"{error}; takes {OPERATORS.takes}") from error


def _server_secret(text: str) -> Secret:
    if len(text.encode()) < _SECRET_BYTES:
        raise Refusal(f"is too short; takes {SERVER_SECRET.takes}")
    return Secret(text)


def read_htpasswd(path: Path, taken: Container[str] = ()) -> dict[str, str]:
    """The hash of each user. `taken`: the users of other settings. Raises ValueError."""
    return parse_htpasswd(read_text(path), taken)


def check_key_pair(certificate: Path | None, key: Path | None, names: tuple[str, str]) -> None:
    """Raises ValueError if one is missing or does not fit the other. `names` are the two settings."""
    if (certificate is None) != (key is None):
        raise ValueError(f"{names[0]}: takes a file together with {names[1]}, or neither")
    if certificate and key:
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password="")
        except (OSError, ValueError) as error:
            raise ValueError(
                f"{', '.join(names)}: got {str(certificate)!r}, {str(key)!r}; "
                "takes a PEM certificate and its PEM key without a passphrase"
            ) from error


def _pem_path(text: str) -> Path:
    """The path of a file that can be read."""
    try:
        check_is_file(path := Path(text))
    except FileNotFoundError as error:
        raise ValueError from error
    except OSError as error:
        raise Refusal(f"cannot be read ({error.strerror}); takes {PEM_FILE.takes}") from error
    return path


def _authorities(text: str) -> Path:
    path = _pem_path(text)
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cafile=path)
    except OSError as error:
        raise Refusal("takes a file of PEM certificates") from error
    return path


def _number_and_unit(text: str) -> tuple[float, str]:
    """Raises ValueError if the text is neither a size nor a share."""
    matched = _SIZE.fullmatch(text.strip())
    if not matched:
        raise ValueError
    return float(matched["number"]), matched["unit"].lower().removesuffix("b")


def _cache_size(text: str) -> CacheSize:
    number, unit = _number_and_unit(text)
    if unit == "%":
        if not 0 < number <= _WHOLE_PERCENT:
            raise Refusal("takes a share of the disk from 1% to 100%")
        return CacheSize(share=number / _WHOLE_PERCENT)
    size = int(number * _UNITS[unit])
    if size < _SMALLEST_CACHE:
        raise Refusal("takes 1MiB at least; CACHE_DIR=off turns the cache off")
    return CacheSize(size=size)


def shared_size(text: str) -> int:
    """Bytes."""
    number, unit = _number_and_unit(text)
    size = int(number * _UNITS[unit])  # raises KeyError for a share
    if size < _SMALLEST_CACHE:
        raise Refusal("takes 1MiB at least")
    return size


def _cache_folder(text: str) -> Path | None:
    """None for `off`."""
    if text.strip().lower() == "off":
        return None
    try:
        path = Path(text).expanduser()
    except RuntimeError as error:
        raise ValueError from error
    return _require(path, path.is_absolute())


def default_cache_folder() -> Path:
    """The folder where this platform keeps the data of a program. Raises ValueError if the user has no home."""
    try:
        return platformdirs.user_data_path(NAME, appauthor=False)
    except RuntimeError as error:
        raise ValueError(f"CACHE_DIR: is not set, and the user has no home; takes {CACHE_FOLDER.takes}") from error


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


TEXT = scalar("a text", str)
FLAG = scalar("true or false", lambda text: _FLAGS[text.lower()])
FILE = scalar("the path of a file", Path)
PEM_FILE = scalar("the path of a PEM file", _pem_path)
AUTHORITIES = scalar("the path of a PEM file", _authorities)
ADDRESS = scalar("an address such as https://registry.example.com, without user, query or fragment", _address)
ADDRESSES = several(
    "addresses such as https://registry.example.com, without user, query or fragment, separated by commas",
    lambda words: tuple(map(_address, words)),
)
PROXY = scalar("an address such as http://proxy.example.com:3128 or socks5://proxy.example.com:1080", _proxy)
HOSTS = several("hosts, each HOST or HOST:PORT, separated by commas", _hosts)
HOST_LIST = several("hosts, separated by commas", ",".join)
NETWORKS = several(
    "addresses or networks such as 10.0.0.0/8, separated by commas",
    lambda words: tuple(map(ipaddress.ip_network, words)),
)
PAIRS = several("NAME=VALUE, percent-encoded, separated by commas", _pairs)
FIELDS = several("NAME=VALUE, percent-encoded, separated by commas", _fields)
REGISTRY_NAME = scalar("a name such as registry.example.com or hub", _name)
IDENTITY = scalar("client, anonymous or service", UpstreamIdentity)
SERVICE_NAME = scalar("a name of letters, digits and ._:/-", lambda text: _require(text, _SERVICE.fullmatch(text)))
USER = scalar("a user name", lambda text: _require(text, text and ":" not in text))
PASSWORD = scalar("a password", lambda text: _require(Secret(text), text))
ACCOUNTS = several("base64 of user:password, separated by commas", _accounts)
OPERATORS = Parser("user:hash entries as htpasswd -nB prints them, separated by commas or lines", _operators)
SERVER_SECRET = scalar(f"{_SECRET_BYTES} bytes or more", _server_secret)
CACHE_FOLDER = scalar("an absolute path, or off", _cache_folder)
CACHE_SIZE = scalar("bytes, a size such as 20GiB, or a share of the disk such as 80%", _cache_size)
