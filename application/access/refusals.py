"""Refusals: the error responses for callers that the mirror or the upstream refuses."""

from collections.abc import Iterator
from contextlib import contextmanager

from application.access.access_request import Access, AccessCheck, AccessRequest, Purpose
from application.access.relayed_logins import RelayedLogins
from application.access.upstream_auth import UpstreamAuthCache
from application.ports.upstream import ForwardedCredentials, SessionCredentials, mirror_credentials
from domain.access import ScopeSet
from domain.authorization import Bearer
from domain.challenge_rewriter import ChallengeRewriter
from domain.errors import (
    CredentialsRejected,
    Denied,
    IdentityRejected,
    RegistryError,
    ScopeInvalid,
    Unauthorized,
    UpstreamChallenged,
)
from domain.tokens import TokenError, TokenVerifier
from domain.trust import ChallengeStyle, UpstreamAuth, UpstreamScheme

REFUSED_UPSTREAM = (
    "this mirror accepts the login, but the upstream rejects it; if the account exists only at this mirror, set "
    "UPSTREAM_IDENTITY=anonymous (in a settings file: its identity)"
)
_INSUFFICIENT = "insufficient_scope"
_NO_RIGHT = "the upstream denies access: the repository does not exist, or this login may not pull it"
_WRONG_LOGIN = (
    "the upstream rejects the mirror's own login: check UPSTREAM_USERNAME and UPSTREAM_PASSWORD "
    "(in a settings file: its username and password)"
)


class Refusals:
    """Every 401 of the mirror contains the challenges of the trust row, because half of the clients never ping."""

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

    def by_us(self, check: AccessCheck, message: str, error: TokenError | None = None) -> Unauthorized:
        """The error for a caller whom the rules of this mirror refuse."""
        request = check.request
        if request.purpose is Purpose.SEARCH and check.row.checks_accounts:
            # `docker search` supports only Basic; podman requests the catalog after any 401.
            return Unauthorized(message, challenges=(self._rewriter.basic(),), detail=_detail(request))
        if error and check.auth.bearer and check.auth.bearer.get("service") == self._rewriter.service:
            message += "; the upstream uses the same service name as this mirror: set another SELF_AUTH_SERVICE"
        challenges = self._rewriter.challenges(check.row, check.auth, request.caller.realm, request.shown, error)
        return Unauthorized(message, challenges=challenges, detail=_detail(request))

    @contextmanager
    def by_upstream(self, access: Access, *, is_proof: bool = False) -> Iterator[None]:
        """Turn the upstream's 401 into the mirror's. `is_proof`: the 401 answers a ping that proves the caller's login,
        and RelayedLogins has counted it already. Raises Unauthorized, Denied or IdentityRejected.
        """
        try:
            yield
        except (UpstreamChallenged, CredentialsRejected) as refusal:
            if access.login is not None and not is_proof:
                self._logins.refused(access.login, refusal)
            if isinstance(refusal, UpstreamChallenged):
                raise self._after_challenge(access, refusal) from refusal
            raise self._after_login(access, refusal) from refusal

    def _after_challenge(self, access: Access, challenged: UpstreamChallenged) -> RegistryError:
        request = access.request
        received, known = UpstreamAuth(challenged.challenges), access.check.auth
        if access.is_mirrors and access.credentials != ForwardedCredentials():
            if received.scheme is UpstreamScheme.BASIC and access.credentials != SessionCredentials():
                return IdentityRejected(_WRONG_LOGIN)
            return Denied(_NO_RIGHT, detail=challenged.detail)
        if access.credentials == ForwardedCredentials():
            # Only the answer to a request without credentials: a wrong token may get another challenge.
            self._upstream_auth.learn(request.upstream, received)
        # Some registries answer an expired token with a Basic challenge; the known Bearer challenge still applies.
        keep = known.bearer and not received.bearer
        auth = known if keep or received.scheme is UpstreamScheme.NONE else received
        has_token = isinstance(request.caller.authorization, Bearer)
        error: TokenError | None = "invalid_token" if has_token else None
        row = request.upstream.trust.row_for(auth)
        if row.relays and self._is_final(access, received):
            return Denied(_NO_RIGHT, detail=challenged.detail)
        scopes = _asked_for(received, known, request)
        challenges = self._rewriter.challenges(row, auth, request.caller.realm, scopes, error)
        if not has_token and row.challenge is ChallengeStyle.REWRITTEN:
            # RFC 6750 section 3.1: no error for a client that sent no token. The upstream refers to the mirror's token.
            challenges = tuple(challenge.with_parameters(error=None) for challenge in challenges)
        message = REFUSED_UPSTREAM if row.checks_accounts and error is None else challenged.message
        return Unauthorized(message, challenges=challenges, detail=challenged.detail)

    def _is_final(self, access: Access, received: UpstreamAuth) -> bool:
        """Whether the upstream's 401 means that a new token would be refused as well. Docker Hub answers so for a
        repository that does not exist; a challenge would have clients log in again and again.
        """
        needed, caller = access.request.needed, access.request.caller.authorization
        if not needed or received.bearer is None or received.bearer.get("error") != _INSUFFICIENT:
            return False
        if isinstance(access.credentials, SessionCredentials):
            # Their token was fetched for this request. The anonymous caller can still log in.
            return access.credentials.login is not None
        return isinstance(caller, Bearer) and self._verifier.was_issued_for(caller.token, needed)

    def _after_login(self, access: Access, refused: CredentialsRejected) -> RegistryError:
        """The upstream's token server rejected credentials that the mirror used."""
        if access.is_mirrors and access.credentials == SessionCredentials():
            return Denied(_NO_RIGHT, detail=refused.detail)  # ghcr.io refuses an anonymous token for private content
        if access.credentials == mirror_credentials(access.request.upstream):
            return IdentityRejected(_WRONG_LOGIN)
        return self.by_us(access.check, REFUSED_UPSTREAM if access.check.row.checks_accounts else refused.message)


def _asked_for(received: UpstreamAuth, known: UpstreamAuth, request: AccessRequest) -> ScopeSet:
    """The scopes for the challenge: those of the upstream's challenge to this resource; but those of the request if the
    upstream names none, or only repeats the scope of its ping.
    """
    scope = received.bearer.get("scope") if received.bearer else None
    if not scope or not request.shown:
        return request.shown
    try:
        asked = ScopeSet.parse([scope])
    except ScopeInvalid:
        return request.shown
    is_pings = known.bearer is not None and scope == known.bearer.get("scope")
    return asked if not is_pings or any(asked.cover(needed) for needed in request.needed) else request.shown


def _detail(request: AccessRequest) -> object:
    """The requested scopes in the form that distribution uses in its errors."""
    return [
        {"Type": scope.resource_type, "Class": scope.resource_class, "Name": scope.name, "Action": action}
        for scope in request.shown
        for action in sorted(scope.actions)
    ] or None
