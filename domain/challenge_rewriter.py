"""ChallengeRewriter: replaces the upstream's challenge with one that names the mirror's token endpoint."""

from domain.access import NO_SCOPES, ScopeSet
from domain.challenge import Challenge
from domain.trust import ChallengeStyle, TrustRow, UpstreamAuth
from domain.value import Value


class ChallengeRewriter(Value, frozen=True):
    """Builds the challenges of 401 responses. `service`: the service name of the mirror."""

    service: str

    def challenges(
        self,
        row: TrustRow,
        auth: UpstreamAuth,
        realm: str,
        scopes: ScopeSet = NO_SCOPES,
        error: str | None = None,
    ) -> tuple[Challenge, ...]:
        """The challenges of a 401 response in this trust row, one per header line.

        `realm`: the absolute URL of the mirror's token endpoint. `scopes`: the scopes of the resource, empty for
        `GET /v2/`. `error`: `invalid_token` or `insufficient_scope` (RFC 6750 section 3.1), or None.
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
        self, upstream: Challenge, realm: str, scopes: ScopeSet = NO_SCOPES, error: str | None = None
    ) -> Challenge:
        """The upstream's Bearer challenge with the mirror's realm. Keeps the service, and the error if there is one;
        otherwise uses `error`.

        The challenge of a resource contains only the `scopes` of that resource. containerd and other clients request
        all scopes of a challenge together, and ghcr.io denies the token if it does not know one. An opaque scope
        (`aws` at public.ecr.aws) applies to every resource, so it stays. For `GET /v2/` (no `scopes`) the upstream's
        scope stays, except scopes of repositories.
        """
        return Challenge.of(
            "Bearer",
            realm=realm,
            service=upstream.get("service"),
            scope=(_opaque_scope(upstream) or str(scopes)) if scopes else general_scope(upstream),
            error=upstream.get("error") or error,
        )

    def own(self, realm: str, scopes: ScopeSet = NO_SCOPES, error: str | None = None) -> Challenge:
        """A Bearer challenge for a token that the mirror signs."""
        return Challenge.of("Bearer", realm=realm, service=self.service, scope=str(scopes), error=error)

    def basic(self) -> Challenge:
        """A Basic challenge for an account of the mirror (RFC 7617)."""
        return Challenge.of("Basic", realm=self.service)


def general_scope(challenge: Challenge) -> str | None:
    """The scopes of the challenge to `GET /v2/` that apply to all resources. ghcr.io names a repository there that does
    not exist; public.ecr.aws uses `aws` for every resource.
    """
    words = (challenge.get("scope") or "").split()
    return " ".join(word for word in words if not word.startswith("repository")) or None


def _opaque_scope(challenge: Challenge) -> str | None:
    words = (challenge.get("scope") or "").split()
    return " ".join(word for word in words if ":" not in word) or None
