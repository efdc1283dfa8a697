"""Authorize: who calls, may they, and with whose right is the upstream asked."""

from dataclasses import replace

from application.access.access_request import Gate, Purpose, Right, Wish
from application.access.challenges import Challenges
from application.access.check_account import CheckAccount
from application.access.pull_rules import PullRules
from application.access.relayed_logins import RelayedLogins
from application.access.upstream_auth import UpstreamAuthCache
from application.ports.telemetry import current_record
from application.ports.upstream import ForwardedCredentials, SessionCredentials
from domain.access import Account
from domain.authorization import Basic, Bearer, Unreadable
from domain.token_verifier import TokenVerifier
from domain.tokens import TokenKind, TokenRefused, VerifiedToken
from domain.trust import BareRule, BasicRule, BearerRule

_NOBODY = SessionCredentials(None)


class Authorize:
    """Applies the trust row's rules to a caller; the gate that every resource stands behind."""

    def __init__(  # noqa: PLR0913, PLR0917 - what each kind of Authorization is checked with; the container names them
        self,
        upstream_auth: UpstreamAuthCache,
        accounts: CheckAccount,
        verifier: TokenVerifier,
        refusals: Challenges,
        rules: PullRules,
        logins: RelayedLogins,
    ) -> None:
        self._upstream_auth = upstream_auth
        self._accounts = accounts
        self._verifier = verifier
        self._refusals = refusals
        self._rules = rules
        self._logins = logins

    async def __call__(self, wish: Wish) -> Right:
        """The right to fulfil the wish. Raises Unauthorized with the challenges of the row, Denied by the rules, or
        TooManyAttempts.
        """
        row, auth = await self._upstream_auth.row(wish.upstream, of_host=wish.purpose is Purpose.PING)
        right = await self._let_in(Gate(wish, row, auth))
        self._rules.check(right.gate)
        await self._prove_login(right)
        return right

    async def _prove_login(self, right: Right) -> None:
        """A login that this right sends upstream is right there, or not yet decided. Raises Unauthorized with the
        challenges of the row, or TooManyAttempts.
        """
        wish = right.gate.wish
        # Where a ping is wanted, that ping is the proof; see AnswerPing.
        login = None if wish.purpose is Purpose.PING or wish.caller.is_operator else right.login
        if login is not None:
            with self._refusals.by_upstream(right, is_proof=True):
                await self._logins.prove(login, right.upstream)

    async def _let_in(self, gate: Gate) -> Right:
        match gate.wish.caller.authorization:
            case None:
                return self._bare(gate)
            case Bearer() as bearer:
                return self._bearer(gate, bearer)
            case Basic() as basic:
                return await self._basic(gate, basic)
            case Unreadable(raw):
                if gate.row.bare is BareRule.PASS:
                    return gate.caller_passes(ForwardedCredentials(raw))
                raise self._refusals.by_us(gate, "the Authorization header cannot be read")

    def _bare(self, gate: Gate) -> Right:
        purpose = gate.wish.purpose
        match gate.row.bare:
            case BareRule.PASS:
                return gate.caller_passes(ForwardedCredentials())
            case BareRule.OPEN if purpose is not Purpose.PING:
                return gate.mirror_passes()
            case BareRule.LISTINGS_ONLY if purpose in {Purpose.LISTING, Purpose.SEARCH}:
                return gate.caller_passes(_NOBODY)
            case _:
                # A challenge on a 200 does nothing in real clients: they authenticate on 401 only.
                raise self._refusals.by_us(gate, "authentication required")

    def _bearer(self, gate: Gate, bearer: Bearer) -> Right:
        kind = self._verifier.kind_of(bearer.token)
        try:
            match gate.row.bearer, kind:
                case BearerRule.PASS, _:
                    return gate.caller_passes(ForwardedCredentials(bearer.raw))
                case BearerRule.OURS | BearerRule.OURS_OR_PASS | BearerRule.EITHER_OF_OURS, TokenKind.OURS:
                    return self._own_token(gate, bearer.token)
                case BearerRule.COUNTERSIGNED | BearerRule.EITHER_OF_OURS, TokenKind.COUNTERSIGNED:
                    return self._countersigned_token(gate, bearer.token)
                case BearerRule.OURS_OR_PASS, TokenKind.FOREIGN if not _asks_open_upstream_for_login(gate):
                    return gate.caller_passes(ForwardedCredentials(bearer.raw))
        except TokenRefused as refused:
            raise self._refusals.by_us(gate, refused.reason, refused.error) from None
        raise self._refusals.by_us(gate, "the token is none that this service takes here", "invalid_token")

    def _own_token(self, gate: Gate, token: str) -> Right:
        verified = self._verifier.verify_own(token)
        gate = self._of_owner(gate, verified)
        if gate.row.relays:
            # Where the upstream signs the tokens, one of ours stands for the anonymous caller and no more.
            return gate.caller_passes(_NOBODY, verified.expires_at)
        return gate.mirror_passes(verified.expires_at)

    def _countersigned_token(self, gate: Gate, text: str) -> Right:
        token = self._verifier.verify_countersigned(text)
        gate = self._of_owner(gate, token)
        if not gate.row.relays:
            return gate.mirror_passes(token.expires_at)
        if token.upstream != gate.wish.upstream.url:
            # What one registry gave is no other's business.
            raise TokenRefused("invalid_token", "the token is for another registry")
        # Without an upstream's half it was given while the upstream could not be asked: for what is everybody's.
        right = ForwardedCredentials(f"Bearer {token.upstream_token}") if token.upstream_token else _NOBODY
        return gate.caller_passes(right, token.expires_at)

    def _of_owner(self, gate: Gate, token: VerifiedToken) -> Gate:
        """The gate, now that the token's owner stands before it. Raises TokenRefused."""
        if gate.row.checks_accounts:
            if not self._accounts.is_unchanged(Account(token.account, token.account_stamp)):
                raise TokenRefused("invalid_token", "the token's account was removed or has another password now")
            # Only here: where accounts are not checked, a token of other days may name one that nobody checked.
            gate = replace(gate, account=token.account)
        current_record().passed(token.account, token.account_stamp)
        # Before the token's scopes: who is told that a token does not suffice fetches the next one, in vain.
        self._rules.check(gate)
        token.require(gate.wish.needed)
        return gate

    async def _basic(self, gate: Gate, basic: Basic) -> Right:
        rule = gate.row.basic
        if rule is BasicRule.PASS:
            return gate.caller_passes(ForwardedCredentials(basic.raw))
        if rule is BasicRule.REFUSE and gate.wish.purpose is Purpose.SEARCH:
            # docker sends the login that it has, whether a search wants one or not. It goes no further.
            return self._bare(gate)
        address = gate.wish.caller.address
        account = None if rule is BasicRule.REFUSE else await self._accounts(basic.credentials, address)
        if account is None:
            raise self._refusals.by_us(gate, "authentication required")
        current_record().passed(account.name, account.stamp)
        gate = replace(gate, account=account.name)
        match rule:
            case BasicRule.ACCOUNT_EXCHANGED:
                return gate.caller_passes(SessionCredentials(basic.credentials))
            case BasicRule.ACCOUNT_PASSED:
                return gate.caller_passes(ForwardedCredentials(basic.raw))
            case _:
                return gate.mirror_passes()


def _asks_open_upstream_for_login(gate: Gate) -> bool:
    """An upstream that asks for nothing takes any text; to a login that would say "your token is good"."""
    return gate.wish.purpose is Purpose.PING and gate.row.bare is BareRule.OPEN
