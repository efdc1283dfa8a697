import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.access import NO_SCOPES, Scope, ScopeSet
from domain.ports import TokenCodec
from domain.tokens import TokenKind, TokenRejected, VerifiedToken
from tests.domain.strategies import opaque_scopes, plain_scopes, plugin_scopes, scopes
from tests.domain.token_service import BOTH, LIFETIME, NOW, PULL, REAL, UPSTREAM, UPSTREAM_TEXT, Service


@BOTH
@given(scopes=st.lists(scopes, max_size=4))
def test_a_token_of_the_mirror_names_its_account(codec: TokenCodec, scopes: list[Scope]) -> None:
    service = Service(codec)
    token = service.verifier.verify_own(service.own(ScopeSet.of(scopes)))
    assert (token.account, token.expires_at, token.upstream_token) == ("alice", NOW + LIFETIME, None)


@BOTH
@given(scopes=st.lists(plain_scopes, min_size=1, max_size=4), data=st.data())
def test_a_token_is_good_for_its_scopes(codec: TokenCodec, scopes: list[Scope], data: st.DataObject) -> None:
    service = Service(codec)
    granted = data.draw(st.sampled_from(scopes))
    actions = data.draw(st.frozensets(st.sampled_from(sorted(granted.actions)))) if granted.actions else frozenset()
    needed = Scope(granted.resource_type, granted.name, actions)
    service.verifier.verify_own(service.own(ScopeSet.of(scopes))).require(ScopeSet((needed,)))
    service.verifier.verify_own(service.own(ScopeSet.of(scopes))).require(NO_SCOPES)


@BOTH
@given(granted=st.lists(plain_scopes, max_size=4), needed=st.one_of(scopes, plugin_scopes))
def test_a_token_does_not_cover_other_scopes(codec: TokenCodec, granted: list[Scope], needed: Scope) -> None:
    service = Service(codec)
    if not ScopeSet.of(granted).cover(needed):
        with pytest.raises(TokenRejected) as caught:
            service.verifier.verify_own(service.own(ScopeSet.of(granted))).require(ScopeSet((needed,)))
        assert caught.value.error == "insufficient_scope"


@BOTH
@given(granted=plugin_scopes)
def test_a_plugins_token_opens_no_repository(codec: TokenCodec, granted: Scope) -> None:
    service = Service(codec)
    with pytest.raises(TokenRejected):
        service.verifier.verify_own(service.own(ScopeSet((granted,)))).require(
            ScopeSet((Scope("repository", granted.name, granted.actions),))
        )


@BOTH
@given(opaque=opaque_scopes)
def test_an_opaque_scope_is_never_granted(codec: TokenCodec, opaque: Scope) -> None:
    service = Service(codec)
    with pytest.raises(TokenRejected) as caught:
        service.verifier.verify_own(service.own(ScopeSet((opaque,)))).require(ScopeSet((opaque,)))
    assert caught.value.error == "insufficient_scope"


@BOTH
@given(elapsed=st.floats(0, 2 * LIFETIME) | st.sampled_from([299.0, 299.999, 300.0, 300.001]))
def test_a_token_lasts_until_its_last_second(codec: TokenCodec, elapsed: float) -> None:
    service = Service(codec)
    texts = service.own(ScopeSet((PULL,))), service.countersigned()
    service.clock.advance(elapsed)
    for check, text in zip((service.verifier.verify_own, service.verifier.verify_countersigned), texts, strict=True):
        if service.clock.now() < NOW + LIFETIME:
            assert check(text).account == "alice"
        else:
            with pytest.raises(TokenRejected) as caught:
                check(text)
            assert caught.value.error == "invalid_token"


@BOTH
def test_a_token_that_is_not_valid_yet_is_refused(codec: TokenCodec) -> None:
    service = Service(codec)
    text = service.own(ScopeSet((PULL,)))
    service.clock.advance(-1)
    assert service.refusal(text) == {"invalid_token"}


@BOTH
def test_a_countersigned_token_contains_the_upstreams_token(codec: TokenCodec) -> None:
    service = Service(codec)
    token = service.verifier.verify_countersigned(service.countersigned())
    assert token == VerifiedToken("alice", ScopeSet((PULL,)), NOW + LIFETIME, UPSTREAM_TEXT, UPSTREAM.url)
    token.require(ScopeSet((PULL,)))
    with pytest.raises(TokenRejected) as caught:
        token.require(ScopeSet.parse(["repository:a/b:push"]))
    assert caught.value.error == "insufficient_scope"


@BOTH
def test_a_countersignature_of_an_expired_token_is_refused(codec: TokenCodec) -> None:
    service = Service(codec)
    assert service.refusal(service.countersigned(lifetime=-1)) == {"invalid_token"}
    assert service.refusal(service.countersigned(lifetime=0)) == {"invalid_token"}


@BOTH
def test_the_kind_of_a_token_is_read_from_its_issuer(codec: TokenCodec) -> None:
    service = Service(codec)
    foreign = codec.sign("JWT", {"iss": "upstream"})
    kinds = {
        service.own(ScopeSet()): TokenKind.OURS,
        service.countersigned(): TokenKind.COUNTERSIGNED,
        foreign: TokenKind.FOREIGN,
        f"{foreign}~{service.own(ScopeSet())}": TokenKind.FOREIGN,
        "opaque": TokenKind.FOREIGN,
        "": TokenKind.FOREIGN,
        "~": TokenKind.FOREIGN,
    }
    assert {text: service.verifier.kind_of(text) for text in kinds} == kinds


@BOTH
@given(text=st.text() | st.text("aA0.~=-_é"))
def test_any_text_is_foreign_and_refused(codec: TokenCodec, text: str) -> None:
    service = Service(codec)
    assert service.verifier.kind_of(text) is TokenKind.FOREIGN
    assert service.refusal(text) == {"invalid_token"}


NEEDED = ScopeSet((PULL, Scope.parse("repository:mirrored/a/b:pull")))


def foreign(claims: dict[str, object]) -> str:
    """A token of the upstream, in the form of the mirror's codec."""
    return REAL.sign("JWT", {"iss": "auth.upstream.test", **claims})


@pytest.mark.parametrize(
    ("claims", "expected"),
    [
        ({"access": []}, True),
        ({"access": None}, True),
        ({"access": [{"type": "repository", "name": "a/b", "actions": []}]}, True),
        ({"access": [{"type": "repository", "name": "a/c", "actions": ["pull"]}]}, False),
        ({"access": [{"name": "a/b"}, {"name": "a/c"}]}, False),
        ({"access": {"name": "a/b"}}, False),
        ({"access": ["a/b"]}, False),
        ({"access": "a/b"}, False),
        ({}, False),
    ],
)
def test_a_token_issued_for_exactly_these_resources_is_recognised(claims: dict[str, object], *, expected: bool) -> None:
    assert Service(REAL).verifier.was_issued_for(foreign(claims), NEEDED) is expected


@pytest.mark.parametrize("text", ["opaque", "a.b.c", "", "a~b"])
def test_an_opaque_token_is_not_known_to_be_for_the_resources(text: str) -> None:
    assert not Service(REAL).verifier.was_issued_for(text, NEEDED)


@BOTH
def test_a_countersigned_token_was_issued_for_the_resources(codec: TokenCodec) -> None:
    service = Service(codec)
    assert service.verifier.was_issued_for(service.countersigned(), NEEDED)
