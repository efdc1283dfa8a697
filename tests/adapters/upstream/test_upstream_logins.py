"""Logins with the mirror's own credentials: shared, renewed in time, and never repeated in a loop."""

import asyncio
import json
from collections.abc import Callable
from contextlib import suppress
from urllib.parse import parse_qs, urlsplit

import pytest

from application.ports.upstream import PingResponse, SessionCredentials
from domain.access import Credentials
from domain.errors import CredentialsRejected, RegistryError, UpstreamChallenged, UpstreamFault
from tests.adapters.upstream.line import CONTENT, Line, in_loop, line
from tests.adapters.upstream.wire import Heard, Say, WireServer, reply

ALICE = Credentials("alice", "right")
ANONYMOUS_ACCOUNT = SessionCredentials(None)
BASIC_ALICE = "Basic YWxpY2U6cmlnaHQ="


class TokenRegistry:
    """Sends a Bearer challenge, issues the tokens t1, t2 ..., and accepts those that `accepts` selects."""

    def __init__(self, link: Line) -> None:
        self.tokens: list[Heard] = []
        self.accepts: Callable[[str], bool] = lambda authorization: authorization.startswith("Bearer t")
        self.scope = ',scope="repository:some/app:pull"'
        self.refusal: Say | None = None
        self._realm = f"{link.server.url}/token"
        link.server.script = self.script

    def script(self, heard: Heard) -> Say:
        if heard.target.startswith("/token"):
            self.tokens.append(heard)
            body = json.dumps({"token": f"t{len(self.tokens)}", "expires_in": 300}).encode()
            return self.refusal or reply(200, body=body)
        if self.accepts(heard.header("Authorization") or ""):
            return reply(200, ("Docker-Distribution-Api-Version", "registry/2.0"), body=CONTENT)
        challenge = f'Bearer realm="{self._realm}",service="registry"{self.scope}'
        return reply(401, ("WWW-Authenticate", challenge), body=b'{"errors":[{"code":"UNAUTHORIZED"}]}')


def sent(link: Line) -> list[str | None]:
    return [heard.header("Authorization") for heard in link.server.heard if heard.target.startswith("/v2/")]


@in_loop
async def test_a_challenge_is_answered_with_a_token() -> None:
    async with line() as link:
        registry = TokenRegistry(link)
        assert (await link.fetch(credentials=ANONYMOUS_ACCOUNT))[1] == CONTENT
        assert sent(link) == [None, "Bearer t1"]
        assert registry.tokens[0].target == "/token?service=registry&scope=repository%3Asome%2Fapp%3Apull"
        assert registry.tokens[0].header("Authorization") is None


@in_loop
async def test_credentials_go_to_the_token_server_only() -> None:
    async with line() as link:
        registry = TokenRegistry(link)
        await link.fetch(credentials=SessionCredentials(ALICE))
        assert registry.tokens[0].header("Authorization") == BASIC_ALICE
        assert sent(link) == [None, "Bearer t1"]


@in_loop
async def test_concurrent_requests_share_one_token_request() -> None:
    async with line() as link:
        registry = TokenRegistry(link)
        await asyncio.gather(*(link.fetch(credentials=ANONYMOUS_ACCOUNT) for _ in range(10)))
        assert len(registry.tokens) == 1


@in_loop
async def test_each_account_and_scope_has_its_own_token() -> None:
    async with line() as link:
        registry = TokenRegistry(link)
        for credentials in (
            ANONYMOUS_ACCOUNT,
            SessionCredentials(ALICE),
            SessionCredentials(Credentials("bob", "right")),
        ):
            await link.fetch(credentials=credentials)
            await link.fetch(credentials=credentials)
        await link.fetch("catalog", ANONYMOUS_ACCOUNT)
        assert len(registry.tokens) == 4


@in_loop
async def test_token_is_renewed_when_a_tenth_is_left() -> None:
    async with line() as link:
        registry = TokenRegistry(link)
        await link.fetch(credentials=ANONYMOUS_ACCOUNT)
        link.parts.clock.advance(300 * 0.89)
        await link.fetch(credentials=ANONYMOUS_ACCOUNT)
        assert len(registry.tokens) == 1
        link.parts.clock.advance(300 * 0.02)
        await link.fetch(credentials=ANONYMOUS_ACCOUNT)
        assert len(registry.tokens) == 2
        assert sent(link)[-1] == "Bearer t2"


@in_loop
async def test_a_refused_token_is_replaced() -> None:
    async with line() as link:
        registry = TokenRegistry(link)
        await link.fetch(credentials=ANONYMOUS_ACCOUNT)
        registry.accepts = lambda authorization: authorization == "Bearer t2"
        assert (await link.fetch(credentials=ANONYMOUS_ACCOUNT))[1] == CONTENT
        assert sent(link) == [None, "Bearer t1", "Bearer t1", "Bearer t2"]


