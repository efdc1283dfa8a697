import base64
import hashlib
import hmac
import json
from collections.abc import Mapping

import pytest

from adapters.tokens.jws import JwsTokenCodec
from domain.access import ScopeSet
from domain.ports import TokenCodec
from domain.tokens import TokenKind, TokenRejected, countersigned_audience
from tests.domain.token_service import BOTH, FAKE, KEY, LIFETIME, NOW, PULL, REAL, UPSTREAM_TEXT, Service
from tests.fakes.codec import PlainTokenCodec

STRANGER: Mapping[TokenCodec, TokenCodec] = {REAL: JwsTokenCodec(KEY[::-1]), FAKE: PlainTokenCodec("theirs")}
OWN_CLAIMS: Mapping[str, object] = {
    "iss": "mirror",
    "sub": "alice",
    "aud": "mirror",
    "iat": NOW,
    "nbf": NOW,
    "exp": NOW + LIFETIME,
    "access": [{"type": "repository", "class": "", "name": "a/b", "actions": ["pull"]}],
}
HALF_CLAIMS: Mapping[str, object] = {
    **OWN_CLAIMS,
    "aud": countersigned_audience("mirror"),
    "upstream_token_sha256": hashlib.sha256(UPSTREAM_TEXT.encode()).hexdigest(),
}
ALTERATIONS = ["A", "z", "9", "-", "_", "=", ".", "~", ""]


@BOTH
def test_swapped_halves_of_two_tokens_are_refused(codec: TokenCodec) -> None:
    service = Service(codec)
    ours, _, theirs = service.countersigned("the.other=").partition("~")
    first = service.countersigned().partition("~")
    assert service.refusal(f"{ours}~{first[2]}") == {"invalid_token"}
    assert service.refusal(f"{first[0]}~{theirs}") == {"invalid_token"}
    assert service.refusal(f"{theirs}~{ours}") == {"invalid_token"}


@BOTH
def test_half_a_countersigned_token_is_refused(codec: TokenCodec) -> None:
    service = Service(codec)
    signed, _, upstream = service.countersigned().partition("~")
    for text in (signed, f"{signed}~", upstream, f"~{upstream}", f"~{signed}", "~"):
        assert service.refusal(text) == {"invalid_token"}


@BOTH
def test_an_own_token_is_never_a_countersignature(codec: TokenCodec) -> None:
    service = Service(codec)
    own = service.own(ScopeSet((PULL,)))
    assert service.refusal(f"{own}~{UPSTREAM_TEXT}") == {"invalid_token"}
    with pytest.raises(TokenRejected):
        service.verifier.verify_countersigned(own)


@BOTH
@pytest.mark.parametrize(
    ("token_type", "changes"),
    [
        ("JWT", {}),
        ("countersigned+jwt", {"aud": "mirror"}),
        ("countersigned+jwt", {"iss": "upstream"}),
        ("countersigned+jwt", {"upstream_token_sha256": ""}),
        ("countersigned+jwt", {"upstream_token_sha256": None}),
        ("countersigned+jwt", {"upstream_token_sha256": hashlib.sha256(b"other").hexdigest()}),
    ],
    ids=str,
)
def test_a_countersignature_of_another_kind_is_refused(
    codec: TokenCodec, token_type: str, changes: Mapping[str, object]
) -> None:
    service = Service(codec)
    good = codec.sign("countersigned+jwt", HALF_CLAIMS)
    assert service.verifier.verify_countersigned(f"{good}~{UPSTREAM_TEXT}")
    text = codec.sign(token_type, {**HALF_CLAIMS, **changes})
    assert service.refusal(f"{text}~{UPSTREAM_TEXT}") == {"invalid_token"}


@BOTH
@pytest.mark.parametrize(
    ("token_type", "changes"),
    [
        ("countersigned+jwt", {}),
        ("at+jwt", {}),
        ("jwt", {}),
        ("", {}),
        ("JWT", {"iss": "upstream"}),
        ("JWT", {"iss": "Mirror"}),
        ("JWT", {"iss": ["mirror"]}),
        ("JWT", {"aud": "upstream"}),
        ("JWT", {"aud": ["mirror"]}),
        ("JWT", {"aud": countersigned_audience("mirror")}),
        ("JWT", {"sub": None}),
        ("JWT", {"sub": 7}),
        ("JWT", {"exp": str(NOW + LIFETIME)}),
        ("JWT", {"exp": None}),
        ("JWT", {"exp": NOW}),
        ("JWT", {"nbf": None}),
        ("JWT", {"nbf": NOW + 1}),
    ],
    ids=str,
)
def test_an_own_token_of_another_kind_is_refused(
    codec: TokenCodec, token_type: str, changes: Mapping[str, object]
) -> None:
    service = Service(codec)
    assert service.verifier.verify_own(codec.sign("JWT", OWN_CLAIMS))
    assert service.refusal(codec.sign(token_type, {**OWN_CLAIMS, **changes})) == {"invalid_token"}


