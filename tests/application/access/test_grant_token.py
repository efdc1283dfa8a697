"""What /v2/auth gives, row by row."""

import pytest

from application.access.grant_token import TokenQuery
from application.ports.upstream import TokenRequest
from domain.access import Credentials, ScopeSet
from domain.errors import CredentialsRejected, TokenEndpointAbsent, UpstreamAuthUnknown, UpstreamThrottled
from domain.events import ServiceNameConflict
from domain.tokens import IssuedToken, VerifiedToken
from tests.application.support.service import ALICE, BOB, Service, accounts, stocked

OURS = "docker-image-proxy"
PULL = ScopeSet.parse(["repository:public/app:pull"])
WRONG = Credentials("alice", "wrong")


def grant(service: Service, /, **query: object) -> IssuedToken:
    return service.run(service.parts.grant_token()(TokenQuery(**query)))


def verified(service: Service, token: IssuedToken) -> VerifiedToken:
    if "~" in token.text:
        return service.parts.verifier().verify_countersigned(token.text)
    return service.parts.verifier().verify_own(token.text)


@pytest.mark.parametrize(
    ("scheme", "settings"),
    [
        ("none", {"skip_auth_proxy": True}),
        ("bearer", {"skip_auth_proxy": True}),
        ("basic", {}),
        ("basic", {"accounts": accounts(ALICE)}),
    ],
)
@pytest.mark.parametrize("credentials", [None, ALICE, WRONG])
def test_rows_1_4_and_8_have_no_tokens(scheme: str, settings: dict[str, object], credentials: Credentials) -> None:
    service = Service(stocked(scheme), **settings)
    with pytest.raises(TokenEndpointAbsent):
        grant(service, credentials=credentials, scopes=PULL)
    assert service.upstream.relayed == []


@pytest.mark.parametrize(
    ("scheme", "settings"),
    [
        ("none", {}),
        ("bearer", {"upstream_identity": "anonymous"}),
        ("basic", {"upstream_username": "alice", "upstream_password": "right", "upstream_identity": "service"}),
    ],
)
@pytest.mark.parametrize("credentials", [None, ALICE, WRONG])
def test_rows_2_and_5_sign_for_anyone(scheme: str, settings: dict[str, object], credentials: Credentials) -> None:
    service = Service(stocked(scheme), **settings)
    token = grant(service, credentials=credentials, scopes=PULL, offline=True)
    assert verified(service, token).account == ""
    assert verified(service, token).scopes == PULL
    assert (token.expires_in, token.issued_at, token.refresh_token) == (300, 1_800_000_000, None)
    assert service.upstream.relayed == []


def test_row_3_relays_what_the_client_asked() -> None:
    service = Service(stocked("bearer"))
    service.upstream.refresh_token = "refresh"
    scopes = ScopeSet.parse(["repository:public/app:pull,push registry:catalog:*", "aws"])
    token = grant(service, service="anything", scopes=scopes, credentials=ALICE, offline=True, client_id="docker")
    assert token.text == "upstream-token-of-alice="
    assert token.refresh_token == "refresh"
    challenge = service.upstream.challenge()
    upstream = service.parts.upstream()
    assert service.upstream.relayed == [TokenRequest(upstream, challenge, scopes, ALICE, None, True, "docker")]


def test_row_3_relays_a_refresh_token_too() -> None:
    service = Service(stocked("bearer"))
    service.upstream.refresh_token = "refresh"
    grant(service, refresh_token="refresh", scopes=PULL)
    assert service.upstream.relayed[0].refresh_token == "refresh"
    with pytest.raises(CredentialsRejected):
        grant(service, refresh_token="forged", scopes=PULL)


@pytest.mark.parametrize("credentials", [WRONG, BOB])
def test_row_3_passes_the_upstreams_refusal_on(credentials: Credentials) -> None:
    service = Service(stocked("bearer"))
    with pytest.raises(CredentialsRejected):
        grant(service, credentials=credentials, scopes=PULL)


@pytest.mark.parametrize("credentials", [None, ALICE, WRONG])
def test_our_service_in_row_3_buys_only_anonymity(credentials: Credentials | None) -> None:
    service = Service(stocked("bearer"))
    token = grant(service, service=OURS, credentials=credentials, scopes=PULL)
    assert verified(service, token).account == ""
    assert service.upstream.relayed == []


def test_upstream_of_our_name_still_gets_its_requests() -> None:
    service = Service(stocked("bearer"))
    service.upstream.service = OURS
    token = grant(service, service=OURS, credentials=ALICE, scopes=PULL)
    assert token.text == "upstream-token-of-alice="
    assert [type(event) for event in service.events].count(ServiceNameConflict) == 1


