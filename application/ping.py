"""AnswerPing: GET /v2/, on which half the clients decide how to authenticate."""

from application.access.access_request import Access, AccessRequest, Caller
from application.access.authorize import Authorize
from application.access.challenges import Challenges
from application.access.relayed_logins import RelayedLogins
from application.ports.upstream import SessionCredentials, UpstreamRegistry
from domain.errors import UpstreamChallenged, UpstreamUnavailable
from domain.upstreams import Upstream


class AnswerPing:
    """Accepts a caller whose authentication is good, here and, where it is the caller's own, upstream."""

    def __init__(
        self, authorize: Authorize, challenges: Challenges, registry: UpstreamRegistry, logins: RelayedLogins
    ) -> None:
        self._authorize = authorize
        self._challenges = challenges
        self._registry = registry
        self._logins = logins

    async def __call__(self, caller: Caller, upstream: Upstream) -> None:
        """Returns where the answer is "welcome". Raises Unauthorized with the row's challenges, or UpstreamFault."""
        access = await self._authorize.access(AccessRequest.to_ping(caller, upstream))
        if access.is_mirrors:
            return
        with self._challenges.by_upstream(access, is_proof=True):
            if access.login is None:
                await self._ask(access)
            else:
                await self._logins.attempt(access.login, lambda: self._ask(access))

    async def _ask(self, access: Access) -> None:
        try:
            answer = await self._registry.ping(access.request.upstream, access.credentials)
        except UpstreamUnavailable:
            if access.credentials == SessionCredentials():
                return  # nobody's right, by a token of ours: there is nothing that the upstream could refuse
            raise
        if not answer.accepted:
            raise UpstreamChallenged("authentication required", challenges=answer.challenges)
