import hashlib

from hypothesis import given
from hypothesis import strategies as st

from domain.access import ANONYMOUS_ACCOUNT, Scope, ScopeSet
from domain.ports import SignedToken
from domain.tokens import IssuedToken, TokenIssuer, countersigned_audience
from tests.domain.strategies import scopes
from tests.domain.token_service import ALICE, UPSTREAM
from tests.fakes.clock import StoppedClock
from tests.fakes.codec import PlainTokenCodec

NOW = 1_800_000_000
PULL = ScopeSet.parse(["repository:a/b:pull registry:catalog:* aws"])
codec = PlainTokenCodec()


def issuer_at(now: float) -> TokenIssuer:
    return TokenIssuer("mirror", StoppedClock(now), codec, 300)


def claims_of(token: IssuedToken) -> SignedToken:
    signed = codec.verify(token.text.partition("~")[0])
    assert signed is not None
    return signed


def test_a_token_has_the_documented_claims() -> None:
    token = issuer_at(NOW + 0.9).issue(ALICE, PULL)
    assert claims_of(token) == SignedToken(
        "JWT",
        {
            "iss": "mirror",
            "sub": "alice",
            "account_stamp": "the stamp of alice",
            "aud": "mirror",
            "iat": NOW,
            "nbf": NOW,
            "exp": NOW + 300,
            "access": [
                {"type": "repository", "name": "a/b", "actions": ["pull"]},
                {"type": "registry", "name": "catalog", "actions": ["*"]},
            ],
        },
    )


def test_a_token_says_how_long_it_lasts() -> None:
    token = issuer_at(NOW + 0.9).issue(ALICE, PULL)
    assert (token.expires_in, token.issued_at, token.scopes, token.refresh_token) == (300, NOW, PULL, None)


def test_an_anonymous_caller_has_an_empty_subject() -> None:
    assert claims_of(issuer_at(NOW).issue(ANONYMOUS_ACCOUNT, ScopeSet())).claims["sub"] == ""


def test_a_countersignature_contains_the_hash_of_the_upstreams_token() -> None:
    upstream = IssuedToken("upstream~token=", 120, NOW - 20)
    token = issuer_at(NOW).countersign(ALICE, PULL, UPSTREAM, upstream)
    signed = claims_of(token)
    assert token.text.partition("~")[2] == "upstream~token="
    assert signed.token_type == "countersigned+jwt"
    assert signed.claims["aud"] == countersigned_audience("mirror") != "mirror"
    assert signed.claims["upstream_token_sha256"] == hashlib.sha256(b"upstream~token=").hexdigest()
    assert (signed.claims["iss"], signed.claims["sub"]) == ("mirror", "alice")


@given(st.integers(-400, 400), st.integers(0, 1000), st.floats(0, 0.99))
def test_a_countersignature_expires_with_the_upstreams_token(age: int, lifetime: int, fraction: float) -> None:
    upstream = IssuedToken("x", lifetime, NOW - age)
    token = issuer_at(NOW + fraction).countersign(ALICE, PULL, UPSTREAM, upstream)
    ends = claims_of(token).claims["exp"]
    assert ends == max(NOW, NOW - age + lifetime)
    assert token.issued_at + token.expires_in == ends


@given(st.lists(scopes, max_size=5))
def test_only_scopes_with_a_name_are_claimed(several: list[Scope]) -> None:
    access = claims_of(issuer_at(NOW).issue(ALICE, ScopeSet.of(several))).claims["access"]
    named = [scope for scope in ScopeSet.of(several) if not scope.is_opaque]
    assert isinstance(access, list)
    assert [entry["name"] for entry in access] == [scope.name for scope in named]
    assert [entry["actions"] for entry in access] == [sorted(scope.actions) for scope in named]


def test_a_token_never_prints_its_text() -> None:
    upstream = IssuedToken("upstream-secret", 300, NOW, refresh_token="refresh-secret")
    token = issuer_at(NOW).countersign(ALICE, PULL, UPSTREAM, upstream)
    assert "secret" not in repr(upstream)
    assert token.text not in repr(token)
    assert "secret" not in repr(token)
