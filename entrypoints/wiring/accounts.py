"""Builds the account directory and the account check from the settings."""

import hashlib
import secrets

from adapters.accounts.fixed import FixedAccountDirectory
from adapters.accounts.htpasswd import HtpasswdAccountDirectory
from adapters.accounts.several import CombinedAccountDirectory
from adapters.storage.threads import Threads
from application.access.caller import CallerIdentities
from application.access.check_account import CheckAccount
from application.access.login_attempts import LoginAttempts
from application.access.relayed_logins import RelayedLogins
from application.ports.slow_steps import SlowSteps
from application.ports.telemetry import EventSink
from application.ports.upstream import UpstreamRegistry
from application.upstreams.outages import Outages
from domain.account_policy import AccountPolicy
from domain.ports import AccountDirectory, Clock
from entrypoints.settings import Settings

_THREADS = 2
"""Threads in each worker. A slow password hash occupies a core; the other cores remain for pulls."""


def account_directory(settings: Settings, clock: Clock, events: EventSink) -> AccountDirectory:
    key = _stamp_key(settings)
    fixed = FixedAccountDirectory(settings.accounts, key)
    if settings.htpasswd_file is None:
        return fixed
    taken = frozenset(account.username for account in settings.accounts)
    return CombinedAccountDirectory(fixed, HtpasswdAccountDirectory(settings.htpasswd_file, taken, clock, events, key))


def _stamp_key(settings: Settings) -> bytes:
    """The key for account stamps. It is derived from the secret that signs tokens, so that tokens and stamps become
    invalid together, but differs from it, so that a stamp is never usable as a signature.
    """
    secret = settings.server_secret.value.encode()
    return hashlib.blake2b(secret, person=b"account stamps").digest()


def account_check(policy: AccountPolicy, attempts: LoginAttempts, steps: SlowSteps) -> CheckAccount:
    return CheckAccount(policy, attempts, steps, secrets.token_bytes(32))


def relayed_logins(
    registry: UpstreamRegistry, attempts: LoginAttempts, callers: CallerIdentities, outages: Outages
) -> RelayedLogins:
    return RelayedLogins(registry, attempts, callers, outages, secrets.token_bytes(32))


def password_threads() -> SlowSteps:
    """The threads that hash passwords. CheckAccount closes them."""
    return Threads(_THREADS, "passwords")