@in_loop
async def test_a_new_token_that_is_refused_is_not_replaced() -> None:
    async with line() as link:
        registry = TokenRegistry(link)
        registry.accepts = lambda _: False
        for attempt in (1, 2):
            with pytest.raises(UpstreamChallenged):
                await link.fetch(credentials=ANONYMOUS_ACCOUNT)
            assert len(sent(link)) <= 3 * attempt
            assert len(registry.tokens) <= 2 * attempt


@in_loop
async def test_concurrent_refused_requests_share_one_new_token() -> None:
    async with line() as link:
        registry = TokenRegistry(link)
        await link.fetch(credentials=ANONYMOUS_ACCOUNT)
        registry.accepts = lambda authorization: authorization == "Bearer t2"
        await asyncio.gather(*(link.fetch(credentials=ANONYMOUS_ACCOUNT) for _ in range(10)))
        assert len(registry.tokens) == 2


@pytest.mark.parametrize(("scope", "asked"), [(',scope="aws"', "aws"), ("", "repository%3Asome%2Fapp%3Apull")])
@in_loop
async def test_the_scope_of_the_challenge_takes_precedence(scope: str, asked: str) -> None:
    async with line() as link:
        registry = TokenRegistry(link)
        registry.scope = scope
        await link.fetch(credentials=ANONYMOUS_ACCOUNT)
        assert registry.tokens[0].target.endswith(f"scope={asked}")


@pytest.mark.parametrize("scope", ["repository:Some/App:pull", "repository:some/app", "a b:", "*"])
@in_loop
async def test_an_invalid_scope_is_not_a_client_fault(scope: str) -> None:
    async with line() as link:
        TokenRegistry(link).scope = f',scope="{scope}"'
        with suppress(UpstreamFault):
            assert (await link.fetch(credentials=ANONYMOUS_ACCOUNT))[1] == CONTENT


@in_loop
async def test_ping_logs_in_without_a_scope() -> None:
    async with line() as link:
        registry = TokenRegistry(link)
        registry.scope = ""
        assert await link.ping(SessionCredentials(ALICE)) == PingResponse(accepted=True)
        assert registry.tokens[0].target == "/token?service=registry&account=alice"


@pytest.mark.parametrize(("refusal", "expected"), [(reply(401), CredentialsRejected), (reply(500), UpstreamFault)])
@in_loop
async def test_the_error_of_the_token_server_is_raised(refusal: Say, expected: type[RegistryError]) -> None:
    async with line() as link:
        registry = TokenRegistry(link)
        registry.refusal = refusal
        with pytest.raises(expected):
            await link.fetch(credentials=SessionCredentials(ALICE))
        registry.refusal = None
        assert (await link.fetch(credentials=SessionCredentials(ALICE)))[1] == CONTENT


@pytest.mark.parametrize("challenge", ['Basic realm="x"', 'Digest realm="y", Basic realm="x"'])
@in_loop
async def test_basic_upstream_gets_the_credentials(challenge: str) -> None:
    def script(heard: Heard) -> Say:
        known = heard.header("Authorization") == BASIC_ALICE
        return reply(body=CONTENT) if known else reply(401, ("WWW-Authenticate", challenge))

    async with line(script) as link:
        for _ in range(2):
            assert (await link.fetch(credentials=SessionCredentials(ALICE)))[1] == CONTENT
        assert sent(link) == [None, BASIC_ALICE, BASIC_ALICE]
        with pytest.raises(UpstreamChallenged):
            await link.fetch(credentials=SessionCredentials(Credentials("alice", "wrong")))


@pytest.mark.parametrize("challenge", ['Basic realm="x"', 'Digest realm="y"'])
@in_loop
async def test_an_anonymous_session_does_not_answer_a_basic_challenge(challenge: str) -> None:
    async with line(lambda _: reply(401, ("WWW-Authenticate", challenge))) as link:
        with pytest.raises(UpstreamChallenged):
            await link.fetch(credentials=ANONYMOUS_ACCOUNT)
        assert sent(link) == [None]


@in_loop
async def test_the_ping_gives_the_challenge_if_the_resource_has_none() -> None:
    async with line() as link:
        registry = TokenRegistry(link)
        link.server.script = lambda heard: (
            reply(401) if "/blobs/" in heard.target and not heard.header("Authorization") else registry.script(heard)
        )
        assert (await link.fetch(credentials=SessionCredentials(ALICE)))[1] == CONTENT
        assert [target.partition("?")[0] for _, target in link.requests[1:-1]] == ["/v2/", "/token"]


@in_loop
async def test_without_any_challenge_the_request_fails() -> None:
    async with line(lambda _: reply(401)) as link:
        for ask in (link.fetch, link.ping):
            with pytest.raises((UpstreamChallenged, UpstreamFault)):
                await ask(credentials=ANONYMOUS_ACCOUNT)
        assert len(link.requests) == 3


