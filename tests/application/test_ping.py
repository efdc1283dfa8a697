"""GET /v2/ beyond the trust table: whose word it is, and what an upstream in trouble does to it."""

import pytest

from application.ports.upstream import ForwardedCredentials, SessionCredentials
from domain.access import ScopeSet
from domain.challenge import Challenge
from domain.errors import CredentialsRejected, Unauthorized, UpstreamChallenged, UpstreamTimedOut
from tests.application.support.callers import header_of
from tests.application.support.service import ALICE, REALM, Service, accounts, basic, stocked


def after_warm_up(service: Service, header: str | None, fault: Exception | None = None) -> None:
    async def ping() -> None:
        await service.warm_up()
        service.upstream.fault = fault
        await service.ping(header)

    service.run(ping())


def test_token_without_any_scope_is_a_login() -> None:
    service = Service(stocked("none"), accounts=accounts(ALICE))
    after_warm_up(service, f"Bearer {service.own_token('alice', ScopeSet())}")
    assert service.upstream.pinged == []


@pytest.mark.parametrize("scheme", ["bearer", "basic"])
def test_failing_upstream_says_nothing_about_the_login(scheme: str) -> None:
    service = Service(stocked(scheme))
    with pytest.raises(UpstreamTimedOut):
        after_warm_up(service, "Bearer upstream-token-of-alice=", UpstreamTimedOut("upstream.test did not answer"))


def test_mirrors_own_login_needs_no_upstream_at_all() -> None:
    service = Service(stocked("bearer"), upstream_identity="anonymous", accounts=accounts(ALICE))
    after_warm_up(service, basic(ALICE), UpstreamTimedOut("upstream.test did not answer"))
    assert service.upstream.pinged == []


def test_several_challenges_of_the_upstream_pass_in_row_1() -> None:
    challenges = (Challenge.of("Bearer", realm="https://a.test/token"), Challenge.of("Basic", realm="b"))
    service = Service(stocked("none"), skip_auth_proxy=True)
    with pytest.raises(Unauthorized) as refused:
        after_warm_up(service, None, UpstreamChallenged("authentication required", challenges=challenges))
    assert refused.value.challenges == challenges


def test_account_that_the_upstream_refuses_is_told_why() -> None:
    service = Service(stocked("bearer"), accounts=accounts(ALICE))
    service.upstream.users.clear()
    with pytest.raises(Unauthorized, match="set UPSTREAM_IDENTITY=anonymous") as refused:
        after_warm_up(service, basic(ALICE))
    assert service.upstream.pinged == [SessionCredentials(ALICE)]
    assert refused.value.challenges == (Challenge.of("Bearer", realm=REALM, service="upstream.test"),)


def test_token_that_the_upstream_dropped_is_invalid() -> None:
    service = Service(stocked("bearer"), accounts=accounts(ALICE))
    header = header_of("countersigned", service, "alice")
    challenged = UpstreamChallenged("authentication required", challenges=(service.upstream.challenge(),))
    with pytest.raises(Unauthorized) as refused:
        after_warm_up(service, header, challenged)
    assert refused.value.challenges[0].get("error") == "invalid_token"
    assert refused.value.challenges[0].get("realm") == REALM


def test_refused_session_of_the_caller_keeps_its_challenge() -> None:
    service = Service(stocked("bearer"))
    with pytest.raises(Unauthorized) as refused:
        after_warm_up(service, f"Bearer {service.own_token()}", CredentialsRejected("anonymous access is off"))
    assert refused.value.challenges == (Challenge.of("Bearer", realm=REALM, service="upstream.test"),)
    assert service.upstream.pinged == [SessionCredentials(None)]


def test_upstream_is_asked_once_for_one_ping() -> None:
    service = Service(stocked("basic"))
    after_warm_up(service, basic(ALICE))
    assert service.upstream.pinged == [ForwardedCredentials(basic(ALICE))]
