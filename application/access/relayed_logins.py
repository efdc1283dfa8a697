"""RelayedLogins: slows down wrong logins that callers send to an upstream through this mirror."""

import asyncio
import hashlib
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from application.access.access_request import RelayedLogin
from application.access.caller import CallerIdentities
from application.access.login_attempts import Attempt, ExpectedWait, LoginAttempts
from application.concurrency import LruCache
from application.ports.upstream import UpstreamCredentials, UpstreamRegistry
from application.upstreams.outages import Outages
from domain.access import Credentials
from domain.client_network import client_network
from domain.errors import CredentialsRejected, Denied, RegistryError, TooManyAttempts, UpstreamChallenged
from domain.trust import UpstreamAuth, UpstreamScheme
from domain.upstreams import Upstream

T = TypeVar("T")

_REMEMBERED = 16384


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
        self._correct: LruCache[bytes, bool] = LruCache(_REMEMBERED)
        self._names: LruCache[bytes, bool] = LruCache(_REMEMBERED)
        self._first: dict[bytes, asyncio.Future[None]] = {}
        """The first request with each login, while it runs. The others with the same login wait for its result: an
        exception if the login is wrong or must wait.
        """

    async def attempt(self, login: RelayedLogin, ask: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """The result of `ask`, which sends the login upstream. It is called when the login's turn has come.

        A login is wrong if `ask` raises CredentialsRejected, UpstreamChallenged by Basic, or, if the login was never
        right here, Denied: ghcr.io answers 403 to a wrong password. Other errors say nothing about the login.

        Raises TooManyAttempts, and what `ask` raises.
        """
        attempt, key = self._attempt(login), self._fingerprint(login)
        while not (self._correct.get(key) and self._attempts.trusts(attempt)):
            first = self._first.get(key)
            if first is None:
                return await self._ask_first(attempt, key, ask)
            await asyncio.wait([first])
            if first.cancelled():
                continue
            if failure := first.exception():
                raise failure
            break  # correct, or not decided: the same login again is not another guess
        return await self._ask(attempt, key, ask)

    async def prove(self, login: RelayedLogin, credentials: UpstreamCredentials) -> None:
        """Let the upstream check a login with a ping, as `docker login` does, before the login is sent with a request
        for a resource. A login that was correct before is not checked.

        So a request for a resource never waits for the turn of its login. If the upstream is unavailable or its answer
        does not decide, the request itself shows whether the login is correct.

        Raises TooManyAttempts, CredentialsRejected or UpstreamChallenged.
        """
        if self._correct.get(self._fingerprint(login)) and self._attempts.trusts(self._attempt(login)):
            return
        try:
            await self.attempt(login, lambda: self._ping(login, credentials))
        except (TooManyAttempts, CredentialsRejected, UpstreamChallenged):
            raise
        except RegistryError:
            return

    def expected_wait(self, upstream: Upstream, name: str, address: str) -> ExpectedWait:
        """What a login with this user name from this address would meet now, if it was not correct there before."""
        return self._attempts.expected(self._attempt_of(upstream, name, address))

    def refused(self, login: RelayedLogin, refusal: CredentialsRejected | UpstreamChallenged) -> None:
        """The upstream refused a request with this login, so the login is checked again before its next use. If `prove`
        did not show that the login was correct, it now counts as wrong.
        """
        key = self._fingerprint(login)
        was_correct = self._correct.get(key)
        self._correct.pop(key)
        if not was_correct and _is_wrong_login(refusal):
            self._attempts.wrong(self._attempt(login))

    async def _ping(self, login: RelayedLogin, credentials: UpstreamCredentials) -> None:
        upstream, caller = login.upstream, self._callers.caller_of(login.secret)
        answer = await self._outages.attempt(
            upstream, caller, lambda: self._registry.ping(upstream, credentials), has_stand_in=True
        )
        challenged = UpstreamChallenged("authentication required", challenges=answer.challenges)
        # A Bearer challenge does not say whether the password is correct. The login then counts as correct, because
        # another ping would get the same answer. (Only in row 1: the other rows send a password only for Basic.)
        if not answer.accepted and _is_wrong_login(challenged):
            raise challenged

    async def _ask_first(self, attempt: Attempt, key: bytes, ask: Callable[[], Coroutine[Any, Any, T]]) -> T:
        first = self._first[key] = asyncio.get_running_loop().create_future()
        try:
            async with self._attempts.turn(attempt):
                return await self._ask(attempt, key, ask)
        except (TooManyAttempts, CredentialsRejected, UpstreamChallenged) as failure:
            if isinstance(failure, TooManyAttempts) or _is_wrong_login(failure):
                first.set_exception(failure)
                first.exception()  # if it is never retrieved, asyncio logs a warning
            raise
        except asyncio.CancelledError:
            first.cancel()
            raise
        finally:
            del self._first[key]
            if not first.done():
                first.set_result(None)

    async def _ask(self, attempt: Attempt, key: bytes, ask: Callable[[], Coroutine[Any, Any, T]]) -> T:
        try:
            result = await ask()
        except (CredentialsRejected, UpstreamChallenged, Denied) as refusal:
            if _is_wrong_login(refusal) or (isinstance(refusal, Denied) and not self._correct.get(key)):
                self._correct.pop(key)
                self._attempts.wrong(attempt)
            raise
        self._attempts.right(attempt)
        self._correct.put(key, value=True)
        self._names.put(self._hash(attempt.account), value=True)
        return result

    def _attempt(self, login: RelayedLogin) -> Attempt:
        name = login.secret.username if isinstance(login.secret, Credentials) else self._hash(login.secret).hex()
        return self._attempt_of(login.upstream, name, login.address)

    def _attempt_of(self, upstream: Upstream, name: str, address: str) -> Attempt:
        account = f"{name} at {upstream.url}"
        return Attempt(client_network(address), account, exists=bool(self._names.get(self._hash(account))))

    def _fingerprint(self, login: RelayedLogin) -> bytes:
        secret = login.secret
        kind, text = ("login", secret.joined()) if isinstance(secret, Credentials) else ("text", secret)
        network, url = client_network(login.address), login.upstream.url
        return self._hash(f"{len(network)}:{network}:{len(url)}:{url}:{kind}:{text}")

    def _hash(self, text: str) -> bytes:
        return hashlib.blake2b(text.encode(errors="surrogatepass"), key=self._key, digest_size=32).digest()


def _is_wrong_login(refusal: RegistryError) -> bool:
    """Whether the refusal means that the login is wrong. A Bearer challenge only says how to authenticate."""
    if isinstance(refusal, UpstreamChallenged):
        return UpstreamAuth(refusal.challenges).scheme is UpstreamScheme.BASIC
    return isinstance(refusal, CredentialsRejected)
