"""The answers to callers that the upstream refuses."""

import pytest

from application.ports.upstream import ForwardedCredentials
from domain.challenge import Challenge
from domain.errors import (
    CredentialsRejected,
    Denied,
    IdentityRejected,
    ManifestUnknown,
    RegistryError,
    Unauthorized,
    UpstreamChallenged,
    UpstreamThrottled,
)
from tests.application.support.callers import header_of
from tests.application.support.service import ALICE, BOB, NAME, PRIVATE, REALM, Service, accounts, basic, stocked

ALICES = "Bearer upstream-token-of-alice="
SCOPE = "repository:private/app:pull"
MIRRORS = {"upstream_username": "alice", "upstream_password": "right", "upstream_identity": "service"}


def refusal(
    service: Service, header: str | None, fault: RegistryError | None = None, target: str = "manifest"
) -> RegistryError:
    """The answer to the caller for the private repository, or about anything while the upstream has this fault."""

    async def ask() -> None:
        await service.warm_up()
        service.upstream.fault = fault
        await getattr(service, target)(header, PRIVATE)

    with pytest.raises(RegistryError) as refused:
        service.run(ask())
    return refused.value


def challenged(*challenges: Challenge, detail: object = None) -> UpstreamChallenged:
    return UpstreamChallenged("authentication required", challenges=challenges, detail=detail)


@pytest.mark.parametrize("target", ["manifest", "blob", "tags"])
def test_upstreams_scope_and_error_survive_the_rewriting(target: str) -> None:
    refused = refusal(Service(stocked("bearer")), "Bearer upstream-token-of-=", target=target)
    expected = Challenge.of("Bearer", realm=REALM, service="upstream.test", scope=SCOPE, error="insufficient_scope")
    assert isinstance(refused, Unauthorized)
    assert refused.challenges == (expected,)


@pytest.mark.parametrize("target", ["manifest", "blob", "tags"])
def test_token_refused_without_a_reason_is_invalid(target: str) -> None:
    service = Service(stocked("bearer"))
    refused = refusal(service, ALICES, challenged(service.upstream.challenge()), target)
    assert isinstance(refused, Unauthorized)
    expected = Challenge.of("Bearer", realm=REALM, service="upstream.test", scope=SCOPE, error="invalid_token")
    assert refused.challenges == (expected,)


def test_harbors_basic_after_a_stale_bearer_stays_bearer() -> None:
    service = Service(stocked("bearer"))
    refused = refusal(service, ALICES, challenged(Challenge.of("Basic", realm="harbor")))
    assert isinstance(refused, Unauthorized)
    assert [one.scheme for one in refused.challenges] == ["Bearer"]
    assert refused.challenges[0].get("realm") == REALM
    assert refused.challenges[0].get("error") == "invalid_token"
    assert service.run(service.parts.upstream_auth().row(service.parts.upstream()))[0].number == 3


def test_harbors_basic_is_passed_on_in_row_1() -> None:
    service = Service(stocked("bearer"), skip_auth_proxy=True)
    harbor = Challenge.of("Basic", realm="harbor")
    refused = refusal(service, ALICES, challenged(harbor))
    assert isinstance(refused, Unauthorized)
    assert refused.challenges == (harbor,)


def test_harbors_basic_keeps_countersigned_callers_in_row_7() -> None:
    service = Service(stocked("bearer"), accounts=accounts(ALICE))
    header = header_of("countersigned", service, "alice")
    refused = refusal(service, header, challenged(Challenge.of("Basic", realm="harbor")))
    assert isinstance(refused, Unauthorized)
    expected = Challenge.of("Bearer", realm=REALM, service="upstream.test", scope=SCOPE, error="invalid_token")
    assert refused.challenges == (expected,)


@pytest.mark.parametrize("header", [None, ALICES])
def test_challenge_that_is_missing_is_the_pings(header: str | None) -> None:
    """gcr.io refuses a resource without WWW-Authenticate."""
    refused = refusal(Service(stocked("bearer")), header, challenged())
    assert isinstance(refused, Unauthorized)
    assert refused.challenges[0].get("realm") == REALM
    assert refused.challenges[0].get("service") == "upstream.test"


def test_detail_of_the_upstream_reaches_the_caller() -> None:
    service = Service(stocked("bearer"))
    detail = [{"Type": "repository", "Class": "", "Name": "private/app", "Action": "pull"}]
    assert refusal(service, ALICES, challenged(service.upstream.challenge(), detail=detail)).detail == detail


def test_our_own_detail_names_what_was_wanted() -> None:
    detail = [{"Type": "repository", "Class": "", "Name": "private/app", "Action": "pull"}]
    assert refusal(Service(stocked("bearer")), None).detail == detail


@pytest.mark.parametrize("settings", [{"upstream_identity": "anonymous"}, MIRRORS])
@pytest.mark.parametrize("known", ["", accounts(ALICE)])
def test_refused_session_of_the_mirror_is_a_denial(settings: dict[str, object], known: str) -> None:
    """A new token would not help the caller, so there is no challenge to loop on."""
    service = Service(stocked("bearer"), **settings, **({"accounts": known} if known else {}))
    header = f"Bearer {service.own_token('alice')}"
    assert isinstance(refusal(service, header, challenged(service.upstream.challenge())), Denied)


