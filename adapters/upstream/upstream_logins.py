"""Answers the challenges of upstreams with the mirror's credentials, and caches the answers."""

from collections.abc import Sequence

from application.concurrency import LruCache, SharedFetches
from application.ports.upstream import TokenRelay, TokenRequest
from domain.access import Credentials, Scope, ScopeSet
from domain.authorization import encode_basic
from domain.challenge import Challenge
from domain.errors import MirrorFault, RegistryError, ScopeInvalid, UpstreamBroken
from domain.ports import Clock
from domain.trust import UpstreamAuth
from domain.upstreams import Upstream
from domain.value import Value

_MOST_LOGINS = 4096
# A token is renewed when a tenth of its lifetime remains, so that it does not expire during a request.
_USED_SHARE = 0.9


class LoginKey(Value, frozen=True):
    """What a login is valid for: an upstream, credentials (None: anonymous) and a scope."""

    upstream: Upstream
    credentials: Credentials | None
    scope: Scope | None


class UpstreamLogins:
    """A bounded cache of logins at upstreams. Concurrent requests for the same login share one token request."""

    def __init__(self, relay: TokenRelay, clock: Clock) -> None:
        self._relay = relay
        self._clock = clock
        self._logins: LruCache[LoginKey, tuple[str, float]] = LruCache(_MOST_LOGINS)
        """Authorization values, and the time at which each must be renewed."""
        self._running: SharedFetches[RegistryError] = SharedFetches()

    def cached(self, key: LoginKey) -> str | None:
        """The cached Authorization value; None if there is none or it is about to expire."""
        authorization, until = self._logins.get(key) or (None, 0.0)
        return authorization if self._clock.now() < until else None

    async def answer(self, key: LoginKey, challenges: Sequence[Challenge], refused: str | None) -> str | None:
        """An Authorization value that answers the challenges, or None if the mirror cannot answer them.

        `refused`: the value that the upstream has just rejected. A cached value is replaced only if it is equal to this
        one. Raises the errors of the token relay.
        """
        while running := self._running.under_way(key):
            if failure := await running.wait():
                raise failure
        known = self.cached(key)
        if known and known != refused:
            return known
        async with self._running.lead(key) as login:
            try:
                return await self._log_in(key, UpstreamAuth(tuple(challenges)))
            except MirrorFault:
                raise  # it concerns this request only
            except RegistryError as error:
                # Requests that wait for this login share its failure; otherwise each would wait as long again.
                login.result = error
                raise

    async def _log_in(self, key: LoginKey, auth: UpstreamAuth) -> str | None:
        self._logins.pop(key)
        if auth.bearer:
            scopes = _scopes(auth.bearer, key.scope)
            token = await self._relay.fetch(TokenRequest(key.upstream, auth.bearer, scopes, key.credentials))
            authorization, until = f"Bearer {token.text}", self._clock.now() + token.expires_in * _USED_SHARE
        elif key.credentials and any(challenge.is_basic for challenge in auth.challenges):
            authorization, until = f"Basic {encode_basic(key.credentials)}", float("inf")
        else:
            return None
        self._logins.put(key, (authorization, until))
        return authorization


def _scopes(challenge: Challenge, scope: Scope | None) -> ScopeSet:
    """The scope of the challenge, if it has one: public.ecr.aws requires a scope that cannot be derived."""
    if text := challenge.get("scope"):
        try:
            return ScopeSet.parse([text])
        except ScopeInvalid as error:
            raise UpstreamBroken("the upstream's challenge asks for an invalid scope") from error
    return ScopeSet((scope,)) if scope else ScopeSet()
