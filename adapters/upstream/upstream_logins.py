"""Answers the challenges of upstreams with the mirror's credentials, and caches the answers."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass, field

from application.concurrency import LruCache
from application.ports.upstream import QueueWatch, TokenRelay, TokenRequest, current_watch
from domain.access import Credentials, Scope, ScopeSet
from domain.authorization import encode_basic
from domain.challenge import Challenge
from domain.errors import MirrorFault, RegistryError, ScopeInvalid, UpstreamBroken
from domain.ports import Clock
from domain.trust import UpstreamAuth
from domain.upstreams import Upstream

_REMEMBERED = 4096
# A token is renewed when a tenth of its lifetime remains, so that it does not expire during a request.
_USED_SHARE = 0.9


@dataclass(frozen=True)
class LoginKey:
    """What a login is valid for: an upstream, credentials (None: anonymous) and a scope."""

    upstream: Upstream
    credentials: Credentials | None
    wanted: Scope | None


@dataclass
class _Login:
    authorization: str | None = field(default=None, repr=False)
    until: float = 0.0
    failure: RegistryError | None = None
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    work: QueueWatch = field(default_factory=QueueWatch)
    """The queue watch of the task that holds the lock."""

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Hold the lock. A task that waits for the lock counts as queued while the holder of the lock is queued."""
        with self.work.followed_by(current_watch()) if self.lock.locked() else nullcontext():
            await self.lock.acquire()
        self.work = current_watch()
        try:
            yield
        finally:
            self.lock.release()


class UpstreamLogins:
    """A bounded cache of logins at upstreams. Concurrent requests for the same login share one token request."""

    def __init__(self, relay: TokenRelay, clock: Clock) -> None:
        self._relay = relay
        self._clock = clock
        self._logins: LruCache[LoginKey, _Login] = LruCache(_REMEMBERED)

    def remembered(self, key: LoginKey) -> str | None:
        """The cached Authorization value; None if there is none or it is about to expire."""
        login = self._logins.get(key)
        return login.authorization if login and self._clock.now() < login.until else None

    async def answer(self, key: LoginKey, challenges: Sequence[Challenge], refused: str | None) -> str | None:
        """An Authorization value that answers the challenges, or None if the mirror cannot answer them.

        `refused`: the value that the upstream has just rejected. A cached value is replaced only if it is equal to this
        one. Raises the errors of the token relay.
        """
        login = self._logins.get(key) or _Login()
        self._logins.put(key, login)
        waited = login.lock.locked()
        async with login.turn():
            if waited and login.failure:
                # Tasks that waited for this login share its failure; otherwise each would wait as long again.
                raise login.failure
            known = self.remembered(key)
            if known and known != refused:
                return known
            login.authorization, login.failure = None, None
            try:
                await self._log_in(login, key, UpstreamAuth(tuple(challenges)))
            except MirrorFault:
                raise  # it concerns this request only
            except RegistryError as error:
                login.failure = error
                raise
            return login.authorization

    async def _log_in(self, login: _Login, key: LoginKey, auth: UpstreamAuth) -> None:
        if auth.bearer:
            scopes = _scopes(auth.bearer, key.wanted)
            token = await self._relay.fetch(TokenRequest(key.upstream, auth.bearer, scopes, key.credentials))
            login.authorization = f"Bearer {token.text}"
            login.until = self._clock.now() + token.expires_in * _USED_SHARE
        elif key.credentials and any(challenge.is_basic for challenge in auth.challenges):
            login.authorization = f"Basic {encode_basic(key.credentials)}"
            login.until = float("inf")


def _scopes(challenge: Challenge, wanted: Scope | None) -> ScopeSet:
    """The scope of the challenge, if it has one: public.ecr.aws requires a scope that cannot be derived."""
    if scope := challenge.get("scope"):
        try:
            return ScopeSet.parse([scope])
        except ScopeInvalid as error:
            raise UpstreamBroken("the upstream's challenge asks for an invalid scope") from error
    return ScopeSet((wanted,)) if wanted else ScopeSet()