def test_mirrors_own_wrong_password_is_the_operators_fault() -> None:
    service = Service(stocked("bearer"), **MIRRORS)
    refused = refusal(service, None, CredentialsRejected("refused upstream"))
    assert isinstance(refused, IdentityRejected)
    assert "UPSTREAM_USERNAME" in refused.message


def test_mirrors_own_wrong_password_shows_by_basic_too() -> None:
    service = Service(stocked("basic"), **{**MIRRORS, "upstream_password": "wrong"})
    refused = refusal(service, None)
    assert isinstance(refused, IdentityRejected)


def test_row_7_account_unknown_upstream_learns_the_way_out() -> None:
    service = Service(stocked("bearer"), accounts=accounts(BOB))
    refused = refusal(service, basic(BOB))
    assert isinstance(refused, Unauthorized)
    assert "set UPSTREAM_IDENTITY=anonymous" in refused.message
    assert refused.challenges == (Challenge.of("Bearer", realm=REALM, service="upstream.test", scope=SCOPE),)


def test_row_8_account_unknown_upstream_learns_the_way_out() -> None:
    service = Service(stocked("basic"), accounts=accounts(BOB))
    refused = refusal(service, basic(BOB))
    assert isinstance(refused, Unauthorized)
    assert "set UPSTREAM_IDENTITY=anonymous" in refused.message
    assert refused.challenges == (Challenge.of("Basic", realm="docker-image-proxy"),)
    assert service.upstream.pinged[-1] == ForwardedCredentials(basic(BOB))
    assert service.upstream.asked == []


@pytest.mark.parametrize(("scheme", "header"), [("none", None), ("bearer", ALICES), ("basic", basic(ALICE))])
@pytest.mark.parametrize(
    "fault", [ManifestUnknown("unknown"), Denied("denied"), UpstreamThrottled("slow down", retry_after="7")]
)
def test_other_refusals_pass_as_they_are(scheme: str, header: str | None, fault: RegistryError) -> None:
    assert refusal(Service(stocked(scheme)), header, fault) is fault


def test_private_listing_without_a_token_is_challenged() -> None:
    refused = refusal(Service(stocked("bearer")), None, target="tags")
    assert isinstance(refused, Unauthorized)
    assert (refused.challenges[0].get("realm"), refused.challenges[0].get("scope")) == (REALM, SCOPE)


def test_search_is_refused_by_basic_where_accounts_count() -> None:
    service = Service(stocked("bearer"), accounts=accounts(BOB))
    with pytest.raises(Unauthorized, match="set UPSTREAM_IDENTITY=anonymous") as refused:
        service.run(service.search(basic(BOB)))
    assert refused.value.challenges == (Challenge.of("Basic", realm="docker-image-proxy"),)


def test_mirror_of_a_namesake_says_so_in_the_401() -> None:
    """The 401 also names an upstream that is another mirror with the same service name."""
    namesake = Service(stocked("none"), server_secret="the namesake's secret of thirty-two bytes")
    service = Service(stocked("bearer"))
    service.upstream.service = "docker-image-proxy"
    refused = refusal(service, f"Bearer {namesake.own_token()}")
    assert isinstance(refused, Unauthorized)
    assert "SELF_AUTH_SERVICE" in refused.message


def test_public_repository_stays_readable_after_a_refusal() -> None:
    service = Service(stocked("bearer"))
    refusal(service, "Bearer upstream-token-of-=")
    assert service.run(service.manifest("Bearer upstream-token-of-=", NAME)).content


def test_bad_token_of_one_changes_nothing_for_others() -> None:
    """Some open upstreams answer 401 to a token that they do not know, and serve whoever sends none."""
    service = Service(stocked("none"))
    bearer = challenged(Challenge.of("Bearer", realm="https://auth.upstream.test/token", service="upstream.test"))
    refusal(service, "Bearer unknown", bearer)
    service.upstream.fault = None
    row, _ = service.run(service.parts.upstream_auth().row(service.parts.upstream()))
    assert row.number == 2


@pytest.mark.parametrize("target", ["manifest", "blob", "tags"])
def test_accounts_own_login_without_a_right_is_denied(target: str) -> None:
    """Its token was fetched for just this: there is none that would do."""
    service = Service(stocked("bearer"), accounts=accounts(ALICE))
    fault = challenged(service.upstream.challenge(SCOPE, "insufficient_scope"))
    for header in (basic(ALICE), header_of("countersigned", service, "alice")):
        assert isinstance(refusal(service, header, fault, target), Denied)


def test_nobodys_refused_token_is_a_denial_and_no_wrong_password() -> None:
    """ghcr.io gives nobody a token for what is private; there is no login of the mirror's that could be wrong."""
    service = Service(stocked("bearer"), upstream_identity="anonymous")
    assert isinstance(refusal(service, None, CredentialsRejected("refused upstream")), Denied)
