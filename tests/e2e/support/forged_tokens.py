"""Forged tokens, made from a valid one."""

import base64
import json
import time
from typing import Any

from joserfc import jwt
from joserfc.jwk import OctKey, RSAKey

from tests.e2e.support.service import SECRET


def parts(token: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Header and claims of the part that the mirror signed, unverified."""
    header, claims, _ = token.partition("~")[0].split(".")
    return _decode(header), _decode(claims)


def resigned(token: str, secret: str = SECRET, **changes: Any) -> str:
    """The same token with these claims changed, signed again; what follows the `~` stays."""
    header, claims = parts(token)
    key = OctKey.import_key(secret.encode())
    signed = jwt.encode(header, {**claims, **changes}, key, algorithms=["HS256"])
    return signed + "".join(token.partition("~")[1:])


def expired(token: str) -> str:
    now = int(time.time())
    return resigned(token, iat=now - 7200, nbf=now - 7200, exp=now - 3600)


def unsigned(token: str) -> str:
    header, claims = parts(token)
    signed_part = f"{_encode({**header, 'alg': 'none'})}.{_encode(claims)}."
    return signed_part + "".join(token.partition("~")[1:])


def altered(token: str, other: str) -> str:
    """The claims of one token with the signature of another."""
    header, _, signature = token.partition("~")[0].split(".")
    claims = other.partition("~")[0].split(".")[1]
    return f"{header}.{claims}.{signature}" + "".join(token.partition("~")[1:])


def strangers(token: str) -> str:
    """The same claims with an RSA signature of an unknown key."""
    key = RSAKey.generate_key(2048)
    return jwt.encode({"alg": "RS256", "typ": "JWT"}, parts(token)[1], key, algorithms=["RS256"])


def _decode(part: str) -> dict[str, Any]:
    return dict(json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))))


def _encode(value: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()
