"""TokenVerifier: determines the kind of a token and verifies the mirror's tokens."""

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import replace

from domain.access import Scope, ScopeSet
from domain.ports import Clock, TokenCodec
from domain.token_issuer import countersigned_audience
from domain.tokens import (
    ACCOUNT_STAMP_CLAIM,
    COUNTERSIGNED_TYPE,
    OWN_TYPE,
    SEPARATOR,
    UPSTREAM_CLAIM,
    UPSTREAM_HASH_CLAIM,
    TokenKind,
    TokenRejected,
    VerifiedToken,
)


class TokenVerifier:
    """Verifies the text of tokens. It checks neither accounts nor the requested resource."""

    def __init__(self, issuer: str, clock: Clock, codec: TokenCodec) -> None:
        self._issuer = issuer
        self._clock = clock
        self._codec = codec

    def kind_of(self, text: str) -> TokenKind:
        """The kind of token, from the unverified issuer. Use it only to select the check."""
        signed, separator, _ = text.partition(SEPARATOR)
        claimed = self._codec.read_unverified(signed)
        if claimed is None or claimed.claims.get("iss") != self._issuer:
            return TokenKind.FOREIGN
        return TokenKind.COUNTERSIGNED if separator else TokenKind.OURS

    def verify_own(self, text: str) -> VerifiedToken:
        """Verify a token that the mirror signed. Raises TokenRejected."""
        return self._verify(text, OWN_TYPE, self._issuer)[0]

    def verify_countersigned(self, text: str) -> VerifiedToken:
        """Verify a countersigned token and that its two parts belong together. Raises TokenRejected."""
        signed, _, upstream = text.partition(SEPARATOR)
        token, claims = self._verify(signed, COUNTERSIGNED_TYPE, countersigned_audience(self._issuer))
        actual = hashlib.sha256(upstream.encode()).hexdigest()
        if not hmac.compare_digest(actual, str(claims.get(UPSTREAM_HASH_CLAIM, ""))):
            raise TokenRejected("invalid_token", "the upstream's token does not match the countersignature")
        registry = claims.get(UPSTREAM_CLAIM)
        return replace(token, upstream_token=upstream, upstream=registry if isinstance(registry, str) else None)

    def was_issued_for(self, text: str, needed: ScopeSet) -> bool:
        """Whether a token that the upstream rejected for `needed` was issued for exactly these resources. Then a new
        token would be rejected too.

        A countersigned token was: otherwise the mirror would have rejected it. A foreign token states its resources in
        its `access` claim (distribution, spec/auth/jwt.md). The claim is not verified: at worst, a wrong one makes the
        client give up.
        """
        signed, separator, _ = text.partition(SEPARATOR)
        claimed = self._codec.read_unverified(signed)
        if claimed is None:
            return False
        if separator and claimed.claims.get("iss") == self._issuer:
            return True
        names = {scope.name for scope in needed}
        access = claimed.claims.get("access", "")
        entries = [] if access is None else access
        return isinstance(entries, list) and all(
            isinstance(entry, dict) and entry.get("name") in names for entry in entries
        )

    def _verify(self, text: str, token_type: str, audience: str) -> tuple[VerifiedToken, Mapping[str, object]]:
        signed = self._codec.verify(text)
        if signed is None:
            raise TokenRejected("invalid_token", "the token does not have a valid signature of this service")
        claims, now = signed.claims, self._clock.now()
        begins, ends, account = claims.get("nbf"), claims.get("exp"), claims.get("sub")
        if (signed.token_type, claims.get("iss"), claims.get("aud")) != (token_type, self._issuer, audience):
            raise TokenRejected(
                "invalid_token", "the token has a different type, issuer or audience than required here"
            )
        if not isinstance(begins, int) or not isinstance(ends, int) or not isinstance(account, str):
            raise TokenRejected("invalid_token", "the token lacks a required claim")
        if not begins <= now < ends:
            raise TokenRejected("invalid_token", "the token is expired or not valid yet")
        stamp = claims.get(ACCOUNT_STAMP_CLAIM)
        token = VerifiedToken(account, _scopes(claims.get("access")), ends)
        return replace(token, account_stamp=stamp) if isinstance(stamp, str) else token, claims


def _scopes(access: object) -> ScopeSet:
    """The scopes of the `access` claim. The signature was verified, so the mirror wrote the claim."""
    entries = access if isinstance(access, list) else []
    return ScopeSet.of(
        Scope(entry["type"], entry["name"], frozenset(entry["actions"]), entry.get("class", "")) for entry in entries
    )
