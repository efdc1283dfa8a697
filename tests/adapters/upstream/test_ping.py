"""GET /v2/: a definite answer of a registry, or an error."""

import pytest

from application.ports.upstream import ForwardedCredentials, PingResponse
from domain.challenge import Challenge
from domain.errors import UpstreamBroken, UpstreamFault
from tests.adapters.upstream.line import in_loop, line
from tests.adapters.upstream.wire import Say, reply

JSON = ("Content-Type", "application/json")
VERSION = ("Docker-Distribution-Api-Version", "registry/2.0")
HTML = ("Content-Type", "text/html")


@pytest.mark.parametrize(
    "said",
    [
        reply(200, JSON, VERSION, body=b"{}"),
        reply(200, JSON, body=b"{}"),
        reply(200, ("Content-Type", "application/json; charset=utf-8"), body=b"{}"),
        reply(200, ("Content-Type", "text/plain"), VERSION, body=b"true"),
        reply(200, VERSION),
        reply(200, JSON),
    ],
)
@in_loop
async def test_a_registry_without_a_login_is_recognized(said: Say) -> None:
    async with line(lambda _: said) as link:
        assert await link.ping() == PingResponse(accepted=True)
        assert link.requests == [("GET", "/v2/")]
        assert link.server.heard[0].header("Authorization") is None


@pytest.mark.parametrize(
    "said",
    [
        reply(200, HTML, body=b"<html>Log in to the hotel's network</html>"),
        reply(200, ("Content-Type", "text/plain"), body=b"OK"),
        reply(200, body=b"OK"),
        reply(200, HTML, ("Docker-Distribution-Api-Version", "registry/1.0")),
        reply(204),
        reply(500, JSON, VERSION),
        reply(503, HTML, body=b"<html>"),
        reply(401),
        reply(401, HTML, body=b"<html>Log in</html>"),
        Say(b"", "close"),
    ],
)
@in_loop
async def test_the_answer_of_another_server_is_an_error(said: Say) -> None:
    async with line(lambda _: said) as link:
        with pytest.raises(UpstreamFault):
            await link.ping()


@pytest.mark.parametrize("status", [400, 403, 404, 405, 410, 429])
@in_loop
async def test_a_refused_ping_is_an_upstream_fault(status: int) -> None:
    """The request of the client was correct, so every other answer is an UpstreamFault."""
    async with line(lambda _: reply(status, JSON, body=b"{}")) as link:
        with pytest.raises(UpstreamFault):
            await link.ping()


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("location", ["https://elsewhere.test/v2/", "/v2", "/login"])
@in_loop
async def test_redirected_ping_names_the_setting(status: int, location: str) -> None:
    async with line(lambda _: reply(status, ("Location", location), VERSION)) as link:
        with pytest.raises(UpstreamBroken, match="UPSTREAM_REGISTRY"):
            await link.ping(ForwardedCredentials("Basic YTpi"))
        assert len(link.requests) == 1


@in_loop
async def test_challenges_of_a_401_are_the_answer() -> None:
    bearer = Challenge.of("Bearer", realm="https://a.test/token", service="a")
    basic = Challenge.of("Basic", realm="b")
    lines = [("WWW-Authenticate", str(one)) for one in (bearer, basic)]
    async with line(lambda _: reply(401, *lines, JSON, body=b"{}")) as link:
        assert await link.ping() == PingResponse(accepted=False, challenges=(bearer, basic))


@in_loop
async def test_the_ping_sends_the_callers_authorization() -> None:
    async with line(lambda _: reply(200, VERSION)) as link:
        await link.ping(ForwardedCredentials("Bearer abc"))
        assert link.server.heard[0].lines("Authorization") == ["Bearer abc"]


@in_loop
async def test_path_of_the_upstream_comes_before_v2() -> None:
    async with line(lambda _: reply(200, VERSION), path="/hub") as link:
        await link.ping()
        assert link.requests == [("GET", "/hub/v2/")]
