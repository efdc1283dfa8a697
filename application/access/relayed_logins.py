"""RelayedLogins: a login that a caller makes at an upstream through this service is slowed like one of an account."""

import asyncio
import hashlib
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar

from application.access.access_request import RelayedLogin
from application.access.caller import CallerIdentities
from application.access.login_attempts import Attempt, LoginAttempts
from application.concurrency import LruCache
from application.ports.upstream import UpstreamCredentials, UpstreamRegistry
from application.upstreams.outages import Outages
from domain.access import Credentials
from domain.client_network import client_network
from domain.errors import CredentialsRejected, Denied, RegistryError, TooManyAttempts, UpstreamChallenged
from domain.trust import UpstreamAuth, UpstreamScheme

T = TypeVar("T")

_REMEMBERED = 16384


@dataclass
class _First:
    """The request that tries a login first. Those that come with the same login meanwhile wait for its end."""

    ended: asyncio.Event = field(default_factory=asyncio.Event)
    failure: RegistryError | None = None
    was_cancelled: bool = False


class RelayedLogins:
    """Counts the logins that an upstream refuses, by client address and account, and lets the next ones wait.

    Only the upstream knows which logins are correct, so the mirror asks it for each. A login that was correct from an
    address does not wait there again. `attempts` are separate from those of this service's own accounts: a correct
    login there must not clear the count of wrong logins upstream. `key` is a secret of this process.
    """

    def __init__(
        self,
        registry: UpstreamRegistry,
        attempts: LoginAttempts,
        callers: CallerIdentities,
        outages: Outages,
        key: bytes,
    ) -> None:
        self._registry = registry
        self._attempts = attempts
        self._callers = callers
        self._outages = outages
        self._key = key
        self._right: LruCache[bytes, bool] = LruCache(_REMEMBERED)
        self._names: LruCache[bytes, bool] = LruCache(_REMEMBERED)
        self._first: dict[bytes, _First] = {}

    async def attempt(self, login: RelayedLogin, ask: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """The result of `ask`, which sends the login upstream. It is called when the login's turn has come.

        A login is wrong if `ask` raises CredentialsRejected, UpstreamChallenged by Basic, or, if the login was never
        right here, Denied: ghcr.io answers 403 to a wrong password. Other errors say nothing about the login.

        Raises TooManyAttempts, and what `ask` raises.
        """
        attempt, key = self._attempt(login), self._fingerprint(login)
        while not (self._right.get(key) and self._attempts.trusts(attempt)):
            first = self._first.get(key)
            if first is None:
                return await self._ask_first(attempt, key, ask)
            await first.ended.wait()
            if first.failure:
                raise first.failure
            if not first.was_cancelled:
                break  # right, or undecided: the same login is no further guess
        return await self._judged(attempt, key, ask)

    async def prove(self, login: RelayedLogin, right: UpstreamCredentials) -> None:
        """Have the upstream say whether a login is right that is about to be sent with a request for a resource, by a
        ping, as `docker login` does; nothing is asked where it was right before.

        Then no request for a resource waits in a queue of this service while it counts as one to the upstream. An
        upstream that cannot be asked, or that does not decide it, leaves that to the request itself.

        Raises TooManyAttempts, CredentialsRejected or UpstreamChallenged.
        """
        if self._right.get(self._fingerprint(login)) and self._attempts.trusts(self._attempt(login)):
            return
        try:
            await self.attempt(login, lambda: self._ping(login, right))
        except (TooManyAttempts, CredentialsRejected, UpstreamChallenged):
            raise
        except RegistryError:
            return

    def refused(self, login: RelayedLogin, refusal: CredentialsRejected | UpstreamChallenged) -> None:
        """The upstream refused a request with this login, so the login is checked again before its next use.
        Where the ping had decided nothing (see `prove`), it counts as a wrong login now.
        """
        key = self._fingerprint(login)
        was_right = self._right.get(key)
        self._right.pop(key)
        if not was_right and (isinstance(refusal, CredentialsRejected) or _is_by_basic(refusal)):
            self._attempts.wrong(self._attempt(login))

    async def _ping(self, login: RelayedLogin, right: UpstreamCredentials) -> None:
        upstream, caller = login.upstream, self._callers.caller_of(login.secret)
        answer = await self._outages.attempt(
            upstream, caller, lambda: self._registry.ping(upstream, right), has_stand_in=True
        )
        challenged = UpstreamChallenged("authentication required", challenges=answer.challenges)
        if not answer.accepted and _is_by_basic(challenged):
            raise challenged
        # An upstream that asks for a Bearer token here does not say what it thinks of a password; to ask it each time
        # would double the requests for nothing. (Row 1 only: in the other rows a password goes where Basic is wanted.)

    async def _ask_first(self, attempt: Attempt, key: bytes, ask: Callable[[], Coroutine[Any, Any, T]]) -> T:
        first = self._first[key] = _First()
        try:
            async with self._attempts.turn(attempt):
                return await self._judged(attempt, key, ask)
        except (TooManyAttempts, CredentialsRejected) as failure:
            first.failure = failure
            raise
        except UpstreamChallenged as challenged:
            first.failure = challenged if _is_by_basic(challenged) else None
            raise
        except asyncio.CancelledError:
            first.was_cancelled = True
            raise
        finally:
            del self._first[key]
            first.ended.set()

    async def _judged(self, attempt: Attempt, key: bytes, ask: Callable[[], Coroutine[Any, Any, T]]) -> T:
        try:
            result = await ask()
        except CredentialsRejected:
            self._wrong(attempt, key)
            raise
        except UpstreamChallenged as challenged:
            if _is_by_basic(challenged):
                self._wrong(attempt, key)
            raise
        except Denied:
            if not self._right.get(key):
                self._wrong(attempt, key)
            raise
        self._attempts.right(attempt)
        self._right.put(key, value=True)
        self._names.put(self._name(attempt.account), value=True)
        return result

    def _wrong(self, attempt: Attempt, key: bytes) -> None:
        self._right.pop(key)
        self._attempts.wrong(attempt)

    def _attempt(self, login: RelayedLogin) -> Attempt:
        name = login.secret.username if isinstance(login.secret, Credentials) else self._hash(login.secret).hex()
        account = f"{name} at {login.upstream.url}"
        return Attempt(client_network(login.address), account, exists=bool(self._names.get(self._name(account))))

    def _name(self, account: str) -> bytes:
        return self._hash(account)

    def _fingerprint(self, login: RelayedLogin) -> bytes:
        secret = login.secret
        kind, text = ("login", secret.joined()) if isinstance(secret, Credentials) else ("text", secret)
        network, url = client_network(login.address), login.upstream.url
        return self._hash(f"{len(network)}:{network}:{len(url)}:{url}:{kind}:{text}")

    def _hash(self, text: str) -> bytes:
        return hashlib.blake2b(text.encode(errors="surrogatepass"), key=self._key, digest_size=32).digest()


def _is_by_basic(challenged: UpstreamChallenged) -> bool:
    """Whether the challenge is an answer to a password. A Bearer challenge says how to log in, not that it is wrong."""
    return UpstreamAuth(challenged.challenges).scheme is UpstreamScheme.BASIC
