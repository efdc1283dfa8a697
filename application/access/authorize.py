"""Authorize: who calls, what the caller may do, and with whose credentials the upstream is asked."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

from application.access.access_request import FOREVER, Access, AccessCheck, AccessRequest, Caller, PullAccess, Purpose
from application.access.caller import CallerIdentities
from application.access.challenges import Challenges
from application.access.check_account import CheckAccount
from application.access.pull_rules import PullRules
from application.access.relayed_logins import RelayedLogins
from application.access.upstream_auth import UpstreamAuthCache
from application.ports.telemetry import current_record
from application.ports.upstream import (
    ForwardedCredentials,
    SessionCredentials,
    UpstreamCredentials,
    mirror_credentials,
)
from domain.access import Account
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
        accounts: CheckAccount,
        verifier: TokenVerifier,
        challenges: Challenges,
        rules: PullRules,
        logins: RelayedLogins,
        identities: CallerIdentities,
    ) -> None:
        self._upstreams = upstreams
        self._upstream_auth = upstream_auth
        self._accounts = accounts
        self._verifier = verifier
        self._challenges = challenges
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
        access = await self.access(AccessRequest.to_read(caller, source, name, purpose))
        with self._challenges.by_upstream(access):
            identity = await self._identities.of(access)
            yield PullAccess(identity, access.credentials, source, access.is_mirrors)

    async def access(self, request: AccessRequest) -> Access:
        """Access for this request. Raises Unauthorized with the challenges of the row, Denied by the access rules, or
        TooManyAttempts.
        """
        row, auth = await self._upstream_auth.row(request.upstream, of_host=request.purpose is Purpose.PING)
        access = await self._checked(AccessCheck(request, row, auth))
        await self._prove_login(access)
        return access

    async def _prove_login(self, access: Access) -> None:
        """Have the upstream check a caller's login before it is used for anything else. Raises Unauthorized with the
        challenges of the row, or TooManyAttempts.
        """
        request = access.request
        # For a ping, the ping itself is the proof; see AnswerPing.
        login = None if request.purpose is Purpose.PING or request.caller.is_operator else access.login
        if login is not None:
            with self._challenges.by_upstream(access, is_proof=True):
                await self._logins.prove(login, access.credentials)

    async def _checked(self, check: AccessCheck) -> Access:
        match check.request.caller.authorization:
            case None:
                return self._without_authorization(check)
            case Bearer() as bearer:
                return self._with_token(check, bearer)
            case Basic() as basic:
                return await self._with_login(check, basic)
            case UnsupportedAuthorization(raw):
                if check.row.anonymous is AnonymousRule.PASS:
                    return self._as_caller(check, ForwardedCredentials(raw))
                raise self._challenges.by_us(check, "the Authorization header cannot be read")

    def _without_authorization(self, check: AccessCheck) -> Access:
        purpose = check.request.purpose
        match check.row.anonymous:
            case AnonymousRule.PASS:
                return self._as_caller(check, ForwardedCredentials())
            case AnonymousRule.OPEN if purpose is not Purpose.PING:
                return self._as_mirror(check)
            case AnonymousRule.LISTINGS_ONLY if purpose in {Purpose.LISTING, Purpose.SEARCH}:
                return self._as_caller(check, _ANONYMOUS)
            case _:
                # Clients ignore a challenge on a 200: they authenticate on 401 only.
                raise self._challenges.by_us(check, "authentication required")

    def _with_token(self, check: AccessCheck, bearer: Bearer) -> Access:
        kind = self._verifier.kind_of(bearer.token)
        try:
            match check.row.bearer, kind:
                case BearerRule.PASS, _:
                    return self._as_caller(check, ForwardedCredentials(bearer.raw))
                case BearerRule.OURS | BearerRule.OURS_OR_PASS | BearerRule.EITHER_OF_OURS, TokenKind.OURS:
                    return self._with_own_token(check, bearer.token)
                case BearerRule.COUNTERSIGNED | BearerRule.EITHER_OF_OURS, TokenKind.COUNTERSIGNED:
                    return self._with_countersigned_token(check, bearer.token)
                case BearerRule.OURS_OR_PASS, TokenKind.FOREIGN if not _asks_open_upstream_for_login(check):
                    return self._as_caller(check, ForwardedCredentials(bearer.raw))
        except TokenRejected as refused:
            raise self._challenges.by_us(check, refused.reason, refused.error) from None
        raise self._challenges.by_us(check, "this service does not accept this kind of token here", "invalid_token")

    def _with_own_token(self, check: AccessCheck, text: str) -> Access:
        token = self._verifier.verify_own(text)
        check = self._with_owner(check, token)
        if check.row.relays:
            # Where the upstream signs the tokens, a token of the mirror stands for the anonymous caller only.
            return self._as_caller(check, _ANONYMOUS, token)
        return self._as_mirror(check, token)

    def _with_countersigned_token(self, check: AccessCheck, text: str) -> Access:
        token = self._verifier.verify_countersigned(text)
        check = self._with_owner(check, token)
        if not check.row.relays:
            return self._as_mirror(check, token)
        # A token without the upstream's part was given while the upstream was unreachable, for public content.
        credentials = ForwardedCredentials(f"Bearer {token.upstream_token}") if token.upstream_token else _ANONYMOUS
        access = self._as_caller(check, credentials, token)
        if token.upstream != check.request.upstream.url:
            raise TokenRejected("invalid_token", "the token was issued for another registry")
        return access

    def _with_owner(self, check: AccessCheck, token: VerifiedToken) -> AccessCheck:
        """The check with the token's account. Raises TokenRejected."""
        if check.row.checks_accounts:
            if not self._accounts.is_unchanged(Account(token.account, token.account_stamp)):
                raise TokenRejected(
                    "invalid_token", "the account of this token was removed, or its password was changed"
                )
            # Where accounts are not checked, an older token may still name an account that was never checked.
            check = replace(check, account=token.account)
        current_record().passed(token.account, token.account_stamp)
        return check

    async def _with_login(self, check: AccessCheck, basic: Basic) -> Access:
        rule = check.row.basic
        if rule is BasicRule.PASS:
            return self._as_caller(check, ForwardedCredentials(basic.raw))
        if rule is BasicRule.REFUSE and check.request.purpose is Purpose.SEARCH:
            # docker sends the login that it has, whether the search needs one or not. The login is not used.
            return self._without_authorization(check)
        address = check.request.caller.address
        account = None if rule is BasicRule.REFUSE else await self._accounts(basic.credentials, address)
        if account is None:
            raise self._challenges.by_us(check, "authentication required")
        current_record().passed(account.name, account.stamp)
        check = replace(check, account=account.name)
        match rule:
            case BasicRule.ACCOUNT_EXCHANGED:
                return self._as_caller(check, SessionCredentials(basic.credentials))
            case BasicRule.ACCOUNT_PASSED:
                return self._as_caller(check, ForwardedCredentials(basic.raw))
            case _:
                return self._as_mirror(check)

    def _as_mirror(self, check: AccessCheck, token: VerifiedToken | None = None) -> Access:
        """Access with the mirror's own credentials."""
        credentials = mirror_credentials(check.request.upstream)
        return self._granted(check, credentials, token, is_mirrors=True)

    def _as_caller(
        self, check: AccessCheck, credentials: UpstreamCredentials, token: VerifiedToken | None = None
    ) -> Access:
        """Access with credentials that the caller brought, or that stand for this caller."""
        return self._granted(check, credentials, token, is_mirrors=False)

    def _granted(
        self, check: AccessCheck, credentials: UpstreamCredentials, token: VerifiedToken | None, *, is_mirrors: bool
    ) -> Access:
        """Raises Denied by the access rules, TokenRejected where the token does not cover the request."""
        # The rules come before the token's scopes: a client fetches another token when its scopes do not suffice, which
        # would be in vain.
        self._rules.check(check)
        if token is not None:
            token.require(check.request.needed)
        return Access(check, credentials, is_mirrors, token.expires_at if token else FOREVER)


def _asks_open_upstream_for_login(check: AccessCheck) -> bool:
    """Whether a ping is to prove a token at an upstream that asks for none. Such an upstream accepts any text, and the
    client would believe that its token is good.
    """
    return check.request.purpose is Purpose.PING and check.row.anonymous is AnonymousRule.OPEN
