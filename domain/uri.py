"""Addresses that an upstream wrote, made legal."""

import re

# RFC 3986 section 2: reserved and unreserved characters, and the percent sign.
_LEGAL = re.compile(r"[A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=%]*")
_ILLEGAL = re.compile(rb"[^A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=%]")


def is_legal(text: str) -> bool:
    """Whether each character may stand in an address (RFC 3986 section 2)."""
    return _LEGAL.fullmatch(text) is not None


def percent_encoded(text: str) -> str:
    """The address with its illegal characters percent-encoded (RFC 3986 section 2.1): spaces, quotes, control
    characters and others, and the bytes of non-ASCII ones as they came. Nothing else is changed, for a signed address
    is good as it was written only.
    """
    if is_legal(text):
        return text
    # Header fields are read as UTF-8, with surrogates for bytes that are none.
    raw = text.encode("utf-8", "surrogateescape")
    return _ILLEGAL.sub(lambda found: b"%%%02X" % ord(found[0]), raw).decode("ascii")
