"""GrantToken: what /v2/auth gives: a token of ours, the upstream's, or the upstream's countersigned."""

from dataclasses import dataclass, field

from application.cache.outages import OUTAGE
from application.ports.request_record import current_record
from application.ports.token_relay import TokenRequest
from application.refusals import REFUSED_UPSTREAM
from application.relayed_tokens import RelayedTokens
from application.upstream_stances import UpstreamStances
from domain.access import ANONYMOUS, Credentials, ScopeSet
from domain.account_policy import AccountPolicy
from domain.challenge import Challenge
from domain.errors import CredentialsRefused, NoTokensHere, UpstreamUndecided
from domain.token_issuer import TokenIssuer
from domain.tokens import IssuedToken
from domain.trust import Stance, TokenEndpoint, TrustRow
from domain.upstreams import Upstream, UpstreamTable


@dataclass(frozen=True)
class TokenQuery:
    """What a client asks of the token endpoint, whether by GET or by POST.

    `offline` asks for a refresh token too; `refresh_token` stands in for credentials; `has_other_login`: there was
    an Authorization, but no Basic.
    """

    service: str | None = None
    scopes: ScopeSet = field(default_factory=ScopeSet)
    credentials: Credentials | None = None
    refresh_token: str | None = field(default=None, repr=False)
    offline: bool = False
    client_id: str | None = None
    has_other_login: bool = False


class GrantToken:
    """Follows the trust row, not the `service` parameter alone: that one anybody can write."""

    def __init__(  # noqa: PLR0913, PLR0917 - the parts that the four kinds of answer need; the container names them
        self,
        stances: UpstreamStances,
        policy: AccountPolicy,
        issuer: TokenIssuer,
        relayed: RelayedTokens,
        upstreams: UpstreamTable,
        service: str,
    ) -> None:
        self._stances = stances
        self._policy = policy
        self._issuer = issuer
        self._relayed = relayed
        self._upstreams = upstreams
        self._service = service

    async def __call__(self, query: TokenQuery, upstream: Upstream) -> IssuedToken:
        """The token. Raises NoTokensHere, CredentialsRefused, or what the upstream's token server says."""
        row, stance = await self._stances.row(upstream)
        if row.endpoint is TokenEndpoint.ABSENT:
            raise NoTokensHere("this mirror gives no tokens: authenticate as the challenge of /v2/ says")
        if query.has_other_login:
            # To ignore it would be to give an anonymous token to somebody who believes to be logged in.
            raise CredentialsRefused("the token endpoint takes Basic credentials only")
        account = self._check_account(row, query)
        wanted = self._upstreams.scopes_there(query.scopes)
        match row.endpoint:
            case TokenEndpoint.RELAY if not self._asks_for_ours(query, stance):
                return await self._from_upstream(query, upstream, stance, wanted)
            case TokenEndpoint.RELAY_AND_COUNTERSIGN:
                return await self._countersigned(query, upstream, stance, account)
            case _:
                return self._issuer.issue(account, self._policy.permit(wanted))

    def _check_account(self, row: TrustRow, query: TokenQuery) -> str:
        if not row.checks_accounts:
            return ANONYMOUS
        if query.credentials is None:
            raise CredentialsRefused("this mirror wants an account: log in with a user name and a password")
        account = self._policy.authenticate(query.credentials)
        if account is None:
            raise CredentialsRefused("wrong user name or password")
        current_record().account = account.name
        return account.name

    def _asks_for_ours(self, query: TokenQuery, stance: Stance) -> bool:
        """The seed's K2: `service` names us. Where the upstream bears our name too, it means the upstream."""
        return query.service == self._service and _bearer(stance).get("service") != self._service

    async def _from_upstream(
        self, query: TokenQuery, upstream: Upstream, stance: Stance, wanted: ScopeSet
    ) -> IssuedToken:
        public = await self._relayed.public(self._policy.permit(wanted), upstream)
        request = self._request(query, upstream, stance, wanted)
        try:
            return await self._relayed.fetch(request, has_stand_in=bool(public))
        except OUTAGE:
            if not public:
                raise
            # Nobody's token is no more than anybody may have; credentials that cannot be checked buy nothing else.
            return self._issuer.issue(ANONYMOUS, public)

    async def _countersigned(self, query: TokenQuery, upstream: Upstream, stance: Stance, account: str) -> IssuedToken:
        granted = self._policy.permit(self._upstreams.scopes_there(query.scopes))
        request = TokenRequest(upstream, _bearer(stance), granted, query.credentials, client_id=query.client_id)
        public = await self._relayed.public(granted, upstream)
        try:
            token = await self._relayed.fetch(request, has_stand_in=bool(public))
        except CredentialsRefused as refused:
            raise CredentialsRefused(REFUSED_UPSTREAM, detail=refused.detail) from refused
        except OUTAGE:
            if not public:
                raise
            return self._issuer.countersign(account, public, None)
        return self._issuer.countersign(account, granted, token)

    def _request(self, query: TokenQuery, upstream: Upstream, stance: Stance, wanted: ScopeSet) -> TokenRequest:
        return TokenRequest(
            upstream,
            _bearer(stance),
            wanted,
            query.credentials,
            query.refresh_token,
            query.offline,
            query.client_id,
        )


def _bearer(stance: Stance) -> Challenge:
    if stance.bearer is None:
        raise UpstreamUndecided("the upstream's token server is not known")
    return stance.bearer
