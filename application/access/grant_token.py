"""GrantToken: what /v2/auth gives: a token of ours, the upstream's, or the upstream's countersigned."""

from dataclasses import dataclass, field, replace

from application.access.challenges import REFUSED_UPSTREAM
from application.access.check_account import CheckAccount
from application.access.relayed_tokens import RelayedTokens
from application.access.upstream_auth import UpstreamAuthCache
from application.ports.telemetry import current_record
from application.ports.upstream import TokenRequest
from domain.access import ANONYMOUS_ACCOUNT, Account, Credentials, ScopeSet
from domain.account_policy import AccountPolicy
from domain.challenge import Challenge
from domain.errors import CredentialsRejected, Denied, TokenEndpointAbsent, UpstreamUnavailable
from domain.tokens import IssuedToken, TokenIssuer
from domain.trust import TokenEndpoint, TrustRow
from domain.upstream_table import NO_HINT, RegistryHint, UpstreamTable


@dataclass(frozen=True)
class TokenQuery:
    """What a client asks of the token endpoint, whether by GET or by POST, and where it asks.

    `offline` asks for a refresh token too; `refresh_token` stands in for credentials; `has_other_login`: there was
    an Authorization, but no Basic; `address` is the client's own.
    """

    service: str | None = None
    scopes: ScopeSet = field(default_factory=ScopeSet)
    credentials: Credentials | None = None
    refresh_token: str | None = field(default=None, repr=False)
    offline: bool = False
    client_id: str | None = None
    has_other_login: bool = False
    hint: RegistryHint = NO_HINT
    address: str = ""


class GrantToken:
    """Follows the trust row, not the `service` parameter alone: that one anybody can write."""

    def __init__(
        self,
        upstream_auth: UpstreamAuthCache,
        policy: AccountPolicy,
        accounts: CheckAccount,
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
        """The token, for the upstream that the scopes name.

        Raises TokenEndpointAbsent, CredentialsRejected, TooManyAttempts, or the error of the upstream's token server.
        """
        upstream, wanted = self._upstreams.login_of(query.scopes, query.hint)
        row, auth = await self._upstream_auth.row(upstream, of_host=True)
        if row.endpoint is TokenEndpoint.ABSENT:
            raise TokenEndpointAbsent("this mirror issues no tokens: authenticate as the challenge of GET /v2/ asks")
        if query.has_other_login:
            # Ignoring it would give an anonymous token to a user who believes to be logged in.
            raise CredentialsRejected("the token endpoint accepts only Basic credentials")
        account = await self._check_account(row, query)
        challenge = auth.bearer if row.relays else None
        if challenge is None or (row.endpoint is TokenEndpoint.RELAY and self._asks_for_ours(query, challenge)):
            return self._issuer.issue(account, self._granted(query, wanted))
        request = TokenRequest(upstream, challenge, wanted, query.credentials)
        if row.endpoint is TokenEndpoint.RELAY:
            return await self._from_upstream(query, request)
        return await self._countersigned(query, request, account)

    def _granted(self, query: TokenQuery, wanted: ScopeSet) -> ScopeSet:
        """What our word is good for: by the upstream's names, and by the client's own, which may mean any upstream."""
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

    def _asks_for_ours(self, query: TokenQuery, challenge: Challenge) -> bool:
        """The seed's K2: `service` names us. Where the upstream bears our name too, it means the upstream."""
        return query.service == self._service and challenge.get("service") != self._service

    async def _from_upstream(self, query: TokenQuery, request: TokenRequest) -> IssuedToken:
        public = await self._relayed.public(self._policy.permit(request.scopes), request.upstream)
        request = replace(request, refresh_token=query.refresh_token, offline=query.offline, client_id=query.client_id)
        try:
            return await self._relayed.fetch(request, query.address, has_stand_in=bool(public))
        except UpstreamUnavailable:
            if not public:
                raise
            # An anonymous token gives what everyone may have; credentials that cannot be checked give nothing more.
            return self._issuer.issue(ANONYMOUS_ACCOUNT, public)

    async def _countersigned(self, query: TokenQuery, request: TokenRequest, account: Account) -> IssuedToken:
        if query.refresh_token:
            # One from when this upstream was alone here: what is countersigned has none. Not ignored, as above.
            raise CredentialsRejected("the token endpoint does not accept refresh tokens here: log in again")
        granted, upstream = self._granted(query, request.scopes), request.upstream
        request = replace(request, scopes=self._policy.permit(request.scopes), client_id=query.client_id)
        public, is_shared = await self._relayed.public(request.scopes, upstream), upstream.trust.shares_host
        has_stand_in = bool(public) or (is_shared and query.credentials is None)
        # The other registries behind a shared host are none the worse for what this one does not give.
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
