"""The mirror's tokens: TokenIssuer signs them, TokenVerifier verifies them."""

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Literal

from domain.access import Account, Scope, ScopeSet
from domain.ports import Clock, TokenCodec
from domain.upstreams import Upstream
from domain.value import Value

_OWN_TYPE = "JWT"
_COUNTERSIGNED_TYPE = "countersigned+jwt"
_SEPARATOR = "~"
"""Separates the signed part from the upstream's token. A JWS does not contain this character (RFC 7515)."""
_UPSTREAM_HASH_CLAIM = "upstream_token_sha256"
_UPSTREAM_CLAIM = "upstream"
_ACCOUNT_STAMP_CLAIM = "account_stamp"
"""Account.stamp when the token was signed. A private claim (RFC 7519 section 4.3)."""

TokenError = Literal["invalid_token", "insufficient_scope"]
TokenKind = Enum("TokenKind", ["OURS", "COUNTERSIGNED", "FOREIGN"])
"""The apparent kind of a token. It says nothing about the token's validity."""


@dataclass(frozen=True)
class IssuedToken:
    """A token for a client. `expires_in`: seconds; `issued_at`: seconds since 1970; `refresh_token`: only if relayed
    from an upstream.
    """

    text: str = field(repr=False)
    expires_in: int
    issued_at: int
    scopes: ScopeSet = field(default_factory=ScopeSet)
    refresh_token: str | None = field(default=None, repr=False)


@dataclass(frozen=True)
class VerifiedToken:
    """A verified token of the mirror. `upstream_token`: the upstream's part of a countersigned token; `upstream`: its
    URL; `account_stamp`: the stamp of the account when the token was signed.
    """

    account: str
    scopes: ScopeSet
    expires_at: int
    upstream_token: str | None = field(default=None, repr=False)
    upstream: str | None = None
    account_stamp: str = field(default="", compare=False, repr=False)

    def require(self, needed: ScopeSet) -> None:
        """Raises TokenRejected unless the token covers at least one of the scopes, or `needed` is empty."""
        if needed and not any(map(self.scopes.cover, needed)):
            raise TokenRejected("insufficient_scope", "the token does not cover the requested scope")


@dataclass(eq=False, repr=False)
class TokenRejected(Exception):
    """The token is not valid for the request. `error`: the parameter of the challenge (RFC 6750 section 3.1)."""

    error: TokenError
    reason: str


class TokenIssuer(Value, frozen=True):
    """Issues tokens with the claims of distribution's spec/auth/jwt.md.

    `lifetime`: seconds; clients rely on at least 60.
    """

    issuer: str
    clock: Clock
    codec: TokenCodec
    lifetime: int

    def issue(self, account: Account, scopes: ScopeSet) -> IssuedToken:
        """A token of the mirror for the account and the scopes."""
        now = int(self.clock.now())
        claims = self._claims(account, scopes, now, self.lifetime) | {"aud": self.issuer}
        return IssuedToken(self.codec.sign(_OWN_TYPE, claims), self.lifetime, now, scopes)

    def countersign(
        self, account: Account, scopes: ScopeSet, upstream: Upstream, token: IssuedToken | None
    ) -> IssuedToken:
        """The upstream's token with a signed statement that this account may use it for these scopes.

        The statement comes first, because an upstream's token may end in `=`. It expires with the upstream's token.
        `token` is None if the upstream could not issue one: then the account may read public content.
        """
        now = int(self.clock.now())
        token = token or IssuedToken("", self.lifetime, now)
        remaining = max(0, token.issued_at + token.expires_in - now)
        claims = self._claims(account, scopes, now, remaining) | {
            "aud": countersigned_audience(self.issuer),
            _UPSTREAM_HASH_CLAIM: hashlib.sha256(token.text.encode()).hexdigest(),
            _UPSTREAM_CLAIM: upstream.url,
        }
        text = f"{self.codec.sign(_COUNTERSIGNED_TYPE, claims)}{_SEPARATOR}{token.text}"
        return IssuedToken(text, remaining, now, scopes)

    def _claims(self, account: Account, scopes: ScopeSet, now: int, lifetime: int) -> dict[str, object]:
        claims = {
            "iss": self.issuer,
            "sub": account.name,
            "iat": now,
            "nbf": now,
            "exp": now + lifetime,
            "access": [_access(scope) for scope in scopes if not scope.is_opaque],
        }
        return claims | {_ACCOUNT_STAMP_CLAIM: account.stamp} if account.stamp else claims


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


