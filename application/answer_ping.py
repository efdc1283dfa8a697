"""AnswerPing: GET /v2/, on which half the clients decide how to authenticate."""

from application.authorize_pull import AuthorizePull
from application.cache.outages import OUTAGE
from application.ports.upstream_registry import Session, UpstreamRegistry
from application.refusals import Refusals
from application.relayed_logins import RelayedLogins
from application.rights import Caller, Right, Wish
from domain.errors import UpstreamChallenged
from domain.upstreams import Upstream


class AnswerPing:
    """Accepts a caller whose authentication is good, here and, where it is the caller's own, upstream."""

    def __init__(
        self, authorize: AuthorizePull, refusals: Refusals, registry: UpstreamRegistry, logins: RelayedLogins
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
            if right.upstream == Session():
                return  # nobody's right, by a token of ours: there is nothing that the upstream could refuse
            raise
        if not answer.accepted:
            raise UpstreamChallenged("authentication required", challenges=answer.challenges)
