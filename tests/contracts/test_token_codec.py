"""The contract of TokenCodec."""

import json
from collections.abc import Callable, Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.tokens.jws import JwsTokenCodec
from domain.ports import SignedToken, TokenCodec
from tests.fakes.codec import PlainTokenCodec

EACH = pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda key: JwsTokenCodec(key.encode() * 16), id="real"),
        pytest.param(PlainTokenCodec, id="fake"),
    ],
)
Maker = Callable[[str], TokenCodec]
_values = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text()
_json = st.recursive(_values, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3))
documents = st.dictionaries(st.text(), _json, max_size=4)


@EACH
@given(token_type=st.text(max_size=20), claims=documents)
def test_a_signed_token_can_be_verified(make: Maker, token_type: str, claims: Mapping[str, object]) -> None:
    text = make("ours").sign(token_type, claims)
    assert make("ours").verify(text) == make("ours").read_unverified(text) == SignedToken(token_type, claims)


@EACH
@given(claims=documents)
def test_a_token_has_three_parts_of_base64url(make: Maker, claims: Mapping[str, object]) -> None:
    parts = make("ours").sign("JWT", claims).split(".")
    assert len(parts) == 3
    assert all(part and part.isascii() and part.replace("-", "").replace("_", "").isalnum() for part in parts)


@EACH
def test_equal_claims_give_equal_tokens(make: Maker) -> None:
    assert make("ours").sign("JWT", {"a": 1}) == make("ours").sign("JWT", {"a": 1})


@EACH
@given(claims=documents)
def test_a_token_of_another_key_can_be_read_but_not_verified(make: Maker, claims: Mapping[str, object]) -> None:
    text = make("them").sign("JWT", claims)
    assert make("ours").read_unverified(text) == SignedToken("JWT", claims)
    assert make("ours").verify(text) is None


@EACH
def test_times_are_not_checked(make: Maker) -> None:
    claims = {"exp": 1, "nbf": 99_999_999_999, "iat": "never"}
    assert make("ours").verify(make("ours").sign("JWT", claims)) == SignedToken("JWT", claims)


@EACH
@given(text=st.text() | st.text("abcABC019.=-_~ "))
def test_a_text_that_is_not_a_token_gives_none(make: Maker, text: str) -> None:
    assert make("ours").read_unverified(text) is None
    assert make("ours").verify(text) is None


@EACH
@pytest.mark.parametrize("text", ["", ".", "..", "...", "e30.e30", "e30.e30.e30.e30", "e30.bnVsbA.e30", "W10.e30.e30"])
def test_a_text_of_another_format_gives_none(make: Maker, text: str) -> None:
    assert make("ours").read_unverified(text) is None
    assert make("ours").verify(text) is None


@EACH
def test_a_token_with_trailing_text_gives_none(make: Maker) -> None:
    text = make("ours").sign("JWT", {"a": 1})
    for longer in (f"{text}.e30", f"e30.{text}", f"{text}.", f".{text}"):
        assert make("ours").read_unverified(longer) is None
        assert make("ours").verify(longer) is None


@EACH
def test_parts_of_two_tokens_are_not_verified_together(make: Maker) -> None:
    mine, yours = make("ours").sign("JWT", {"sub": "alice"}), make("them").sign("JWT", {"sub": "bob"})
    mixed = f"{yours.rpartition('.')[0]}.{yours.rpartition('.')[2]}"
    assert make("ours").verify(mixed) is None
    assert make("ours").verify(f"{mine.rpartition('.')[0]}.{yours.rpartition('.')[2]}") is None


@EACH
def test_claims_are_copied_when_they_are_signed(make: Maker) -> None:
    claims: dict[str, object] = {"scopes": ["a"]}
    text = make("ours").sign("JWT", claims)
    claims["scopes"] = ["b"]
    signed = make("ours").verify(text)
    assert signed is not None
    assert json.dumps(dict(signed.claims)) == '{"scopes": ["a"]}'
