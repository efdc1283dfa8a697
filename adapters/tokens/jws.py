"""Compact JWS with a fixed algorithm and a fixed key. The header of a token never selects the algorithm or the key."""

import base64
import json
from collections.abc import Mapping

from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import OctKey

from domain.documents import parse_object
from domain.ports import SignedToken

_ALGORITHM = "HS256"
_PARTS = 3


class JwsTokenCodec:
    """Implements TokenCodec. `secret`: at least 32 bytes (RFC 7518 section 3.2)."""

    def __init__(self, secret: bytes) -> None:
        self._key = OctKey.import_key(secret)

    def sign(self, token_type: str, claims: Mapping[str, object]) -> str:
        payload = json.dumps(dict(claims), separators=(",", ":"))
        return jws.serialize_compact({"alg": _ALGORITHM, "typ": token_type}, payload, self._key)

    def verify(self, text: str) -> SignedToken | None:
        header = _header(text)
        # Tokens of this service have exactly these two fields; joserfc fails on some values of other fields.
        if header is None or header.keys() != {"alg", "typ"}:
            return None
        try:
            token = jws.deserialize_compact(text, self._key, algorithms=[_ALGORITHM])
        except (JoseError, ValueError, TypeError):
            return None
        return _signed_token(header, token.payload)

    def read_unverified(self, text: str) -> SignedToken | None:
        header = _header(text)
        if header is None:
            return None
        try:
            return _signed_token(header, _decode(text.split(".")[1]))
        except ValueError:
            return None


def _header(text: str) -> dict[str, object] | None:
    parts = text.split(".")
    if len(parts) != _PARTS:
        return None
    try:
        return parse_object(_decode(parts[0]))
    except ValueError:
        return None


def _signed_token(header: dict[str, object], payload: bytes) -> SignedToken | None:
    claims = parse_object(payload)
    return None if claims is None else SignedToken(str(header.get("typ", "")), claims)


def _decode(part: str) -> bytes:
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
