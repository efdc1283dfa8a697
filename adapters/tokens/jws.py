"""Compact JWS with one fixed algorithm and one fixed key; what a token's own header says chooses nothing."""

import base64
import json
from collections.abc import Mapping

from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import OctKey

from domain.documents import parse_json
from domain.tokens import SignedToken

_ALGORITHM = "HS256"
_PARTS = 3


class JwsTokenCodec:
    """Plays the TokenCodec. `secret` has 32 bytes at least (RFC 7518 section 3.2)."""

    def __init__(self, secret: bytes) -> None:
        self._key = OctKey.import_key(secret)

    def sign(self, token_type: str, claims: Mapping[str, object]) -> str:
        payload = json.dumps(dict(claims), separators=(",", ":"))
        return jws.serialize_compact({"alg": _ALGORITHM, "typ": token_type}, payload, self._key)

    def verify(self, text: str) -> SignedToken | None:
        try:
            token = jws.deserialize_compact(text, self._key, algorithms=[_ALGORITHM])
        except (JoseError, ValueError):
            return None
        return _signed_token(token.headers(), token.payload)

    def peek(self, text: str) -> SignedToken | None:
        parts = text.split(".")
        if len(parts) != _PARTS:
            return None
        try:
            header, payload = (_decode(part) for part in parts[:2])
            return _signed_token(parse_json(header), payload)
        except ValueError:
            return None


def _signed_token(header: object, payload: bytes) -> SignedToken | None:
    try:
        claims = parse_json(payload)
    except ValueError:
        return None
    if not isinstance(header, dict) or not isinstance(claims, dict):
        return None
    return SignedToken(str(header.get("typ", "")), claims)


def _decode(part: str) -> bytes:
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
