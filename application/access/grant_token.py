"""GrantToken: the token endpoint /v2/auth. It issues the mirror's own token, the upstream's, or a countersigned one."""

from collections.abc import Coroutine
from dataclasses import dataclass, field, replace
from typing import Any

from application.access.access_request import RelayedLogin
from application.access.caller import CallerIdentities
from application.access.check_login import CheckLogin
from application.access.grants import Grants
from application.access.refusals import REFUSED_UPSTREAM
from application.access.relayed_logins import RelayedLogins
from application.access.upstream_auth import UpstreamAuthCache
from application.concurrency import SingleFlight
from application.ports.telemetry import current_record
from application.ports.upstream import TokenRelay, TokenRequest
from application.upstreams.outages import Outages
from domain.access import ANONYMOUS_ACCOUNT, NO_SCOPES, Account, Credentials, ScopeSet
from domain.account_policy import AccountPolicy
from domain.errors import CredentialsRejected, Denied, TokenEndpointAbsent, UpstreamUnavailable
from domain.tokens import IssuedToken, TokenIssuer
from domain.trust import TokenEndpoint, TrustRow
from domain.upstream_table import NO_HINT, RegistryHint, UpstreamTable
from domain.upstreams import Source, Upstream


@dataclass(frozen=True)
class TokenQuery:
    """A request to the token endpoint, by GET or POST.

    `offline`: the client also wants a refresh token; `refresh_token`: sent instead of credentials; `has_other_login`:
    the request has an Authorization header that is not Basic; `address`: the client's address.
    """

    service: str | None = None
    scopes: ScopeSet = NO_SCOPES
    credentials: Credentials | None = None
    refresh_token: str | None = field(default=None, repr=False)
    offline: bool = False
    client_id: str | None = None
    has_other_login: bool = False
    hint: RegistryHint = NO_HINT
    address: str = ""


class RelayedTokens:
    """Fetches the upstream's tokens for callers, and remembers the caller of each token. Equal requests share one
    fetch while it runs.
    """

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
        """The token for a client at `address`. `has_stand_in`: another token can be issued instead, so the wait for the
        upstream is short.

        Raises what the relay raises, and TooManyAttempts. A request without a login is never slowed down.
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
        """The part of the wanted scopes that the upstream recently gave to anonymous callers."""
        return ScopeSet(
            tuple(
                [
                    scope
                    for scope in wanted
                    if (name := scope.repository) and await self._grants.is_public(Source(upstream, name))
                ]
            )
        )

    async def _fetch(self, request: TokenRequest) -> IssuedToken:
        token = await self._relay.fetch(request)
        await self._callers.remember(request.credentials or request.refresh_token, token)
        return token


class GrantToken:
    """The trust row decides. The parameter `service` alone does not, because every client can set it."""

    def __init__(
        self,
        upstream_auth: UpstreamAuthCache,
        policy: AccountPolicy,
        accounts: CheckLogin,
        issuer: TokenIssuer,
        relayed: RelayedTokens,
        upstreams: UpstreamTable,
        service: str,
    ) -> None:
        self._upstream_auth = upstream_auth
        self._policy = policy
        self._accounts = accounts
        self._issuer = issuer
        self._relayed = relayed
        self._upstreams = upstreams
        self._service = service

    async def __call__(self, query: TokenQuery) -> IssuedToken:
        """The token for the upstream that the scopes name.

        Raises TokenEndpointAbsent, CredentialsRejected, TooManyAttempts, or the error of the upstream's token server.
        """
        upstream, wanted = self._upstreams.login_of(query.scopes, query.hint)
        row, auth = await self._upstream_auth.row(upstream, of_host=True)
        if row.endpoint is TokenEndpoint.ABSENT:
            raise TokenEndpointAbsent("this mirror issues no tokens: authenticate as the challenge of GET /v2/ asks")
        if query.has_other_login:
            # If it were ignored, a user who has logged in would get an anonymous token without noticing.
            raise CredentialsRejected("the token endpoint accepts only Basic credentials")
        account = await self._check_account(row, query)
        challenge = auth.bearer if row.relays else None
        # `service` is the service name of the mirror. If the upstream uses the same name, the request counts as one for
        # the upstream. (Node K2 in docs/explanation/seed.md.)
        is_for_mirror = query.service == self._service and (not challenge or challenge.get("service") != self._service)
        if challenge is None or (row.endpoint is TokenEndpoint.RELAY and is_for_mirror):
            return self._issuer.issue(account, self._granted(query, wanted))
        request = TokenRequest(upstream, challenge, wanted, query.credentials)
        if row.endpoint is TokenEndpoint.RELAY:
            return await self._from_upstream(query, request)
        return await self._countersigned(query, request, account)

    def _granted(self, query: TokenQuery, wanted: ScopeSet) -> ScopeSet:
        """The scopes of the mirror's token: with the names of the upstream, and with the client's names, which may
        belong to any upstream behind the host name.
        """
        return self._policy.permit(ScopeSet.of((*wanted, *query.scopes)))

    async def _check_account(self, row: TrustRow, query: TokenQuery) -> Account:
        if not row.checks_accounts:
            return ANONYMOUS_ACCOUNT
        if query.credentials is None:
            raise CredentialsRejected("this mirror requires an account: log in with a user name and a password")
        account = await self._accounts(query.credentials, query.address)
        if account is None:
            raise CredentialsRejected("wrong user name or password")
        current_record().account = account.name
        return account

    async def _from_upstream(self, query: TokenQuery, request: TokenRequest) -> IssuedToken:
        public = await self._relayed.public(self._policy.permit(request.scopes), request.upstream)
        request = replace(request, refresh_token=query.refresh_token, offline=query.offline, client_id=query.client_id)
        try:
            return await self._relayed.fetch(request, query.address, has_stand_in=bool(public))
        except UpstreamUnavailable:
            if not public:
                raise
            # The credentials cannot be checked now, so the token gives access to public content only.
            return self._issuer.issue(ANONYMOUS_ACCOUNT, public)

    async def _countersigned(self, query: TokenQuery, request: TokenRequest, account: Account) -> IssuedToken:
        if query.refresh_token:
            # Countersigned tokens have no refresh token. This one is from a time when the row was another one. If it
            # were ignored, the client would get an anonymous token.
            raise CredentialsRejected("the token endpoint does not accept refresh tokens here: log in again")
        granted, upstream = self._granted(query, request.scopes), request.upstream
        request = replace(request, scopes=self._policy.permit(request.scopes), client_id=query.client_id)
        public, is_shared = await self._relayed.public(request.scopes, upstream), upstream.trust.shares_host
        has_stand_in = bool(public) or (is_shared and query.credentials is None)
        # The other upstreams behind a shared host name stay available if this one refuses the login or fails.
        stand_in = granted if is_shared else public
        try:
            token = await self._relayed.fetch(request, query.address, has_stand_in=has_stand_in)
        except CredentialsRejected as refused:
            if query.credentials or not is_shared:
                raise CredentialsRejected(REFUSED_UPSTREAM, detail=refused.detail) from refused
        except (Denied, UpstreamUnavailable) as fault:
            if not stand_in or (isinstance(fault, Denied) and not is_shared):
                raise
        else:
            return self._issuer.countersign(account, granted, upstream, token)
        return self._issuer.countersign(account, stand_in, upstream, None)
