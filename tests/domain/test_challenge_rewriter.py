import pytest
from hypothesis import given

from domain.access import ScopeSet
from domain.challenge import Challenge, parse_challenges
from domain.challenge_rewriter import ChallengeRewriter
from domain.trust import ROW_1, ROW_2, ROW_3, ROW_4, ROW_5, ROW_6, ROW_7, ROW_8, TABLE, TrustRow, UpstreamAuth
from tests.domain.strategies import challenges

REALM = "https://mirror.test/v2/auth"
SCOPES = ScopeSet.parse(["repository:library/nginx:pull"])
BEARER = Challenge.of("Bearer", realm="https://auth.test/token", service="upstream.test")
BASIC = Challenge.of("Basic", realm="Registry")
rewriter = ChallengeRewriter("mirror")


def said(row: TrustRow, auth: UpstreamAuth, scopes: ScopeSet = SCOPES, error: str | None = None) -> list[str]:
    return [str(challenge) for challenge in rewriter.challenges(row, auth, REALM, scopes, error)]


@pytest.mark.parametrize("row", [ROW_1, ROW_4])
def test_rows_1_and_4_repeat_the_challenges_of_the_upstream(row: TrustRow) -> None:
    auth = UpstreamAuth((BEARER, BASIC))
    assert rewriter.challenges(row, auth, REALM, SCOPES, "invalid_token") == (BEARER, BASIC)
    assert rewriter.challenges(row, UpstreamAuth(), REALM) == ()


@pytest.mark.parametrize("row", [ROW_2, ROW_5, ROW_6])
@pytest.mark.parametrize("auth", [UpstreamAuth(), UpstreamAuth((BEARER,)), UpstreamAuth((BASIC,))])
def test_a_signing_row_challenges_for_a_token_of_the_mirror(row: TrustRow, auth: UpstreamAuth) -> None:
    assert said(row, auth) == [f'Bearer realm="{REALM}",service="mirror",scope="repository:library/nginx:pull"']


@pytest.mark.parametrize("row", [ROW_3, ROW_7])
def test_a_relaying_row_keeps_the_upstreams_service(row: TrustRow) -> None:
    auth = UpstreamAuth((BASIC, BEARER))
    expected = f'Bearer realm="{REALM}",service="upstream.test",scope="repository:library/nginx:pull"'
    assert said(row, auth) == [expected]


@pytest.mark.parametrize("row", [ROW_3, ROW_7])
def test_a_relaying_row_without_a_bearer_challenge_sends_its_own_challenge(row: TrustRow) -> None:
    assert said(row, UpstreamAuth())[0].startswith(f'Bearer realm="{REALM}",service="mirror"')


def test_row_8_asks_for_an_account_by_basic() -> None:
    assert said(ROW_8, UpstreamAuth((BASIC,)), error="invalid_token") == ['Basic realm="mirror"']


@pytest.mark.parametrize("row", [ROW_2, ROW_3, ROW_5, ROW_6, ROW_7])
@pytest.mark.parametrize("error", ["invalid_token", "insufficient_scope"])
def test_a_failed_token_is_named_in_the_challenge(row: TrustRow, error: str) -> None:
    (line,) = said(row, UpstreamAuth((BEARER,)), error=error)
    assert line.endswith(f',error="{error}"')


@pytest.mark.parametrize("scope", ["repository:user/image:pull", "registry:catalog:*", None])
def test_a_resource_asks_for_its_own_scope_and_for_no_other(scope: str | None) -> None:
    upstream = BEARER.with_parameters(scope=scope)
    assert rewriter.rewrite(upstream, REALM, SCOPES).get("scope") == str(SCOPES)


@pytest.mark.parametrize("scope", ["aws", "*"])
def test_an_opaque_scope_applies_to_each_resource(scope: str) -> None:
    assert rewriter.rewrite(BEARER.with_parameters(scope=scope), REALM, SCOPES).get("scope") == scope


@pytest.mark.parametrize(
    ("scope", "kept"),
    [
        ("repository:user/image:pull", None),
        ("repository(plugin):user/image:pull", None),
        ("aws", "aws"),
        ("repository:user/image:pull registry:catalog:*", "registry:catalog:*"),
        (None, None),
    ],
)
def test_the_ping_keeps_the_upstreams_scope_unless_it_names_a_repository(scope: str | None, kept: str | None) -> None:
    assert rewriter.rewrite(BEARER.with_parameters(scope=scope), REALM).get("scope") == kept


def test_the_upstreams_own_error_wins() -> None:
    upstream = BEARER.with_parameters(error="insufficient_scope")
    assert rewriter.rewrite(upstream, REALM, SCOPES, "invalid_token").get("error") == "insufficient_scope"


def test_an_absent_service_is_left_out() -> None:
    upstream = Challenge.of("Bearer", realm="https://nvcr.io/proxy_auth")
    assert str(rewriter.rewrite(upstream, REALM)) == f'Bearer realm="{REALM}"'


def test_other_parameters_of_the_upstream_are_dropped() -> None:
    upstream = BEARER.with_parameters(nonce="n", realm_hint="https://auth.test")
    assert rewriter.rewrite(upstream, REALM) == Challenge.of("Bearer", realm=REALM, service="upstream.test")


def test_without_scopes_the_challenge_has_no_scope() -> None:
    assert str(rewriter.own(REALM)) == f'Bearer realm="{REALM}",service="mirror"'


@given(challenges)
def test_a_rewritten_challenge_names_only_the_realm_of_the_mirror(upstream: Challenge) -> None:
    auth = UpstreamAuth((upstream.with_parameters(realm="https://elsewhere.test"), BEARER))
    for row in TABLE:
        if row not in {ROW_1, ROW_4}:
            lines = said(row, auth)
            assert len(lines) == len(parse_challenges(lines)) == 1
            assert "elsewhere.test" not in lines[0]
            assert parse_challenges(lines)[0].get("realm") in {REALM, "mirror"}
