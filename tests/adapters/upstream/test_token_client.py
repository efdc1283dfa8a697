"""The token server of an upstream, in all its variants."""

import json
from dataclasses import replace
from urllib.parse import parse_qsl, urlsplit

import pytest

from application.ports.upstream import TokenRequest
from domain.access import Credentials, ScopeSet
from domain.challenge import Challenge
from domain.errors import (
    CredentialsRejected,
    Denied,
    RealmNotTrusted,
    RegistryError,
    UpstreamBroken,
    UpstreamFault,
    UpstreamThrottled,
    UpstreamTimedOut,
)
from domain.tokens import IssuedToken
from tests.adapters.upstream.line import Line, in_loop, line
from tests.adapters.upstream.wire import Heard, Say, WireServer, reply

ALICE = Credentials("alice", "päss:word")
SCOPES = ScopeSet.parse(["repository:some/app:pull", "registry:catalog:*"])
NOW = 1_800_000_000  # 2027-01-15T08:00:00Z
JSON = ("Content-Type", "application/json")


def request(link: Line, realm: str | None = None, **changes: object) -> TokenRequest:
    challenge = Challenge.of("Bearer", realm=realm or f"{link.server.url}/token", service="the service")
    return replace(TokenRequest(link.upstream, challenge, SCOPES), **changes)


def token(text: str = "abc", **more: object) -> Say:
    return reply(200, JSON, body=json.dumps({"token": text, **more}).encode())


async def fetched(link: Line, **changes: object) -> IssuedToken:
    return await link.parts.relay.fetch(request(link, **changes))


def query(heard: Heard) -> list[tuple[str, str]]:
    return parse_qsl(urlsplit(heard.target).query, strict_parsing=True)


@in_loop
async def test_an_anonymous_request_leaves_out_absent_values() -> None:
    async with line(lambda _: token()) as link:
        issued = await fetched(link)
        (heard,) = link.server.heard
        assert (heard.method, urlsplit(heard.target).path) == ("GET", "/token")
        assert query(heard) == [
            ("service", "the service"),
            ("scope", "repository:some/app:pull"),
            ("scope", "registry:catalog:*"),
        ]
        assert heard.header("Authorization") is None
        assert issued == IssuedToken("abc", 60, NOW, SCOPES, None)


@in_loop
async def test_a_request_sends_all_values() -> None:
    async with line(lambda _: token(refresh_token="refresh")) as link:
        issued = await fetched(link, credentials=ALICE, offline=True, client_id="docker")
        (heard,) = link.server.heard
        assert query(heard)[:4] == [
            ("service", "the service"),
            ("client_id", "docker"),
            ("account", "alice"),
            ("offline_token", "true"),
        ]
        assert heard.header("Authorization") == "Basic YWxpY2U6cMOkc3M6d29yZA=="
        assert issued.refresh_token == "refresh"


@in_loop
async def test_without_a_service_in_the_challenge_none_is_sent() -> None:
    async with line(lambda _: token()) as link:
        challenge = Challenge.of("Bearer", realm=f"{link.server.url}/token")
        await fetched(link, challenge=challenge, scopes=ScopeSet())
        assert link.server.heard[0].target == "/token"


@pytest.mark.parametrize("realm_query", ["account=x&service=own", "a=%2F%3A", "flag"])
@in_loop
async def test_query_of_the_realm_is_kept(realm_query: str) -> None:
    async with line(lambda _: token()) as link:
        await fetched(link, realm=f"{link.server.url}/token?{realm_query}")
        assert link.server.heard[0].target.startswith(f"/token?{realm_query}&service=")


@pytest.mark.parametrize("realm", ["/token", "token"])
@in_loop
async def test_a_relative_realm_is_at_the_upstream(realm: str) -> None:
    async with line(lambda _: token()) as link:
        await fetched(link, realm=realm)
        assert urlsplit(link.server.heard[0].target).path == "/token"


@pytest.mark.parametrize(
    "document",
    [
        {"token": "abc"},
        {"access_token": "abc"},
        {"token": "abc", "access_token": "abc"},
        {"token": "", "access_token": "abc"},
    ],
)
@in_loop
async def test_the_token_may_have_either_name(document: dict[str, str]) -> None:
    async with line(lambda _: reply(200, JSON, body=json.dumps(document).encode())) as link:
        assert (await fetched(link)).text == "abc"


