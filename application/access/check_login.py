"""CheckLogin: checks the login of an account. Hashes passwords in threads, and slows down clients that guess."""

import hashlib

from application.access.login_attempts import Attempt, ExpectedWait, LoginAttempts
from application.concurrency import LruCache, SingleFlight
from application.ports.slow_steps import SlowSteps
from domain.access import Account, Credentials
from domain.account_policy import AccountPolicy
from domain.client_network import client_network

_REMEMBERED = 16384


class CheckLogin:
    """Checks an account's name and password, for the token endpoint and for Basic on a resource.

    A correct login is remembered by a keyed fingerprint until the account's password changes, so that a client which
    logs in for every pull costs one slow hash. A wrong login is not remembered: that would only save time for a client
    that guesses. `key` is a secret of this process.
    """

    def __init__(self, policy: AccountPolicy, attempts: LoginAttempts, steps: SlowSteps, key: bytes) -> None:
        self._policy = policy
        self._attempts = attempts
        self._steps = steps
        self._key = key
        self._stamps: LruCache[bytes, str] = LruCache(_REMEMBERED)
        """The stamps of the accounts of correct logins, by the fingerprint of the login."""
        self._joined = SingleFlight()

    async def __call__(self, credentials: Credentials, address: str) -> Account | None:
        """The account, or None for wrong credentials. `address`: the client's address. Raises TooManyAttempts.

        A login that was correct from the same network before does not wait. From another network it waits like any
        other, or a client that guesses there would learn at once which password is correct.
        """
        attempt = self._attempt(credentials.username, address)
        login = self._fingerprint(credentials, attempt.address)
        if (account := self._remembered(login, attempt.account)) and self._attempts.trusts(attempt):
            return account
        # docker sends the same login with all layers at once, which counts as one attempt.
        return await self._joined.do(login, lambda: self._check(credentials, attempt, login))

    def expected_wait(self, name: str, address: str) -> ExpectedWait:
        """What a login to this account from this address would meet now, if it was not correct there before."""
        return self._attempts.expected(self._attempt(name, address))

    def is_unchanged(self, account: Account) -> bool:
        """Whether the account exists and its password is the same as when the stamp was taken. Called for each token of
        an account.
        """
        return self._policy.is_unchanged(account)

    def _attempt(self, name: str, address: str) -> Attempt:
        return Attempt(client_network(address), name, exists=self._policy.stamp(name) != "")

    async def _check(self, credentials: Credentials, attempt: Attempt, login: bytes) -> Account | None:
        async with self._attempts.turn(attempt):
            from_any_network = self._fingerprint(credentials, None)
            account = self._remembered(from_any_network, credentials.username)
            if account is None:
                account = await self._steps.run(lambda: self._policy.authenticate(credentials))
            if account is None:
                self._attempts.wrong(attempt)
                return None
            self._attempts.right(attempt)
            for fingerprint in (login, from_any_network) if account.stamp else ():
                self._stamps.put(fingerprint, account.stamp)
            return account

    def _remembered(self, fingerprint: bytes, name: str) -> Account | None:
        """The account for which this login was correct before; None if its stamp has changed since."""
        account = Account(name, self._stamps.get(fingerprint) or "")
        return account if self._policy.is_unchanged(account) else None

    def _fingerprint(self, credentials: Credentials, network: str | None) -> bytes:
        text = f"{'' if network is None else len(network)}:{network or ''}:{credentials.joined()}"
        return hashlib.blake2b(text.encode(errors="surrogatepass"), key=self._key, digest_size=32).digest()
