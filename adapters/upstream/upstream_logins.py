"""How a session of ours answers an upstream's challenge, and what it remembers of the answers."""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass, field

from application.ports.upstream import QueueWatch, TokenRelay, TokenRequest, current_watch
from domain.access import Credentials, Scope, ScopeSet
from domain.authorization import encode_basic
from domain.challenge import Challenge
from domain.errors import MirrorFault, RegistryError, ScopeInvalid, UpstreamBroken
from domain.ports import Clock
from domain.trust import UpstreamAuth
from domain.upstreams import Upstream

_REMEMBERED = 4096
# A token is renewed when a tenth of its life is left, so that none expires on its way.
_USED_SHARE = 0.9


@dataclass(frozen=True)
class LoginKey:
    """What a login is good for: an upstream, somebody's credentials (None: nobody's) and what is wanted there."""

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
    """That of whoever holds the lock."""

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Holds the lock. While another one does, who waits is in the queue as long as that one is."""
        with self.work.followed_by(current_watch()) if self.lock.locked() else nullcontext():
            await self.lock.acquire()
        self.work = current_watch()
        try:
            yield
        finally:
            self.lock.release()


class UpstreamLogins:
    """Tokens of our own upstream sessions, bounded in number, fetched once for all who wait for the same."""

    def __init__(self, relay: TokenRelay, clock: Clock) -> None:
        self._relay = relay
        self._clock = clock
        self._logins: OrderedDict[LoginKey, _Login] = OrderedDict()

    def remembered(self, key: LoginKey) -> str | None:
        """The Authorization that worked last time, None where there is none or it is about to expire."""
        login = self._logins.get(key)
        return login.authorization if login and self._clock.now() < login.until else None

    async def answer(self, key: LoginKey, challenges: Sequence[Challenge], refused: str | None) -> str | None:
        """An Authorization that answers the challenges; None where we have no answer.

        `refused` is what was sent and did not do: a remembered one is given up only if it is that one. Raises
        what the token relay raises.
        """
        login = self._slot(key)
        waited = login.lock.locked()
        async with login.turn():
            if waited and login.failure:
                # Who waited for this login shares its failure: in turn, each would wait as long again.
                raise login.failure
            known = self.remembered(key)
            if known and known != refused:
                return known
            login.authorization, login.failure = None, None
            try:
                await self._log_in(login, key, UpstreamAuth(tuple(challenges)))
            except MirrorFault:
                raise  # it says nothing to the others who wait
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

    def _slot(self, key: LoginKey) -> _Login:
        login = self._logins.setdefault(key, _Login())
        self._logins.move_to_end(key)
        while len(self._logins) > _REMEMBERED:
            self._logins.popitem(last=False)
        return login


def _scopes(challenge: Challenge, wanted: Scope | None) -> ScopeSet:
    """The challenge knows best: public.ecr.aws wants a scope that nobody would guess."""
    if scope := challenge.get("scope"):
        try:
            return ScopeSet.parse([scope])
        except ScopeInvalid as error:
            raise UpstreamBroken("the upstream's challenge asks for an invalid scope") from error
    return ScopeSet((wanted,)) if wanted else ScopeSet()