@BOTH
@pytest.mark.parametrize("claim", ["iss", "sub", "aud", "nbf", "exp"])
def test_a_token_without_a_claim_is_refused(codec: TokenCodec, claim: str) -> None:
    claims = {name: value for name, value in OWN_CLAIMS.items() if name != claim}
    assert Service(codec).refusal(codec.sign("JWT", claims)) == {"invalid_token"}


@BOTH
@pytest.mark.parametrize("access", [None, "repository:a/b:pull", {}, []])
def test_a_token_without_access_opens_nothing(codec: TokenCodec, access: object) -> None:
    token = Service(codec).verifier.verify_own(codec.sign("JWT", {**OWN_CLAIMS, "access": access}))
    with pytest.raises(TokenRejected) as caught:
        token.require(ScopeSet((PULL,)))
    assert caught.value.error == "insufficient_scope"


@BOTH
def test_a_token_of_another_key_is_refused(codec: TokenCodec) -> None:
    service, stranger = Service(codec), Service(STRANGER[codec])
    forged = stranger.own(ScopeSet((PULL,))), stranger.countersigned()
    assert [service.verifier.kind_of(text) for text in forged] == [TokenKind.OURS, TokenKind.COUNTERSIGNED]
    for text in forged:
        assert service.refusal(text) == {"invalid_token"}


@pytest.mark.parametrize("change", ["replaced", "inserted"])
def test_an_altered_token_is_refused(change: str) -> None:
    service = Service(REAL)
    text = service.own(ScopeSet((PULL,)))
    for altered in _altered(text, 1 if change == "replaced" else 0):
        assert service.refusal(altered) == {"invalid_token"}


@pytest.mark.parametrize("change", ["replaced", "inserted"])
def test_an_altered_countersigned_token_is_refused(change: str) -> None:
    service = Service(REAL)
    text = service.countersigned()
    for altered in _altered(text, 1 if change == "replaced" else 0):
        assert service.refusal(altered) == {"invalid_token"}


def _altered(text: str, removed: int) -> set[str]:
    """The text with each character replaced, taken away, or another put before it or at the end."""
    variants = {
        text[:position] + letter + text[position + removed :]
        for position in range(len(text) + 1)
        for letter in ALTERATIONS
    }
    return variants - {text}


@pytest.mark.parametrize("signature", [b"", b"x", b"\0" * 32])
@pytest.mark.parametrize("algorithm", ["none", "None", "NONE", "nOnE", "", "HS256"])
def test_an_unsigned_token_is_refused(algorithm: str, signature: bytes) -> None:
    text = ".".join((_part({"alg": algorithm, "typ": "JWT"}), _part(OWN_CLAIMS), _encode(signature)))
    assert Service(REAL).refusal(text) == {"invalid_token"}
    assert Service(REAL).refusal(text.rpartition(".")[0]) == {"invalid_token"}


@pytest.mark.parametrize("algorithm", ["HS384", "HS512"])
def test_our_key_with_another_algorithm_is_refused(algorithm: str) -> None:
    text = signed({"alg": algorithm, "typ": "JWT"}, KEY, algorithm.replace("HS", "sha"))
    assert Service(REAL).refusal(text) == {"invalid_token"}


def test_a_key_in_the_header_chooses_nothing() -> None:
    key = b"the key that an attacker brings along"
    jwk = {"kty": "oct", "k": _encode(key)}
    header = {"alg": "HS256", "typ": "JWT", "jwk": jwk, "kid": "x", "jku": "https://attacker.test", "x5c": ["x"]}
    assert Service(REAL).refusal(signed(header, key)) == {"invalid_token"}


def test_a_signature_made_by_hand_is_accepted() -> None:
    # Shows that the forgeries above fail for the reason in their names.
    text = signed({"alg": "HS256", "typ": "JWT"}, KEY)
    assert Service(REAL).verifier.verify_own(text).account == "alice"


def signed(header: Mapping[str, object], key: bytes, algorithm: str = "sha256") -> str:
    signed = f"{_part(header)}.{_part(OWN_CLAIMS)}"
    return f"{signed}.{_encode(hmac.digest(key, signed.encode(), algorithm))}"


def _part(document: Mapping[str, object]) -> str:
    return _encode(json.dumps(dict(document)).encode())


def _encode(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).decode().rstrip("=")
