"""What a caller is told who does not get through: by our own rules, or by the upstream's."""

from collections.abc import Iterator
from contextlib import contextmanager

from application.access.access_request import Gate, Purpose, Right, Wish
from application.access.relayed_logins import RelayedLogins
from application.access.upstream_auth import UpstreamAuthCache
from application.ports.upstream import ForwardedCredentials, SessionCredentials, mirror_credentials
from domain.access import ScopeSet
from domain.authorization import Bearer
from domain.challenge_rewriter import ChallengeRewriter
from domain.errors import (
    CredentialsRefused,
    Denied,
    IdentityRefused,
    RegistryError,
    ScopeInvalid,
    Unauthorized,
    UpstreamChallenged,
)
from domain.token_verifier import TokenVerifier
from domain.tokens import TokenError
from domain.trust import ChallengeStyle, UpstreamAuth, UpstreamScheme

REFUSED_UPSTREAM = (
    "right here, refused upstream: if this account is none of the upstream's, set UPSTREAM_IDENTITY=anonymous "
    "(in a settings file: its identity)"
)
_INSUFFICIENT = "insufficient_scope"
_NO_RIGHT = "refused upstream: no such repository, or no right to it"
_WRONG_LOGIN = (
    "the upstream refuses the mirror's own login: check UPSTREAM_USERNAME and UPSTREAM_PASSWORD "
    "(in a settings file: its username and password)"
)


class Challenges:
    """Every 401 that leaves us bears the challenge of its row (half the clients never ping)."""

    def __init__(
        self,
        upstream_auth: UpstreamAuthCache,
        rewriter: ChallengeRewriter,
        verifier: TokenVerifier,
        logins: RelayedLogins,
    ) -> None:
        self._upstream_auth = upstream_auth
        self._rewriter = rewriter
        self._verifier = verifier
        self._logins = logins

    def by_us(self, gate: Gate, message: str, error: TokenError | None = None) -> Unauthorized:
        """The refusal of a caller whom our own rules stop."""
        if gate.wish.purpose is Purpose.SEARCH and gate.row.checks_accounts:
            # `docker search` knows Basic only; podman turns to the catalog on any 401.
            return Unauthorized(message, challenges=(self._rewriter.basic(),), detail=_detail(gate.wish))
        wish = gate.wish
        if error and gate.auth.bearer and gate.auth.bearer.get("service") == self._rewriter.service:
            message += "; the upstream's service has the name of this mirror: set another SELF_AUTH_SERVICE"
        challenges = self._rewriter.challenges(gate.row, gate.auth, wish.caller.realm, wish.shown, error)
        return Unauthorized(message, challenges=challenges, detail=_detail(wish))

    @contextmanager
    def by_upstream(self, right: Right, *, is_proof: bool = False) -> Iterator[None]:
        """Turn the upstream's 401 into ours. `is_proof`: it answers a ping that proves the caller's login, and
        RelayedLogins has counted it already. Raises Unauthorized, Denied or IdentityRefused.
        """
        try:
            yield
        except UpstreamChallenged as challenged:
            self._judge_login(right, challenged, is_proof=is_proof)
            raise self._after_challenge(right, challenged) from challenged
        except CredentialsRefused as refused:
            self._judge_login(right, refused, is_proof=is_proof)
            raise self._after_login(right, refused) from refused

    def _judge_login(self, right: Right, refusal: CredentialsRefused | UpstreamChallenged, *, is_proof: bool) -> None:
        if right.login is not None and not is_proof:
            self._logins.refused(right.login, refusal)

    def _after_challenge(self, right: Right, challenged: UpstreamChallenged) -> RegistryError:
        if right.is_mirrors and right.upstream != ForwardedCredentials():
            if (
                UpstreamAuth(challenged.challenges).scheme is UpstreamScheme.BASIC
                and right.upstream != SessionCredentials()
            ):
                return IdentityRefused(_WRONG_LOGIN)
            return Denied(_NO_RIGHT, detail=challenged.detail)
        wish = right.gate.wish
        told, known = UpstreamAuth(challenged.challenges), right.gate.auth
        if right.upstream == ForwardedCredentials():
            # What a caller's bad token earns says nothing of what the upstream asks of others.
            self._upstream_auth.learn(wish.upstream, told)
        # A stale Bearer earns a Basic challenge at some registries; what they asked for before still holds.
        keep = known.bearer and not told.bearer
        auth = known if keep or told.scheme is UpstreamScheme.NONE else told
        has_token = isinstance(wish.caller.authorization, Bearer)
        error: TokenError | None = "invalid_token" if has_token else None
        row = wish.upstream.trust.row_for(auth)
        if row.relays and self._is_final(right, told):
            return Denied(_NO_RIGHT, detail=challenged.detail)
        scopes = _asked_for(told, known, wish)
        challenges = self._rewriter.challenges(row, auth, wish.caller.realm, scopes, error)
        if not has_token and row.challenge is ChallengeStyle.REWRITTEN:
            # RFC 6750 section 3.1: no error to who sent no token; the upstream means one of our own.
            challenges = tuple(challenge.with_parameters(error=None) for challenge in challenges)
        message = REFUSED_UPSTREAM if row.checks_accounts and error is None else challenged.message
        return Unauthorized(message, challenges=challenges, detail=challenged.detail)

    def _is_final(self, right: Right, told: UpstreamAuth) -> bool:
        """Whether the upstream's 401 means that a new token would be refused as well. Docker Hub answers so for a
        repository that does not exist; a challenge would have clients log in again and again.
        """
        needed, caller = right.gate.wish.needed, right.gate.wish.caller.authorization
        if not needed or told.bearer is None or told.bearer.get("error") != _INSUFFICIENT:
            return False
        match right.upstream:
            case SessionCredentials(credentials):
                return credentials is not None  # its token was just fetched for this; a login may do more than nobody's
            case _:
                return isinstance(caller, Bearer) and self._verifier.is_spent_on(caller.token, needed)

    def _after_login(self, right: Right, refused: CredentialsRefused) -> RegistryError:
        """The upstream's token server did not take the credentials of a session of ours."""
        mirrors = mirror_credentials(right.gate.wish.upstream)
        if right.upstream == mirrors == SessionCredentials():
            return Denied(_NO_RIGHT, detail=refused.detail)  # ghcr.io refuses nobody a token, but for what is private
        if right.upstream == mirrors:
            return IdentityRefused(_WRONG_LOGIN)
        if right.gate.row.checks_accounts:
            return self.by_us(right.gate, REFUSED_UPSTREAM)
        return self.by_us(right.gate, refused.message)


def _asked_for(told: UpstreamAuth, known: UpstreamAuth, wish: Wish) -> ScopeSet:
    """What a token for the resource has to be for: as the upstream itself says in its challenge to this resource, but
    not where that only repeats the ping's.
    """
    scope = told.bearer.get("scope") if told.bearer else None
    if not scope or not wish.shown:
        return wish.shown
    try:
        asked = ScopeSet.parse([scope])
    except ScopeInvalid:
        return wish.shown
    is_pings = known.bearer is not None and scope == known.bearer.get("scope")
    return asked if not is_pings or any(asked.cover(needed) for needed in wish.needed) else wish.shown


def _detail(wish: Wish) -> object:
    """The accesses that were wanted, in the form in which distribution writes them."""
    return [
        {"Type": scope.resource_type, "Class": scope.resource_class, "Name": scope.name, "Action": action}
        for scope in wish.shown
        for action in sorted(scope.actions)
    ] or None
