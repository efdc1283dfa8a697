"""The Authorization header of a caller."""

import base64
import binascii
import re
from dataclasses import dataclass, field

from domain.access import Credentials

_BEARER = re.compile(r"[\x21-\x7e]+")


@dataclass(frozen=True)
class Basic:
    """Basic credentials (RFC 7617). `raw`: the header value as received."""

    credentials: Credentials
    raw: str = field(repr=False)


@dataclass(frozen=True)
class Bearer:
    """A Bearer token (RFC 6750 section 2.1). `raw`: the header value as received."""

    token: str = field(repr=False)
    raw: str = field(repr=False)


@dataclass(frozen=True)
class UnsupportedAuthorization:
    """Another scheme, or malformed Basic or Bearer credentials."""

    raw: str = field(repr=False)


Authorization = Basic | Bearer | UnsupportedAuthorization


def parse_authorization(raw: str | None) -> Authorization | None:
    """Parse a header value; None if there is no header."""
    if raw is None:
        return None
    scheme, _, value = raw.strip().partition(" ")
    value = value.strip()
    if scheme.lower() == "bearer" and _BEARER.fullmatch(value):
        return Bearer(value, raw)
    if scheme.lower() == "basic" and (credentials := decode_basic(value)):
        return Basic(credentials, raw)
    return UnsupportedAuthorization(raw)


def decode_basic(value: str) -> Credentials | None:
    """Decode base64 of `user:password` (RFC 7617 section 2); None if it is malformed."""
    try:
        text = base64.b64decode(value, validate=True).decode("utf-8")
    except (binascii.Error, ValueError):
        return None
    username, colon, password = text.partition(":")
    return Credentials(username, password) if colon else None


def encode_basic(credentials: Credentials) -> str:
    """The base64 text of `user:password`, without the scheme."""
    return base64.b64encode(f"{credentials.username}:{credentials.password}".encode()).decode("ascii")
