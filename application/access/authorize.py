"""Authorize: who calls, what the caller may do, and with whose credentials the upstream is asked."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

from application.access.access_request import FOREVER, Access, AccessCheck, AccessRequest, Caller, PullAccess, Purpose
from application.access.caller import CallerIdentities
from application.access.check_login import CheckLogin
from application.access.pull_rules import PullRules
from application.access.refusals import Refusals
from application.access.relayed_logins import RelayedLogins
from application.access.upstream_auth import UpstreamAuthCache
from application.ports.telemetry import current_record
from application.ports.upstream import (
    ForwardedCredentials,
    SessionCredentials,
    UpstreamCredentials,
    mirror_credentials,
)
from domain.access import Account, Scope, ScopeSet
from domain.authorization import Basic, Bearer, UnsupportedAuthorization
from domain.names import RepositoryName
from domain.tokens import TokenKind, TokenRejected, TokenVerifier, VerifiedToken
from domain.trust import AnonymousRule, BasicRule, BearerRule
from domain.upstream_table import RegistryHint, UpstreamTable

_ANONYMOUS = SessionCredentials(None)


class Authorize:
    """Applies the rules of the trust row and the operator's access rules to a caller. Every resource needs it."""

    def __init__(
        self,
        *,
        upstreams: UpstreamTable,
        upstream_auth: UpstreamAuthCache,
        accounts: CheckLogin,
        verifier: TokenVerifier,
        refusals: Refusals,
        rules: PullRules,
        logins: RelayedLogins,
        identities: CallerIdentities,
    ) -> None:
        self._upstreams = upstreams
        self._upstream_auth = upstream_auth
        self._accounts = accounts
        self._verifier = verifier
        self._refusals = refusals
        self._rules = rules
        self._logins = logins
        self._identities = identities

    @asynccontextmanager
    async def repository(
        self, caller: Caller, name: RepositoryName, hint: RegistryHint, purpose: Purpose = Purpose.CONTENT
    ) -> AsyncIterator[PullAccess]:
        """Access to the repository that the client calls `name`. Within the context, an upstream's refusal of the
        caller becomes the mirror's. Raises what `access` raises, and NameUnknown for a registry
        that this mirror does not have.
        """
        source = self._upstreams.source_of(name, hint)
        shown = Scope.pull(name)
        needed = ScopeSet.of((source.pull_scope, shown))
        access = await self.access(AccessRequest(caller, source.upstream, purpose, needed, ScopeSet((shown,)), source))
        with self._refusals.by_upstream(access):
            identity = await self._identities.of(access)
            yield PullAccess(identity, access.credentials, source, access.is_mirrors)

    async def access(self, request: AccessRequest) -> Access:
        """Access for this request. Raises Unauthorized with the challenges of the row, Denied by the access rules, or
        TooManyAttempts.
        """
        current_record().upstream = request.upstream.url
        row, auth = await self._upstream_auth.row(request.upstream, of_host=request.purpose is Purpose.PING)
        check = AccessCheck(request, row, auth)
        match request.caller.authorization:
            case None:
                access = self._without_authorization(check)
            case Bearer() as bearer:
                access = self._with_token(check, bearer)
            case Basic() as basic:
                access = await self._with_login(check, basic)
            case UnsupportedAuthorization(raw) if row.anonymous is AnonymousRule.PASS:
                access = self._granted(check, ForwardedCredentials(raw))
            case _:
                raise self._refusals.by_us(check, "the Authorization header cannot be read")
        # For a ping, the ping itself is the proof; see AnswerPing.
        if access.login and request.purpose is not Purpose.PING and not request.caller.is_operator:
            # The upstream checks the caller's login before the login is used for anything else.
            with self._refusals.by_upstream(access, is_proof=True):
                await self._logins.prove(access.login, access.credentials)
        return access

    def _without_authorization(self, check: AccessCheck) -> Access:
        purpose = check.request.purpose
        if check.request.caller.is_operator and purpose is Purpose.SEARCH:
            # In every row: an operator of the page sees all names. Nothing is pulled, and there is no login to relay.
            return self._granted(check, SessionCredentials(check.request.upstream.credentials), is_mirrors=True)
        match check.row.anonymous:
            case AnonymousRule.PASS:
                return self._granted(check, ForwardedCredentials())
            case AnonymousRule.OPEN if purpose is not Purpose.PING:
                return self._as_mirror(check)
            case AnonymousRule.LISTINGS_ONLY if purpose in {Purpose.LISTING, Purpose.SEARCH}:
                return self._granted(check, _ANONYMOUS)
            case _:
                # Clients ignore a challenge on a 200 and authenticate only after a 401.
                raise self._refusals.by_us(check, "authentication required")

    def _with_token(self, check: AccessCheck, bearer: Bearer) -> Access:
        kind = self._verifier.kind_of(bearer.token)
        try:
            match check.row.bearer, kind:
                case BearerRule.PASS, _:
                    return self._granted(check, ForwardedCredentials(bearer.raw))
                case BearerRule.OURS | BearerRule.OURS_OR_PASS | BearerRule.EITHER_OF_OURS, TokenKind.OURS:
                    return self._with_own_token(check, bearer.token)
                case BearerRule.COUNTERSIGNED | BearerRule.EITHER_OF_OURS, TokenKind.COUNTERSIGNED:
                    return self._with_countersigned_token(check, bearer.token)
                case BearerRule.OURS_OR_PASS, TokenKind.FOREIGN if not _would_prove_nothing(check):
                    return self._granted(check, ForwardedCredentials(bearer.raw))
        except TokenRejected as refused:
            raise self._refusals.by_us(check, refused.reason, refused.error) from None
        raise self._refusals.by_us(check, "this service does not accept this kind of token here", "invalid_token")

    def _with_own_token(self, check: AccessCheck, text: str) -> Access:
        token = self._verifier.verify_own(text)
        check = self._with_owner(check, token)
        if check.row.relays:
            # In these rows, a caller with a login gets a token of the upstream. The mirror signs its own tokens only
            # for callers without a login, so this caller is anonymous.
            return self._granted(check, _ANONYMOUS, token)
        return self._as_mirror(check, token)

    def _with_countersigned_token(self, check: AccessCheck, text: str) -> Access:
        token = self._verifier.verify_countersigned(text)
        check = self._with_owner(check, token)
        if not check.row.relays:
            return self._as_mirror(check, token)
        # A token without the upstream's part was issued while the upstream was unavailable, for public content.
        credentials = ForwardedCredentials(f"Bearer {token.upstream_token}") if token.upstream_token else _ANONYMOUS
        access = self._granted(check, credentials, token)
        if token.upstream != check.request.upstream.url:
            raise TokenRejected("invalid_token", "the token was issued for another registry")
        return access

    def _with_owner(self, check: AccessCheck, token: VerifiedToken) -> AccessCheck:
        """The check with the account of the token. Raises TokenRejected if the account has changed."""
        if check.row.checks_accounts:
            if not self._accounts.is_unchanged(Account(token.account, token.account_stamp)):
                raise TokenRejected(
                    "invalid_token", "the account of this token was removed, or its password was changed"
                )
            # Only in these rows: an older token may name an account that the current settings do not check.
            check = replace(check, account=token.account)
        current_record().passed(token.account, token.account_stamp)
        return check

    async def _with_login(self, check: AccessCheck, basic: Basic) -> Access:
        rule = check.row.basic
        if rule is BasicRule.PASS:
            return self._granted(check, ForwardedCredentials(basic.raw))
        if rule is BasicRule.REFUSE and check.request.purpose is Purpose.SEARCH:
            # docker sends its stored login with every search, even if the search needs none. The login is not used.
            return self._without_authorization(check)
        address = check.request.caller.address
        account = None if rule is BasicRule.REFUSE else await self._accounts(basic.credentials, address)
        if account is None:
            raise self._refusals.by_us(check, "authentication required")
        current_record().passed(account.name, account.stamp)
        check = replace(check, account=account.name)
        match rule:
            case BasicRule.ACCOUNT_EXCHANGED:
                return self._granted(check, SessionCredentials(basic.credentials))
            case BasicRule.ACCOUNT_PASSED:
                return self._granted(check, ForwardedCredentials(basic.raw))
            case _:
                return self._as_mirror(check)

    def _as_mirror(self, check: AccessCheck, token: VerifiedToken | None = None) -> Access:
        """Access with the mirror's own credentials."""
        return self._granted(check, mirror_credentials(check.request.upstream), token, is_mirrors=True)

    def _granted(
        self,
        check: AccessCheck,
        credentials: UpstreamCredentials,
        token: VerifiedToken | None = None,
        *,
        is_mirrors: bool = False,
    ) -> Access:
        """Access with these credentials, which belong to the caller unless `is_mirrors`. Raises Denied if the access
        rules refuse the request, and TokenRejected if the token does not cover it.
        """
        # The access rules are applied first: if the scopes are insufficient, the client fetches another token, which
        # would be useless if the rules refuse the request.
        self._rules.check(check)
        if token is not None:
            token.require(check.request.needed)
        return Access(check, credentials, is_mirrors, token.expires_at if token else FOREVER)


def _would_prove_nothing(check: AccessCheck) -> bool:
    """Whether the request is a ping with a token to an upstream that requires no token. Such an upstream accepts every
    token, so the client would take a wrong token for a valid one.
    """
    return check.request.purpose is Purpose.PING and check.row.anonymous is AnonymousRule.OPEN
