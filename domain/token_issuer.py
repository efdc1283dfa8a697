"""TokenIssuer: signs the mirror's tokens and countersigns tokens of the upstream."""

import hashlib

from domain.access import Account, Scope, ScopeSet
from domain.ports import Clock, TokenCodec
from domain.tokens import (
    ACCOUNT_STAMP_CLAIM,
    COUNTERSIGNED_TYPE,
    OWN_TYPE,
    SEPARATOR,
    UPSTREAM_CLAIM,
    UPSTREAM_HASH_CLAIM,
    IssuedToken,
)
from domain.upstreams import Upstream


class TokenIssuer:
    """Issues tokens with the claims of distribution's spec/auth/jwt.md.

    `lifetime`: seconds; clients rely on at least 60.
    """

    def __init__(self, issuer: str, clock: Clock, codec: TokenCodec, lifetime: int) -> None:
        self._issuer = issuer
        self._clock = clock
        self._codec = codec
        self._lifetime = lifetime

    def issue(self, account: Account, scopes: ScopeSet) -> IssuedToken:
        """A token of the mirror for the account and the scopes."""
        now = int(self._clock.now())
        claims = self._claims(account, scopes, now, self._lifetime) | {"aud": self._issuer}
        return IssuedToken(self._codec.sign(OWN_TYPE, claims), self._lifetime, now, scopes)

    def countersign(
        self, account: Account, scopes: ScopeSet, upstream: Upstream, token: IssuedToken | None
    ) -> IssuedToken:
        """The upstream's token with a signed statement that this account may use it for these scopes.

        The statement comes first, because an upstream's token may end in `=`. It expires with the upstream's token.
        `token` is None if the upstream could not issue one: then the account may read public content.
        """
        now = int(self._clock.now())
        token = token or IssuedToken("", self._lifetime, now)
        remaining = max(0, token.issued_at + token.expires_in - now)
        claims = self._claims(account, scopes, now, remaining) | {
            "aud": countersigned_audience(self._issuer),
            UPSTREAM_HASH_CLAIM: hashlib.sha256(token.text.encode()).hexdigest(),
            UPSTREAM_CLAIM: upstream.url,
        }
        text = f"{self._codec.sign(COUNTERSIGNED_TYPE, claims)}{SEPARATOR}{token.text}"
        return IssuedToken(text, remaining, now, scopes)

    def _claims(self, account: Account, scopes: ScopeSet, now: int, lifetime: int) -> dict[str, object]:
        claims = {
            "iss": self._issuer,
            "sub": account.name,
            "iat": now,
            "nbf": now,
            "exp": now + lifetime,
            "access": [_access(scope) for scope in scopes if not scope.is_opaque],
        }
        return claims | {ACCOUNT_STAMP_CLAIM: account.stamp} if account.stamp else claims


def _access(scope: Scope) -> dict[str, object]:
    entry: dict[str, object] = {
        "type": scope.resource_type,
        "name": scope.name,
        "actions": sorted(scope.actions),
    }
    return entry | {"class": scope.resource_class} if scope.resource_class else entry


def countersigned_audience(issuer: str) -> str:
    """The `aud` of a countersignature. It differs from that of an own token, so one cannot be used as the other."""
    return f"{issuer}/countersigned"
