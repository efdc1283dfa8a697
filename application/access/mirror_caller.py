"""MirrorCaller: the caller as which the mirror itself pulls an image, for its operator."""

from application.access.access_request import Caller
from application.access.grant_token import GrantToken, TokenQuery
from application.access.upstream_auth import UpstreamAuthCache
from domain.access import Credentials, Scope, ScopeSet
from domain.account_policy import AccountPolicy
from domain.authorization import Basic, Bearer, encode_basic
from domain.names import RepositoryName
from domain.tokens import TokenIssuer
from domain.trust import BasicRule, BearerRule, TrustRow
from domain.upstream_table import RegistryHint, UpstreamTable
from domain.upstreams import Upstream

_REALM = "http://localhost/v2/auth"
"""Appears only in challenges, which are not sent to anybody."""


class MirrorCaller:
    """Gives each repository the caller that the trust row of its upstream accepts: one with the given login, else with
    an account of the mirror, else an anonymous one.
    """

    def __init__(
        self,
        upstreams: UpstreamTable,
        upstream_auth: UpstreamAuthCache,
        grant_token: GrantToken,
        policy: AccountPolicy,
        issuer: TokenIssuer,
    ) -> None:
        self._upstreams = upstreams
        self._upstream_auth = upstream_auth
        self._grant_token = grant_token
        self._policy = policy
        self._issuer = issuer

    async def __call__(self, name: RepositoryName, hint: RegistryHint, login: Credentials | None = None) -> Caller:
        """A caller who may pull the repository that clients call `name`, whatever the access rules say. `login`: of an
        account of the mirror or of the upstream.

        Raises NameUnknown, UpstreamAuthUnknown and what GrantToken raises.
        """
        upstream = self._upstreams.source_of(name, hint).upstream
        row, _ = await self._upstream_auth.row(upstream)
        if login is not None and row.basic is not BasicRule.REFUSE:
            return Caller(Basic(login, f"Basic {encode_basic(login)}"), _REALM, is_operator=True)
        query = TokenQuery(scopes=ScopeSet((Scope.pull(name),)), credentials=login, hint=hint)
        token = await self._token(row, upstream, query)
        return Caller(Bearer(token, f"Bearer {token}") if token else None, _REALM, is_operator=True)

    async def _token(self, row: TrustRow, upstream: Upstream, query: TokenQuery) -> str | None:
        if query.credentials is not None and row.relays:
            return (await self._grant_token(query)).text
        # The operator can read the accounts' settings, so the operator may pull as any of them.
        account = self._policy.some_account()
        if row.bearer in {BearerRule.OURS, BearerRule.OURS_OR_PASS, BearerRule.EITHER_OF_OURS}:
            return self._issuer.issue(account, query.scopes).text
        if row.bearer is BearerRule.COUNTERSIGNED:
            return self._issuer.countersign(account, query.scopes, upstream, None).text
        return None
