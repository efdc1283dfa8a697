"""Tokens as values: what they claim, what is issued, what was verified."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Literal

from domain.access import ScopeSet

OWN_TYPE = "JWT"
COUNTERSIGNED_TYPE = "countersigned+jwt"
SEPARATOR = "~"
"""Stands between our signature and the upstream's token; no character of a JWS (RFC 7515)."""
UPSTREAM_HASH_CLAIM = "upstream_token_sha256"
UPSTREAM_CLAIM = "upstream"
ACCOUNT_STAMP_CLAIM = "account_stamp"
"""Account.stamp when the token was signed. A private claim (RFC 7519 section 4.3)."""

TokenError = Literal["invalid_token", "insufficient_scope"]


class TokenKind(Enum):
    """Whose token a text seems to be; says nothing about whether it is good."""

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
    """A token on its way to a client. `expires_in` is in seconds, `issued_at` in seconds since 1970.

    `refresh_token` is only ever an upstream's, relayed.
    """

    text: str = field(repr=False)
    expires_in: int
    issued_at: int
    scopes: ScopeSet = field(default_factory=ScopeSet)
    refresh_token: str | None = field(default=None, repr=False)


@dataclass(frozen=True)
class VerifiedToken:
    """What a good token of ours says. `upstream_token` is the other half of a countersigned one, `upstream` the address
    of the registry that it is for, `account_stamp` the account's stamp when the token was signed.
    """

    account: str
    scopes: ScopeSet
    expires_at: int
    upstream_token: str | None = field(default=None, repr=False)
    upstream: str | None = None
    account_stamp: str = field(default="", compare=False, repr=False)

    def require(self, needed: ScopeSet) -> None:
        """`needed` are the scopes by which what is wanted goes: a token for one of them is good; any, where there are
        none. Raises TokenRejected.
        """
        if needed and not any(map(self.scopes.cover, needed)):
            raise TokenRejected("insufficient_scope", "the token does not cover the requested scope")


class TokenRejected(Exception):
    """The token is not good for this; `error` is the challenge's parameter (RFC 6750 section 3.1)."""

    def __init__(self, error: TokenError, reason: str) -> None:
        super().__init__(reason)
        self.error: TokenError = error
        self.reason = reason
