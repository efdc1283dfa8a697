import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.access import Credentials
from domain.authorization import (
    Basic,
    Bearer,
    UnsupportedAuthorization,
    decode_basic,
    encode_basic,
    parse_authorization,
)

# A user name holds no colon (RFC 7617 section 2).
usernames = st.text(st.characters(exclude_characters=":", exclude_categories=["Cs"]))
credentials = st.builds(Credentials, usernames, st.text())
visible = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1)


@given(credentials)
def test_encoded_credentials_are_read_back(login: Credentials) -> None:
    assert decode_basic(encode_basic(login)) == login


@given(credentials, st.sampled_from(["Basic ", "basic ", "BASIC   "]))
def test_basic_credentials_are_read_with_their_header(login: Credentials, scheme: str) -> None:
    raw = scheme + encode_basic(login)
    assert parse_authorization(raw) == Basic(login, raw)


@given(visible, st.sampled_from(["Bearer ", "bearer ", "BEARER   "]))
def test_a_bearer_token_is_read_with_its_header(token: str, scheme: str) -> None:
    raw = f"{scheme}{token}"
    assert parse_authorization(raw) == Bearer(token, raw)


def test_no_header_is_no_authorization() -> None:
    assert parse_authorization(None) is None


@pytest.mark.parametrize(
    "raw",
    [
        "",
        " ",
        "Bearer",
        "Bearer ",
        "Bearer a b",
        "Bearer a\nb",
        "Bearer é",
        "Basic",
        "Basic !!!!",
        "Basic YWxpY2U=",  # no colon
        "Basic YWxpY2U6c2VzYW1",  # no padding
        "Basic /zo=",  # no UTF-8
        "Basic é",
        "Basic YTpi YTpi",
        "Digest username=alice",
        "YTpi",
    ],
)
def test_any_other_header_is_unsupported_and_keeps_its_value(raw: str) -> None:
    assert parse_authorization(raw) == UnsupportedAuthorization(raw)


@given(st.text())
def test_any_header_is_read_without_raising(text: str) -> None:
    for raw in (text, f"Basic {text}", f"Bearer {text}"):
        authorization = parse_authorization(raw)
        assert authorization is not None
        assert authorization.raw == raw


def test_a_password_may_hold_colons() -> None:
    assert decode_basic(base64.b64encode(b"alice:a:b:").decode()) == Credentials("alice", "a:b:")


def test_user_name_and_password_may_be_empty() -> None:
    assert decode_basic(base64.b64encode(b":").decode()) == Credentials("", "")


@pytest.mark.parametrize(
    "raw", ["Bearer opensesame", "Basic " + encode_basic(Credentials("alice", "sesame")), "x sesame"]
)
def test_an_authorization_never_prints_its_secret(raw: str) -> None:
    printed = repr(parse_authorization(raw))
    assert "sesame" not in printed
    assert raw.partition(" ")[2] not in printed
