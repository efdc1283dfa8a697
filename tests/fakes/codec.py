"""A token codec whose signature is the name of the key, so that tests can read and forge tokens."""

import base64
import json
from collections.abc import Mapping

from domain.ports import SignedToken


class PlainTokenCodec:
    """Implements the TokenCodec: three parts of readable JSON, the last one the name of the key."""

    def __init__(self, key: str = "ours") -> None:
        self._key = key

    def sign(self, token_type: str, claims: Mapping[str, object]) -> str:
        return ".".join(_encode(part) for part in ({"typ": token_type}, dict(claims), self._key))

    def verify(self, text: str) -> SignedToken | None:
        parts = _decode(text)
        return self.read_unverified(text) if parts and parts[2] == self._key else None

    def read_unverified(self, text: str) -> SignedToken | None:
        parts = _decode(text)
        if not parts or not isinstance(parts[0], dict) or not isinstance(parts[1], dict):
            return None
        return SignedToken(str(parts[0].get("typ", "")), parts[1])


def _encode(part: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=")


def _decode(text: str) -> list[object] | None:
    parts = text.split(".")
    try:
        decoded = [json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))) for part in parts]
    except ValueError:
        return None
    return decoded if len(decoded) == 3 else None
