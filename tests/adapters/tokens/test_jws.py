import base64
import hmac
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from joserfc import jws
from joserfc.jwk import OctKey

from adapters.tokens.jws import JwsTokenCodec
from domain.ports import SignedToken

KEY = b"a key of thirty-two bytes or more"
codec = JwsTokenCodec(KEY)
NESTED = b"[" * 5000
_anything = st.none() | st.booleans() | st.integers() | st.text() | st.lists(st.text(), max_size=2) | st.just({})
headers = st.dictionaries(
    st.sampled_from(["alg", "typ", "crit", "b64", "kid", "jwk", "jku", "x5c", "x5t", "cty", "zip"]), _anything
)


def encode(content: object) -> str:
    data = content if isinstance(content, bytes) else json.dumps(content).encode()
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def signed(header: object, payload: object, key: bytes = KEY) -> str:
    """A compact JWS made by hand, its signature good for HS256."""
    text = f"{encode(header)}.{encode(payload)}"
    return f"{text}.{encode(hmac.digest(key, text.encode(), 'sha256'))}"


def test_a_token_is_a_compact_jws_with_hs256() -> None:
    header, payload, signature = codec.sign("JWT", {"sub": "é"}).split(".")
    assert json.loads(base64.urlsafe_b64decode(header + "==")) == {"alg": "HS256", "typ": "JWT"}
    assert json.loads(base64.urlsafe_b64decode(payload + "==")) == {"sub": "é"}
    assert signature == encode(hmac.digest(KEY, f"{header}.{payload}".encode(), "sha256"))


def test_a_jose_library_reads_and_writes_the_same_tokens() -> None:
    key, payload = OctKey.import_key(KEY), '{"sub":"\\u00e9"}'
    text = jws.serialize_compact({"alg": "HS256", "typ": "JWT"}, payload, key)
    assert codec.sign("JWT", {"sub": "é"}) == text
    assert codec.verify(text) == SignedToken("JWT", {"sub": "é"})
    assert jws.deserialize_compact(text, key).payload == payload.encode()


def test_a_token_of_another_issuer_is_read() -> None:
    assert codec.verify(signed({"alg": "HS256", "typ": "at+jwt"}, {"a": 1})) == SignedToken("at+jwt", {"a": 1})


def test_a_token_without_a_type_has_an_empty_one() -> None:
    assert codec.read_unverified(f"{encode({'alg': 'RS256'})}.{encode({})}.x") == SignedToken("", {})


@pytest.mark.parametrize("algorithm", ["none", "HS384", "HS512", "RS256", "ES256", "EdDSA", "hs256", "", None, 1, []])
def test_an_algorithm_other_than_ours_is_refused(algorithm: object) -> None:
    assert codec.verify(signed({"alg": algorithm, "typ": "JWT"}, {})) is None


def test_a_header_without_an_algorithm_is_refused() -> None:
    assert codec.verify(signed({"typ": "JWT"}, {})) is None


def test_a_key_in_the_header_is_not_used() -> None:
    key = b"the key that an attacker brings along"
    jwk = {"kty": "oct", "k": encode(key)}
    assert codec.verify(signed({"alg": "HS256", "typ": "JWT", "jwk": jwk}, {}, key)) is None


@given(headers)
def test_a_forged_header_is_refused_without_raising(header: dict[str, object]) -> None:
    text = signed(header, {}, key=KEY[::-1])
    assert codec.verify(text) is None
    assert codec.read_unverified(text) is not None


@pytest.mark.parametrize("critical", [1, True, "b64", ["b64"], [1], [], {}, None])
def test_a_critical_header_is_refused_without_raising(critical: object) -> None:
    # Anybody can send one: it is read before the signature is checked.
    assert codec.verify(signed({"alg": "HS256", "typ": "JWT", "crit": critical}, {}, key=KEY[::-1])) is None


@pytest.mark.parametrize("header", [None, [], "text", 1, b"", b"{", b"\xff", b"{}{}"])
def test_a_header_that_is_not_an_object_gives_none(header: object) -> None:
    assert codec.read_unverified(signed(header, {})) is None
    assert codec.verify(signed(header, {})) is None


@pytest.mark.parametrize("payload", [None, [], "text", 1, b"", b"{", b"\xff", b"{}{}"])
def test_a_payload_that_is_not_an_object_gives_none(payload: object) -> None:
    text = signed({"alg": "HS256", "typ": "JWT"}, payload)
    assert codec.read_unverified(text) is None
    assert codec.verify(text) is None


@pytest.mark.parametrize("parts", [(NESTED, {}), ({"alg": "HS256"}, NESTED)], ids=["header", "payload"])
def test_a_deeply_nested_token_gives_none(parts: tuple[object, object]) -> None:
    # Anybody can send one: it fits into a request's header.
    text = signed(*parts, key=KEY[::-1])
    assert codec.verify(text) is None
    assert codec.read_unverified(text) is None


@pytest.mark.parametrize("junk", ["=", "==", "!", " ", "\n", "~", "A", "é", "\0"])
def test_extra_characters_in_the_signature_are_refused(junk: str) -> None:
    text = codec.sign("JWT", {})
    assert codec.verify(text + junk) is None
    assert codec.verify(text[:-4] + junk + text[-4:]) is None


def test_unused_bits_of_the_signature_are_fixed() -> None:
    # 43 characters hold 258 bits, the signature has 256: lax decoders take four spellings of it.
    text = codec.sign("JWT", {})
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    assert [letter for letter in alphabet if codec.verify(text[:-1] + letter)] == [text[-1]]


def test_a_codec_never_prints_its_key() -> None:
    assert KEY.decode() not in f"{codec!r} {vars(codec)!r}"
    assert encode(KEY) not in f"{codec!r} {vars(codec)!r}"
