"""The port to an upstream's token server."""

from dataclasses import dataclass, field
from typing import Protocol

from domain.access import Credentials, ScopeSet
from domain.challenge import Challenge
from domain.tokens import IssuedToken
from domain.upstreams import Upstream


@dataclass(frozen=True)
class TokenRequest:
    """What to ask the token server that the challenge names.

    `offline` asks for a refresh token as well; `refresh_token` is the grant instead of credentials.
    """

    upstream: Upstream
    challenge: Challenge
    scopes: ScopeSet
    credentials: Credentials | None = None
    refresh_token: str | None = field(default=None, repr=False)
    offline: bool = False
    client_id: str | None = None


class TokenRelay(Protocol):
    """Gets tokens of the upstream."""

    async def fetch(self, request: TokenRequest) -> IssuedToken:
        """The upstream's token, its lifetime completed where it was silent.

        Raises CredentialsRefused (its 401), Denied (403), RealmRefused before anything is sent to a realm that
        is not trusted, or another UpstreamFault.
        """
        ...
