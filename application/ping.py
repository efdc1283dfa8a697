"""AnswerPing: GET /v2/, on which half the clients decide how to authenticate."""

from application.access.access_request import Caller, Right, Wish
from application.access.authorize import Authorize
from application.access.challenges import Challenges
from application.access.relayed_logins import RelayedLogins
from application.ports.upstream import SessionCredentials, UpstreamRegistry
from application.upstreams.outages import OUTAGE
from domain.errors import UpstreamChallenged
from domain.upstreams import Upstream


class AnswerPing:
    """Accepts a caller whose authentication is good, here and, where it is the caller's own, upstream."""

    def __init__(
        self, authorize: Authorize, refusals: Challenges, registry: UpstreamRegistry, logins: RelayedLogins
    ) -> None:
        self._authorize = authorize
        self._refusals = refusals
        self._registry = registry
        self._logins = logins

    async def __call__(self, caller: Caller, upstream: Upstream) -> None:
        """Returns where the answer is "welcome". Raises Unauthorized with the row's challenges, or UpstreamFault."""
        right = await self._authorize(Wish.to_ping(caller, upstream))
        if right.is_mirrors:
            return
        with self._refusals.by_upstream(right, is_proof=True):
            if right.login is None:
                await self._ask(right)
            else:
                await self._logins.attempt(right.login, lambda: self._ask(right))

    async def _ask(self, right: Right) -> None:
        try:
            answer = await self._registry.ping(right.gate.wish.upstream, right.upstream)
        except OUTAGE:
            if right.upstream == SessionCredentials():
                return  # nobody's right, by a token of ours: there is nothing that the upstream could refuse
            raise
        if not answer.accepted:
            raise UpstreamChallenged("authentication required", challenges=answer.challenges)