@pytest.mark.parametrize(
    ("said", "remaining"),
    [
        ({}, 60),
        ({"expires_in": None}, 60),
        ({"expires_in": 0}, 60),
        ({"expires_in": 300}, 300),
        ({"expires_in": 300, "issued_at": "2027-01-15T08:00:00Z"}, 300),
        ({"expires_in": 300, "issued_at": "2027-01-15T07:58:20Z"}, 200),
        ({"expires_in": 300, "issued_at": "2027-01-15T07:58:20.123456789Z"}, 200),
        ({"expires_in": 300, "issued_at": "2027-01-15T08:58:20+01:00"}, 200),
        ({"expires_in": 300, "issued_at": "2027-01-15T06:00:00Z"}, 300),
        ({"expires_in": 300, "issued_at": "2027-01-15T08:10:00Z"}, 300),
        ({"expires_in": 300, "issued_at": "0001-01-01T00:00:00Z"}, 300),
        ({"expires_in": 300, "issued_at": "9999-12-31T23:59:59Z"}, 300),
        ({"expires_in": 300, "issued_at": "yesterday"}, 300),
        ({"expires_in": 300, "issued_at": 1_800_000_000}, 300),
        ({"expires_in": 300, "issued_at": None}, 300),
    ],
)
@in_loop
async def test_the_lifetime_is_the_remaining_time(said: dict[str, object], remaining: int) -> None:
    """If the server's clock is far off, the lifetime counts from reception."""
    async with line(lambda _: token(**said)) as link:
        issued = await fetched(link)
        assert abs(issued.expires_in - remaining) <= 1
        assert issued.issued_at == NOW


@in_loop
async def test_nothing_is_sent_to_an_untrusted_realm() -> None:
    async with WireServer(lambda _: token()) as other, line() as link:
        with pytest.raises(RealmNotTrusted, match=f"UPSTREAM_REALMS=127.0.0.1:{other.port}"):
            await fetched(link, realm=f"{other.url}/token", credentials=ALICE)
        with pytest.raises(RealmNotTrusted):
            await fetched(link, realm=f"{other.url}/token", refresh_token="refresh")
        assert other.connections == 0


@in_loop
async def test_a_realm_of_the_settings_is_trusted() -> None:
    async with WireServer(lambda _: token()) as other, line(realms=frozenset({f"127.0.0.1:{other.port}"})) as link:
        assert (await fetched(link, realm=f"{other.url}/token")).text == "abc"


@pytest.mark.parametrize("realm", ["ftp://127.0.0.1/token", "mailto:a@b.test", "http://[/"])
@in_loop
async def test_an_invalid_realm_is_refused(realm: str) -> None:
    async with line(lambda _: reply(404)) as link:
        with pytest.raises(UpstreamFault):
            await fetched(link, realm=realm, credentials=ALICE)


@in_loop
async def test_credentials_are_not_sent_after_a_redirect() -> None:
    async with WireServer(lambda _: token()) as other, line() as link:
        link.server.script = lambda _: reply(307, ("Location", f"{other.url}/token"))
        await fetched(link, credentials=ALICE)
        assert other.heard[0].header("Authorization") is None


@in_loop
async def test_refresh_grant_is_a_form_by_post() -> None:
    async with line(lambda _: token(refresh_token="the same")) as link:
        issued = await fetched(link, refresh_token="a/b+c=", client_id="docker")
        (heard,) = link.server.heard
        assert (heard.method, heard.target) == ("POST", "/token")
        assert heard.header("Content-Type") == "application/x-www-form-urlencoded"
        assert heard.header("Authorization") is None
        assert dict(parse_qsl(heard.body.decode())) == {
            "grant_type": "refresh_token",
            "refresh_token": "a/b+c=",
            "service": "the service",
            "client_id": "docker",
            "scope": "repository:some/app:pull registry:catalog:*",
        }
        assert issued.refresh_token == "the same"


