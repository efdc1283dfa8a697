"""Compact JWS with a fixed algorithm and a fixed key. The header of a token never selects the algorithm or the key.

The standard library computes the one algorithm, HS256. The import of a JOSE library, with all its algorithms, would
take a tenth of the start, and 9 MiB of memory.
"""

import base64
import hmac
import json
from collections.abc import Mapping

from domain.documents import parse_object
from domain.ports import SignedToken

_ALGORITHM = "HS256"
_PARTS = 3


class JwsTokenCodec:
    """Implements TokenCodec. `secret`: at least 32 bytes (RFC 7518 section 3.2)."""

    def __init__(self, secret: bytes) -> None:
        # A function, so that the secret is in no attribute that could be printed.
        self._digest = hmac.new(secret, digestmod="sha256").copy

    def sign(self, token_type: str, claims: Mapping[str, object]) -> str:
        header = json.dumps({"alg": _ALGORITHM, "typ": token_type}, separators=(",", ":"))
        payload = json.dumps(dict(claims), separators=(",", ":"))
        signed = f"{_encode(header.encode())}.{_encode(payload.encode())}"
        return f"{signed}.{self._signature(signed)}"

    def verify(self, text: str) -> SignedToken | None:
        header = _header(text)
        # Tokens of this service have exactly these two fields. Others, such as `crit`, can change how to read a token.
        if header is None or header.keys() != {"alg", "typ"} or header["alg"] != _ALGORITHM:
            return None
        signed, _, signature = text.rpartition(".")
        # The text of the signature is compared: lax decoders accept several texts for the same bytes.
        if not text.isascii() or not hmac.compare_digest(signature, self._signature(signed)):
            return None
        return self.read_unverified(text)

    def read_unverified(self, text: str) -> SignedToken | None:
        header = _header(text)
        if header is None:
            return None
        try:
            return _signed_token(header, _decode(text.split(".")[1]))
        except ValueError:
            return None

    def _signature(self, signed: str) -> str:
        """RFC 7515 section 5.1."""
        digest = self._digest()
        digest.update(signed.encode())
        return _encode(digest.digest())


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


def _encode(part: bytes) -> str:
    """base64url without padding (RFC 7515 section 2)."""
    return base64.urlsafe_b64encode(part).rstrip(b"=").decode()


def _decode(part: str) -> bytes:
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
