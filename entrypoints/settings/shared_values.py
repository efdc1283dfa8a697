"""The values of the settings for several replicas: the address of the shared store and that of the shared index."""

import re

from domain.redis_address import RedisAddress
from entrypoints.settings.schema import Refusal
from entrypoints.settings.values import AUTHORITIES, scalar, shared_size

_STORE_TAKES = "s3://BUCKET/PREFIX, gs://BUCKET/PREFIX, az://CONTAINER/PREFIX or file:///FOLDER, without user or query"
_INDEX_TAKES = (
    "redis://HOST:PORT/DATABASE, redis+sentinel://HOST:PORT,HOST:PORT/SERVICE or redis+cluster://HOST:PORT,HOST:PORT, "
    "with rediss for TLS, and optionally USER:PASSWORD@"
)
# Amazon, Google and Azure each allow fewer characters.
_BUCKET = r"[A-Za-z0-9][A-Za-z0-9._-]{1,220}[A-Za-z0-9]"
_NAME = r"[A-Za-z0-9._=-]{1,255}"
_STORE = re.compile(rf"(?:(?:s3|gs|az)://{_BUCKET}(?:/{_NAME}){{0,32}}|file://(?:/{_NAME}){{1,32}})/?")
_INDEX = re.compile(r"[!-~]{1,2048}")
_SHOWN = re.compile(
    r"(?P<scheme>[A-Za-z0-9+.-]{1,20})://(?P<login>.*@)?(?P<rest>[^@?#]*)(?P<query>[?#][^@]*)?", re.DOTALL
)
_NO_PORT = re.compile(r":(?![0-9]{1,5}(?:[,/]|\Z))[^,/]*")


def _store_address(text: str) -> str:
    """The address without the slash at its end."""
    if not _STORE.fullmatch(text) or {".", ".."} & set(text.split("/")):
        raise Refusal(f"got {_without_secrets(text)!r}; takes {_STORE_TAKES}")
    return text.rstrip("/")


def _index_address(text: str) -> RedisAddress:
    if not _INDEX.fullmatch(text):
        raise Refusal(f"got {_without_secrets(text)!r}; takes {_INDEX_TAKES}")
    try:
        address = RedisAddress.parse(text)
        if address.ca_file:
            AUTHORITIES.parse(address.ca_file)
    except ValueError as error:
        reason = str(error) or f"ca_file takes {AUTHORITIES.takes}"
        raise Refusal(f"got {_without_secrets(text)!r}; {reason}; takes {_INDEX_TAKES}") from error
    return address


def _without_secrets(text: str) -> str:
    """What a message can repeat of an address: no login, no query, and nothing of a text that is no address."""
    matched = _SHOWN.fullmatch(text)
    if not matched:
        return "***"
    # If the host is missing, what follows the user name is the password, not a port.
    rest = _NO_PORT.sub(":***", matched["rest"])
    return f"{matched['scheme']}://{'***@' if matched['login'] else ''}{rest[:200]}{'?***' if matched['query'] else ''}"


STORE_ADDRESS = scalar(_STORE_TAKES, _store_address)
INDEX_ADDRESS = scalar(_INDEX_TAKES, _index_address)
SHARED_SIZE = scalar("bytes, or a size such as 500GiB", shared_size)