@pytest.mark.parametrize("then", ["close", "reset"])
@in_loop
async def test_a_post_is_repeated_if_an_idle_connection_was_closed(then: str) -> None:
    async with line(lambda heard: token() if heard.turn == 0 else Say(then=then)) as link:
        for _ in range(2):
            assert (await fetched(link, refresh_token="refresh")).text == "abc"
        bodies = {heard.body for heard in link.server.heard}
        assert (len(link.server.heard), len(bodies)) == (3, 1)


@in_loop
async def test_a_refresh_grant_does_not_follow_redirects() -> None:
    async with WireServer(lambda _: token()) as other, line() as link:
        link.server.script = lambda _: reply(307, ("Location", f"{other.url}/token"))
        with pytest.raises(UpstreamFault):
            await fetched(link, refresh_token="refresh")
        assert other.connections == 0


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (reply(401), CredentialsRejected),
        (reply(401, ("WWW-Authenticate", 'Basic realm="x"')), CredentialsRejected),
        (reply(403), Denied),
        (reply(404), UpstreamFault),
        (reply(429, ("Retry-After", "9")), UpstreamThrottled),
        (reply(500), UpstreamBroken),
        (reply(504), UpstreamTimedOut),
        (Say(then="hang"), UpstreamTimedOut),
        (Say(then="close"), UpstreamFault),
    ],
)
@in_loop
async def test_each_refusal_of_the_token_server_has_its_error(said: Say, expected: type[RegistryError]) -> None:
    async with line(lambda _: said, read_timeout=0.3) as link:
        with pytest.raises(expected) as refused:
            await fetched(link, credentials=ALICE)
        assert ALICE.password not in f"{refused.value!r}{refused.value.message}"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>Log in</html>",
        b"[]",
        b"null",
        b'"abc"',
        b"{}",
        b'{"token":""}',
        b'{"token":"","access_token":""}',
        b'{"errors":[{"code":"DENIED"}]}',
        b'{"token":null}',
        b'{"token":7}',
        b'{"token":["abc"]}',
        b'{"token":"a b"}',
        b'{"token":"a\\nb"}',
        b'{"token":"a\\u0000b"}',
        '{"token":"ü"}'.encode(),
        b"[" * 5000,
        b"\x1f\x8b\x08\x00",
    ],
)
@in_loop
async def test_a_response_without_a_token_is_an_error(body: bytes) -> None:
    async with line(lambda _: reply(200, JSON, body=body)) as link:
        with pytest.raises(UpstreamBroken):
            await fetched(link)


DAY = 24 * 3600


@pytest.mark.parametrize(
    ("said", "lifetime"),
    [
        ('"soon"', 60),
        ('""', 60),
        ('"0x10"', 60),
        ("-1", 60),
        ("-1e300", 60),
        ("0", 60),
        ("0.4", 60),
        ("NaN", 60),
        ('"NaN"', 60),
        ("-Infinity", 60),
        ("[300]", 60),
        ('{"seconds":300}', 60),
        ("true", 60),
        ("null", 60),
        ('"300"', 300),
        ('" 300 "', 300),
        ("300.9", 300),
        ('"3e2"', 300),
        ("1e999", DAY),
        ("Infinity", DAY),
        ('"inf"', DAY),
        ("1" + "0" * 400, DAY),
        ("86401", DAY),
        ("86400", DAY),
        (str(2**63), DAY),
    ],
)
@in_loop
async def test_an_invalid_lifetime_is_replaced_or_capped(said: str, lifetime: int) -> None:
    body = f'{{"token":"abc","expires_in":{said}}}'.encode()
    async with line(lambda _: reply(200, JSON, body=body)) as link:
        issued = await fetched(link)
        assert (issued.text, issued.expires_in) == ("abc", lifetime)


@in_loop
async def test_a_token_of_twenty_kilobytes_is_accepted() -> None:
    async with line(lambda _: token("x" * 20_000)) as link:
        assert (await fetched(link)).text == "x" * 20_000


@in_loop
async def test_a_response_longer_than_a_mebibyte_is_not_read() -> None:
    endless = reply(200, ("Content-Length", "99999999"), body=b'{"token":"' + b"x" * 1_200_000, then="hang")
    async with line(lambda _: endless) as link:
        with pytest.raises(UpstreamBroken):
            await fetched(link)
