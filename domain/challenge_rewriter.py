"""ChallengeRewriter: turns the upstream's challenge into one that leads clients to us."""

from domain.access import ScopeSet
from domain.challenge import Challenge
from domain.trust import ChallengeStyle, TrustRow, UpstreamAuth

_NOTHING = ScopeSet()


class ChallengeRewriter:
    """Knows challenges, scopes, our service name; the realm comes with each request."""

    def __init__(self, service: str) -> None:
        self.service = service

    def challenges(
        self,
        row: TrustRow,
        auth: UpstreamAuth,
        realm: str,
        scopes: ScopeSet = _NOTHING,
        error: str | None = None,
    ) -> tuple[Challenge, ...]:
        """What a 401 says in this row, one challenge a header line.

        `realm` is the absolute address of our token endpoint; `scopes` those of the resource, none for the ping;
        `error` is `invalid_token` or `insufficient_scope` (RFC 6750 section 3.1), None where no token was at fault.
        """
        match row.challenge:
            case ChallengeStyle.UPSTREAM:
                return auth.challenges
            case ChallengeStyle.OWN_BASIC:
                return (self.basic(),)
            case ChallengeStyle.REWRITTEN if auth.bearer:
                return (self.rewrite(auth.bearer, realm, scopes, error),)
            case _:
                return (self.own(realm, scopes, error),)

    def rewrite(
        self, upstream: Challenge, realm: str, scopes: ScopeSet = _NOTHING, error: str | None = None
    ) -> Challenge:
        """The upstream's Bearer challenge with our realm; its service and error stay as they were, `error` speaks where
        it is silent.

        A resource's challenge asks for the `scopes` of this resource and for nothing else: containerd and others ask
        for all scopes of a challenge together, and ghcr.io refuses a token for any that it does not know. Only a scope
        that is one word (`aws` at public.ecr.aws) is meant for each resource and stays. For the ping (no `scopes`) the
        upstream's own stays, unless it names a repository: nobody has asked for one there.
        """
        return Challenge.of(
            "Bearer",
            realm=realm,
            service=upstream.get("service"),
            scope=(_opaque_scope(upstream) or str(scopes)) if scopes else general_scope(upstream),
            error=upstream.get("error") or error,
        )

    def own(self, realm: str, scopes: ScopeSet = _NOTHING, error: str | None = None) -> Challenge:
        """A Bearer challenge for a token that we sign ourselves."""
        return Challenge.of("Bearer", realm=realm, service=self.service, scope=str(scopes), error=error)

    def basic(self) -> Challenge:
        """A Basic challenge for an account of ours (RFC 7617)."""
        return Challenge.of("Basic", realm=self.service)


def general_scope(challenge: Challenge) -> str | None:
    """The scope that a challenge to the ping asks for, as far as it is meant for all resources. ghcr.io names a
    repository there that does not exist; public.ecr.aws asks for `aws`, whatever is wanted.
    """
    words = (challenge.get("scope") or "").split()
    return " ".join(word for word in words if not word.startswith("repository")) or None


def _opaque_scope(challenge: Challenge) -> str | None:
    words = (challenge.get("scope") or "").split()
    return " ".join(word for word in words if ":" not in word) or None
