"""Replicas with the same SERVER_SECRET: what one has issued or stored means the same at the others."""

from typing import Any

import pytest

from application.access.access_request import RelayedLogin
from domain.access import Account, Credentials
from domain.tokens import TokenRejected
from tests.application.support.service import ALICE, PRIVATE, Service, accounts
from tests.application.support.watched import ALICES, watched
from tests.contracts.storage import HUB

OTHER_SECRET = "another secret of thirty-two bytes or more"


def replicas(**settings: Any) -> tuple[Service, Service]:
    """Two replicas that share nothing but the settings."""
    upstream = watched()
    return Service(upstream, **settings), Service(upstream, **settings)


def test_a_token_of_one_replica_is_valid_at_the_other() -> None:
    one, other = replicas(accounts=accounts(ALICE))
    verified = other.parts.verifier().verify_own(one.own_token("alice"))
    assert other.parts.check_login().is_unchanged(Account(verified.account, verified.account_stamp))


def test_a_token_is_not_valid_with_another_secret() -> None:
    one, other = Service(watched()), Service(watched(), server_secret=OTHER_SECRET)
    token = one.own_token()
    with pytest.raises(TokenRejected):
        other.parts.verifier().verify_own(token)


@pytest.mark.parametrize("login", [None, ALICE, "a token", Credentials("AWS", "\udcff")])
def test_a_caller_has_the_same_id_at_all_replicas(login: Credentials | str | None) -> None:
    one, other = replicas()
    assert one.parts.caller_identities().caller_of(login) == other.parts.caller_identities().caller_of(login)
    if login is not None:
        stranger = Service(watched(), server_secret=OTHER_SECRET).parts.caller_identities()
        assert stranger.caller_of(login) != one.parts.caller_identities().caller_of(login)


@pytest.mark.parametrize("secret", [ALICE, "a refresh token"])
def test_an_attempt_to_log_in_is_counted_under_the_same_name_at_all_replicas(secret: Credentials | str) -> None:
    one, other = replicas()
    login = RelayedLogin(HUB, secret, "192.0.2.1")
    attempts = [service.parts.relayed_logins()._attempt(login) for service in (one, other)]
    assert attempts[0] == attempts[1]


def test_the_mirror_is_the_same_caller_at_all_replicas() -> None:
    one, other = replicas(upstream_username="mirror", upstream_password="secret")
    callers = one.parts.mirror_callers()
    assert list(callers.values()) == list(other.parts.mirror_callers().values())
    assert callers


def test_what_one_replica_keeps_of_a_token_is_found_by_the_other() -> None:
    one, other = replicas()
    assert one.parts.caller_identities()._fingerprint(ALICES) == other.parts.caller_identities()._fingerprint(ALICES)
    assert str(PRIVATE) not in one.parts.caller_identities()._fingerprint(ALICES)
