"""RelayedTokens: the upstream's tokens for callers, and what stands in for them while there are none to be had."""

from collections.abc import Coroutine
from typing import Any

from application.access.access_request import RelayedLogin
from application.access.caller import CallerIdentities
from application.access.grants import Grants
from application.access.relayed_logins import RelayedLogins
from application.concurrency import SingleFlight
from application.ports.upstream import TokenRelay, TokenRequest
from application.upstreams.outages import Outages
from domain.access import ScopeSet
from domain.tokens import IssuedToken
from domain.upstreams import Source, Upstream


class RelayedTokens:
    """Joins equal requests with equal credentials, and remembers the caller of each token that the upstream gave."""

    def __init__(
        self, relay: TokenRelay, callers: CallerIdentities, grants: Grants, outages: Outages, logins: RelayedLogins
    ) -> None:
        self._relay = relay
        self._callers = callers
        self._grants = grants
        self._outages = outages
        self._logins = logins
        self._joined = SingleFlight()

    async def fetch(self, request: TokenRequest, address: str, *, has_stand_in: bool) -> IssuedToken:
        """The token, for a client at `address`. With a stand-in, the wait for an unresponsive upstream is short.

        Raises what the relay raises, and TooManyAttempts. A request without a login is never slowed.
        """
        secret = request.credentials or request.refresh_token

        def ask() -> Coroutine[Any, Any, IssuedToken]:
            return self._outages.attempt(
                request.upstream,
                self._callers.caller_of(secret),
                lambda: self._joined.do(request, lambda: self._fetch(request)),
                has_stand_in=has_stand_in,
            )

        if secret is None:
            return await ask()
        return await self._logins.attempt(RelayedLogin(request.upstream, secret, address), ask)

    async def public(self, wanted: ScopeSet, upstream: Upstream) -> ScopeSet:
        """Those of the wanted scopes that the upstream recently gave to anonymous callers."""
        names = [(scope, scope.repository) for scope in wanted]
        return ScopeSet(
            tuple([scope for scope, name in names if name and await self._grants.is_public(Source(upstream, name))])
        )

    async def _fetch(self, request: TokenRequest) -> IssuedToken:
        token = await self._relay.fetch(request)
        await self._callers.remember(request.credentials or request.refresh_token, token)
        return token
