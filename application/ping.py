"""AnswerPing: GET /v2/, whose answer tells clients how to authenticate."""

from application.access.access_request import Access, AccessRequest, Caller, Purpose
from application.access.authorize import Authorize
from application.access.refusals import Refusals
from application.access.relayed_logins import RelayedLogins
from application.ports.upstream import SessionCredentials, UpstreamRegistry
from domain.errors import UpstreamChallenged, UpstreamUnavailable
from domain.upstreams import Upstream


class AnswerPing:
    """Accepts callers with valid credentials. The mirror checks them; the upstream checks the credentials of callers
    who use their own login there.
    """

    def __init__(
        self, authorize: Authorize, refusals: Refusals, registry: UpstreamRegistry, logins: RelayedLogins
    ) -> None:
        self._authorize = authorize
        self._refusals = refusals
        self._registry = registry
        self._logins = logins

    async def __call__(self, caller: Caller, upstream: Upstream) -> None:
        """Returns if the caller is accepted. Raises Unauthorized with the challenges of the trust row, or
        UpstreamFault.
        """
        access = await self._authorize.access(AccessRequest(caller, upstream, Purpose.PING))
        if access.is_mirrors:
            return
        with self._refusals.by_upstream(access, is_proof=True):
            if access.login is None:
                await self._ask(access)
            else:
                await self._logins.attempt(access.login, lambda: self._ask(access))

    async def _ask(self, access: Access) -> None:
        try:
            answer = await self._registry.ping(access.request.upstream, access.credentials)
        except UpstreamUnavailable:
            if access.credentials == SessionCredentials():
                return  # an anonymous token of the mirror: the upstream has no credentials to refuse
            raise
        if not answer.accepted:
            raise UpstreamChallenged("authentication required", challenges=answer.challenges)