@in_loop
async def test_bearer_is_preferred_to_basic() -> None:
    async with line() as link:
        registry = TokenRegistry(link)
        registry.scope = ', Basic realm="x"'
        await link.fetch(credentials=SessionCredentials(ALICE))
        assert sent(link)[-1] == "Bearer t1"


@in_loop
async def test_a_refusal_by_storage_causes_no_login() -> None:
    challenge = ("WWW-Authenticate", 'Basic realm="storage"')
    async with WireServer(lambda _: reply(401, challenge)) as storage, line() as link:
        link.server.script = lambda _: reply(307, ("Location", f"{storage.url}/stored"))
        with pytest.raises(UpstreamFault):
            await link.fetch(credentials=SessionCredentials(ALICE))
        assert [heard.header("Authorization") for heard in storage.heard] == [None]


@in_loop
async def test_without_a_challenge_there_is_no_login() -> None:
    async with line(lambda _: reply(body=CONTENT)) as link:
        await link.fetch(credentials=SessionCredentials(ALICE))
        assert sent(link) == [None]


@in_loop
async def test_all_waiting_requests_share_a_failed_login() -> None:
    async with line() as link:
        registry = TokenRegistry(link)
        registry.refusal = reply(503)
        results = await asyncio.gather(
            *(link.fetch(credentials=ANONYMOUS_ACCOUNT) for _ in range(10)), return_exceptions=True
        )
        assert all(isinstance(result, UpstreamFault) for result in results)
        assert len(registry.tokens) == 1
        registry.refusal = None
        assert (await link.fetch(credentials=ANONYMOUS_ACCOUNT))[1] == CONTENT


@in_loop
async def test_a_token_that_is_refused_with_basic_is_left_out_and_then_replaced() -> None:
    """Harbor sends its real challenge only to requests without Authorization."""
    async with line() as link:
        registry = TokenRegistry(link)
        await link.fetch(credentials=SessionCredentials(ALICE))
        usual = link.server.script

        def harbor(heard: Heard) -> Say:
            is_stale = heard.header("Authorization") == "Bearer t1"
            return reply(401, ("WWW-Authenticate", 'Basic realm="harbor"')) if is_stale else usual(heard)

        link.server.script = harbor
        assert (await link.fetch(credentials=SessionCredentials(ALICE)))[1] == CONTENT
        assert sent(link) == [None, "Bearer t1", "Bearer t1", None, "Bearer t2"]
        assert len(registry.tokens) == 2


@in_loop
async def test_a_stale_token_is_left_out_if_none_is_needed() -> None:
    async with line() as link:
        TokenRegistry(link)
        await link.fetch(credentials=ANONYMOUS_ACCOUNT)
        link.server.script = lambda heard: reply(401) if heard.header("Authorization") else reply(body=CONTENT)
        assert (await link.fetch(credentials=ANONYMOUS_ACCOUNT))[1] == CONTENT
        assert sent(link) == [None, "Bearer t1", "Bearer t1", None]


@in_loop
async def test_after_a_refused_basic_login_no_anonymous_request_is_sent() -> None:
    async with line() as link:
        link.server.script = lambda heard: (
            reply(body=CONTENT)
            if heard.header("Authorization")
            else reply(401, ("WWW-Authenticate", 'Basic realm="x"'))
        )
        await link.fetch(credentials=SessionCredentials(ALICE))
        link.server.script = lambda _: reply(401, ("WWW-Authenticate", 'Basic realm="x"'))
        with pytest.raises(UpstreamChallenged):
            await link.fetch(credentials=SessionCredentials(ALICE))
        assert sent(link) == [None, BASIC_ALICE, BASIC_ALICE, BASIC_ALICE]


@in_loop
async def test_the_scope_of_the_pings_challenge_is_not_used_for_a_resource() -> None:
    """The ping of ghcr.io names a repository that does not exist; gcr.io challenges some resources with nothing."""

    def script(heard: Heard) -> Say:
        if heard.target.startswith("/token"):
            return reply(200, ("Content-Type", "application/json"), body=b'{"token":"abc"}')
        if heard.header("Authorization"):
            return reply(body=CONTENT)
        if heard.target != "/v2/":
            return reply(401)
        realm = f"http://{heard.header('Host')}/token"
        challenge = f'Bearer realm="{realm}",service="s",scope="repository:user/image:pull"'
        return reply(401, ("WWW-Authenticate", challenge))

    async with line(script) as link:
        await link.fetch(credentials=SessionCredentials(None))
        (asked,) = [target for _, target in link.requests if target.startswith("/token")]
        assert parse_qs(urlsplit(asked).query)["scope"] == ["repository:some/app:pull"]
