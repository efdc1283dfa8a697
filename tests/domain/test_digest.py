import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.digest import Digest, DigestCheck
from domain.errors import DigestInvalid
from tests.domain.strategies import HEX, digests, spoilt

EMPTY_SHA256 = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
algorithms = st.sampled_from(["sha256", "sha384", "sha512"])


def is_digest(text: str) -> bool:
    algorithm, _, encoded = text.partition(":")
    length = {"sha256": 64, "sha384": 96, "sha512": 128}.get(algorithm)
    return len(encoded) == length and set(encoded) <= set(HEX)


@given(digests)
def test_a_printed_digest_is_read_back(text: str) -> None:
    assert str(Digest.parse(text)) == text


@given(spoilt(digests, "0fgAF:-+_=/. \n"))
def test_a_digest_outside_the_grammar_is_refused(text: str) -> None:
    if is_digest(text):
        assert str(Digest.parse(text)) == text
    else:
        with pytest.raises(DigestInvalid):
            Digest.parse(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "sha256",
        "sha256:",
        "sha256:" + "a" * 63,
        "sha256:" + "a" * 65,
        "sha256:" + "A" * 64,
        "sha256:" + "a" * 64 + "\n",
        "sha512:" + "a" * 64,
        "SHA256:" + "a" * 64,
        "md5:" + "a" * 32,
        "sha256:../../" + "a" * 58,
        "sha256:" + "٣" * 64,
    ],
)
def test_a_malformed_digest_is_refused(text: str) -> None:
    with pytest.raises(DigestInvalid):
        Digest.parse(text)


def test_a_refusal_repeats_only_the_beginning() -> None:
    with pytest.raises(DigestInvalid) as caught:
        Digest.parse("x" * 10_000)
    assert caught.value.detail == {"digest": "x" * 160}


@given(st.binary(), algorithms)
def test_the_digest_of_bytes_is_their_hash(content: bytes, algorithm: str) -> None:
    digest = Digest.of(content, algorithm)
    assert str(digest) == f"{algorithm}:{hashlib.new(algorithm, content).hexdigest()}"
    assert Digest.parse(str(digest)) == digest


def test_bytes_have_a_sha256_digest_by_default() -> None:
    assert str(Digest.of(b"")) == EMPTY_SHA256


@given(st.binary(), st.binary(), algorithms)
def test_a_digest_matches_its_own_bytes_only(content: bytes, other: bytes, algorithm: str) -> None:
    assert Digest.of(content, algorithm).matches(other) == (content == other)
    assert Digest.of(content, algorithm).matches(content)


@given(st.lists(st.binary(max_size=20)), algorithms)
def test_a_check_holds_however_the_bytes_arrive(pieces: list[bytes], algorithm: str) -> None:
    whole = b"".join(pieces)
    check = DigestCheck(Digest.of(whole, algorithm))
    for piece in pieces:
        check.update(piece)
    assert check.holds
    assert check.size == len(whole)


@given(st.binary(min_size=1), st.data())
def test_a_check_fails_on_any_changed_byte(content: bytes, data: st.DataObject) -> None:
    position = data.draw(st.integers(0, len(content) - 1))
    changed = bytearray(content)
    changed[position] ^= data.draw(st.integers(1, 255))
    check = DigestCheck(Digest.of(content))
    check.update(bytes(changed))
    assert not check.holds


def test_a_check_fails_until_the_last_byte() -> None:
    check = DigestCheck(Digest.of(b"abc"))
    seen = [check.holds]
    for piece in (b"a", b"b", b"c", b"d"):
        check.update(piece)
        seen.append(check.holds)
    assert seen == [False, False, False, True, False]