class TokenVerifier(Value, frozen=True):
    """Verifies the text of tokens. It checks neither accounts nor the requested resource."""

    issuer: str
    clock: Clock
    codec: TokenCodec

    def kind_of(self, text: str) -> TokenKind:
        """The kind of token, from the unverified issuer. Use it only to select the check."""
        signed, separator, _ = text.partition(_SEPARATOR)
        claimed = self.codec.read_unverified(signed)
        if claimed is None or claimed.claims.get("iss") != self.issuer:
            return TokenKind.FOREIGN
        return TokenKind.COUNTERSIGNED if separator else TokenKind.OURS

    def verify_own(self, text: str) -> VerifiedToken:
        """Verify a token that the mirror signed. Raises TokenRejected."""
        return self._verify(text, _OWN_TYPE, self.issuer)[0]

    def verify_countersigned(self, text: str) -> VerifiedToken:
        """Verify a countersigned token and that its two parts belong together. Raises TokenRejected."""
        signed, _, upstream = text.partition(_SEPARATOR)
        token, claims = self._verify(signed, _COUNTERSIGNED_TYPE, countersigned_audience(self.issuer))
        actual = hashlib.sha256(upstream.encode()).hexdigest()
        if not hmac.compare_digest(actual, str(claims.get(_UPSTREAM_HASH_CLAIM, ""))):
            raise TokenRejected("invalid_token", "the upstream's token does not match the countersignature")
        return replace(token, upstream_token=upstream, upstream=str(claims.get(_UPSTREAM_CLAIM)))

    def was_issued_for(self, text: str, needed: ScopeSet) -> bool:
        """Whether a token that the upstream rejected for `needed` was issued for exactly these resources. Then a new
        token would be rejected too.

        A countersigned token was always issued for them, because the mirror checks its scopes before it sends the
        request upstream. A foreign token states its resources in its `access` claim (distribution, spec/auth/jwt.md).
        The claim is not verified: at worst, a wrong one makes the client give up.
        """
        signed, separator, _ = text.partition(_SEPARATOR)
        claimed = self.codec.read_unverified(signed)
        if claimed is None:
            return False
        if separator and claimed.claims.get("iss") == self.issuer:
            return True
        names = {scope.name for scope in needed}
        access = claimed.claims.get("access", "")
        return access is None or (
            isinstance(access, list) and all(isinstance(entry, dict) and entry.get("name") in names for entry in access)
        )

    def _verify(self, text: str, token_type: str, audience: str) -> tuple[VerifiedToken, Mapping[str, object]]:
        signed = self.codec.verify(text)
        if signed is None:
            raise TokenRejected("invalid_token", "the token does not have a valid signature of this service")
        claims, now = signed.claims, self.clock.now()
        begins, ends, account = claims.get("nbf"), claims.get("exp"), claims.get("sub")
        if (signed.token_type, claims.get("iss"), claims.get("aud")) != (token_type, self.issuer, audience):
            raise TokenRejected(
                "invalid_token", "the token has a different type, issuer or audience than required here"
            )
        if not isinstance(begins, int) or not isinstance(ends, int) or not isinstance(account, str):
            raise TokenRejected("invalid_token", "the token lacks a required claim")
        if not begins <= now < ends:
            raise TokenRejected("invalid_token", "the token is expired or not valid yet")
        stamp = str(claims.get(_ACCOUNT_STAMP_CLAIM, ""))
        return VerifiedToken(account, _scopes(claims.get("access")), ends, account_stamp=stamp), claims


def _scopes(access: object) -> ScopeSet:
    """The scopes of the `access` claim. The signature was verified, so the mirror wrote the claim."""
    entries = access if isinstance(access, list) else []
    return ScopeSet.of(
        Scope(entry["type"], entry["name"], frozenset(entry["actions"]), entry.get("class", "")) for entry in entries
    )
