"""Token values: signed, issued and verified tokens."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Literal

from domain.access import ScopeSet

OWN_TYPE = "JWT"
COUNTERSIGNED_TYPE = "countersigned+jwt"
SEPARATOR = "~"
"""Separates the signed part from the upstream's token. A JWS does not contain this character (RFC 7515)."""
UPSTREAM_HASH_CLAIM = "upstream_token_sha256"
UPSTREAM_CLAIM = "upstream"
ACCOUNT_STAMP_CLAIM = "account_stamp"
"""Account.stamp when the token was signed. A private claim (RFC 7519 section 4.3)."""

TokenError = Literal["invalid_token", "insufficient_scope"]


class TokenKind(Enum):
    """The apparent kind of a token. It says nothing about the token's validity."""

    OURS = auto()
    COUNTERSIGNED = auto()
    FOREIGN = auto()


@dataclass(frozen=True)
class SignedToken:
    """The `typ` header and the claims of a JWS."""

    token_type: str
    claims: Mapping[str, object]


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


class TokenRejected(Exception):
    """The token is not valid for the request. `error`: the parameter of the challenge (RFC 6750 section 3.1)."""

    def __init__(self, error: TokenError, reason: str) -> None:
        super().__init__(reason)
        self.error: TokenError = error
        self.reason = reason
