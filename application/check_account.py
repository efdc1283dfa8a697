"""CheckAccount: whose login this is, without holding up the event loop, and without hurry for who only guesses."""

import hashlib
import ipaddress

from application.cache.joined import Joined
from application.cache.remembered import Remembered
from application.login_attempts import Attempt, LoginAttempts
from application.ports.slow_steps import SlowSteps
from domain.access import Account, Credentials
from domain.account_policy import AccountPolicy

_REMEMBERED = 16384
_IPV6_SITE = 64
"""Bits of an address; the rest a machine may choose, and choose anew for each attempt (RFC 8981)."""


class CheckAccount:
    """The one way to an account by name and password, for the token endpoint and for Basic on a resource.

    Right logins are remembered by a keyed fingerprint, for as long as the account has the same password, so that a
    client that logs in for every pull costs a slow hash once. Wrong ones are not: what would be gained is time, and
    for whoever guesses. `key` is a secret of this process.
    """

    def __init__(self, policy: AccountPolicy, attempts: LoginAttempts, steps: SlowSteps, key: bytes) -> None:
        self._policy = policy
        self._attempts = attempts
        self._steps = steps
        self._key = key
        self._right: Remembered[bytes, str] = Remembered(_REMEMBERED)
        self._joined = Joined()

    async def __call__(self, credentials: Credentials, address: str) -> Account | None:
        """The account, None where these credentials open none. `address` is the client's. Raises TooManyAttempts.

        From where it was right before, a login waits for nobody. From elsewhere it does, or whoever guesses from
        there would be told at once what is right, in spite of all slowing.
        """
        site, name = _site(address), credentials.username
        attempt = Attempt(site, name, self._policy.still_exists(name))
        here = self._fingerprint(credentials, site)
        if self._is_right(here, name) and self._attempts.trusts(attempt):
            return Account(name)
        # The same login many times at once, as docker sends it with each layer, is one attempt.
        return await self._joined.do(here, lambda: self._check(credentials, attempt, here))

    def still_exists(self, name: str) -> bool:
        """Whether there still is such an account; asked for each token that bears its name."""
        return self._policy.still_exists(name)

    def close(self) -> None:
        """At the end of this process, or of the settings that the accounts are of."""
        self._steps.close()

    async def _check(self, credentials: Credentials, attempt: Attempt, here: bytes) -> Account | None:
        async with self._attempts.turn(attempt):
            stamp = self._policy.stamp(credentials.username)
            anywhere = self._fingerprint(credentials, None)
            if self._is_right(anywhere, credentials.username):
                account: Account | None = Account(credentials.username)
            else:
                account = await self._steps.run(lambda: self._policy.authenticate(credentials))
            if account is None:
                self._attempts.wrong(attempt)
                return None
            self._attempts.right(attempt)
            for fingerprint in (here, anywhere) if stamp else ():
                self._right.put(fingerprint, stamp)
            return account

    def _is_right(self, fingerprint: bytes, name: str) -> bool:
        stamp = self._right.get(fingerprint)
        return stamp is not None and stamp == self._policy.stamp(name)

    def _fingerprint(self, credentials: Credentials, site: str | None) -> bytes:
        text = f"{'' if site is None else len(site)}:{site or ''}:{credentials.joined()}"
        return hashlib.blake2b(text.encode(errors="surrogatepass"), key=self._key, digest_size=32).digest()


def _site(address: str) -> str:
    """What is one place as far as guessing goes."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv4Address):
        return str(parsed)
    if parsed.ipv4_mapped:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.ip_network((int(parsed), _IPV6_SITE), strict=False))