@pytest.mark.parametrize(
    ("scheme", "settings"),
    [
        ("none", {}),
        ("bearer", {"upstream_identity": "anonymous"}),
        ("bearer", {"upstream_username": "alice", "upstream_password": "right", "upstream_identity": "service"}),
    ],
)
def test_row_6_signs_for_a_right_account_only(scheme: str, settings: dict[str, object]) -> None:
    service = Service(stocked(scheme), accounts=accounts(BOB), **settings)
    token = grant(service, credentials=BOB, scopes=PULL, offline=True)
    assert (verified(service, token).account, token.refresh_token) == ("bob", None)
    for wrong in (None, ALICE, Credentials("bob", "wrong"), Credentials("", "")):
        with pytest.raises(CredentialsRejected):
            grant(service, credentials=wrong, scopes=PULL)
    assert service.upstream.relayed == []


def test_row_7_countersigns_the_upstreams_token() -> None:
    service = Service(stocked("bearer"), accounts=accounts(ALICE))
    token = grant(service, credentials=ALICE, scopes=PULL, client_id="docker")
    half = VerifiedToken("alice", PULL, 1_800_000_300, "upstream-token-of-alice=", "https://upstream.test")
    assert verified(service, token) == half
    assert token.text.partition("~")[2] == "upstream-token-of-alice="
    assert [(asked.credentials, asked.scopes) for asked in service.upstream.relayed] == [(ALICE, PULL)]


def test_countersignature_ends_with_the_upstreams_token() -> None:
    service = Service(stocked("bearer"), accounts=accounts(ALICE), token_ttl=3600)
    service.clock.advance(100)
    token = grant(service, credentials=ALICE, scopes=PULL)
    assert verified(service, token).expires_at == 1_800_000_300
    assert (token.expires_in, token.issued_at) == (200, 1_800_000_100)


def test_row_7_asks_nothing_upstream_for_strangers() -> None:
    service = Service(stocked("bearer"), accounts=accounts(BOB))
    for stranger in (None, ALICE, Credentials("bob", "wrong")):
        with pytest.raises(CredentialsRejected):
            grant(service, credentials=stranger, scopes=PULL, service=OURS)
    assert service.upstream.relayed == []


def test_row_7_account_unknown_upstream_is_refused() -> None:
    service = Service(stocked("bearer"), accounts=accounts(BOB))
    with pytest.raises(CredentialsRejected, match="the upstream rejects it"):
        grant(service, credentials=BOB, scopes=PULL)


def test_our_service_in_row_7_is_no_way_around() -> None:
    service = Service(stocked("bearer"), accounts=accounts(ALICE))
    assert "~" in grant(service, service=OURS, credentials=ALICE, scopes=PULL).text


def test_refresh_tokens_are_dropped_where_accounts_count() -> None:
    service = Service(stocked("bearer"), accounts=accounts(ALICE))
    service.upstream.refresh_token = "refresh"
    assert grant(service, credentials=ALICE, scopes=PULL, offline=True).refresh_token is None
    assert not service.upstream.relayed[0].offline
    with pytest.raises(CredentialsRejected):
        grant(service, refresh_token="refresh", scopes=PULL)
    assert len(service.upstream.relayed) == 1


@pytest.mark.parametrize("scheme", ["none", "bearer"])
def test_unknown_scopes_are_dropped_and_pushes_reduced(scheme: str) -> None:
    service = Service(stocked(scheme), accounts=accounts(ALICE))
    asked = ["repository:public/app:pull,push,delete aws registry:catalog:search", "repository(plugin):a/b:pull"]
    token = grant(service, credentials=ALICE, scopes=ScopeSet.parse([*asked, "repository:other/app:push"]))
    permitted = ScopeSet.parse(["repository:public/app:pull registry:catalog:search"])
    assert verified(service, token).scopes == token.scopes == permitted
    assert all(request.scopes == permitted for request in service.upstream.relayed)


@pytest.mark.parametrize("settings", [{}, {"accounts": accounts(ALICE)}])
def test_scopes_get_the_library_prefix_of_docker_hub(settings: dict[str, object]) -> None:
    service = Service(stocked("bearer"), upstream_registry="https://registry-1.docker.io", **settings)
    scopes = ScopeSet.parse(["repository:nginx:pull", "repository:library/nginx:pull", "repository:a/b:pull"])
    grant(service, credentials=ALICE, scopes=scopes)
    there = ScopeSet.parse(["repository:library/nginx:pull", "repository:a/b:pull"])
    assert service.upstream.relayed[0].scopes == there


def test_names_of_other_registries_get_no_prefix() -> None:
    service = Service(stocked("bearer"))
    grant(service, scopes=ScopeSet.parse(["repository:nginx:pull"]))
    assert str(service.upstream.relayed[0].scopes) == "repository:nginx:pull"


def test_throttled_token_server_is_no_refusal() -> None:
    service = Service(stocked("bearer"))
    service.run(service.warm_up())
    service.upstream.fault = UpstreamThrottled("too many requests", retry_after="30")
    with pytest.raises(UpstreamThrottled) as thrown:
        grant(service, scopes=PULL)
    assert thrown.value.retry_after == "30"


def test_nothing_is_granted_while_the_row_is_unknown() -> None:
    service = Service(stocked("bearer"), accounts=accounts(ALICE))
    service.upstream.fault = UpstreamThrottled("too many requests")
    with pytest.raises(UpstreamAuthUnknown):
        grant(service, credentials=ALICE, scopes=PULL)
