"""An upstream with several endpoints: requests go to the first that works."""

import asyncio
from dataclasses import replace

import pytest

from adapters.upstream.request_limits import RequestLimits
from application.ports.upstream import ForwardedCredentials, SessionCredentials, UpstreamRequest
from domain.access import Credentials
from domain.byte_ranges import ByteRange
from domain.errors import (
    BlobUnknown,
    Denied,
    RangeUnsatisfiable,
    RegistryError,
    UpstreamBroken,
    UpstreamChallenged,
    UpstreamThrottled,
    UpstreamUnreachable,
)
from domain.events import EndpointFailed
from domain.trust import TrustPolicy, UpstreamIdentity
from tests.adapters.upstream.line import CONTENT, in_loop, parts, resources, upstream_at
from tests.adapters.upstream.pair import LARGE, MIB, TRIAL, also_at, gives, pair
from tests.adapters.upstream.wire import Heard, Say, Script, reply

NOWHERE = "http://127.0.0.1:9"
ALICE = SessionCredentials(Credentials("alice", "right"))


@in_loop
async def test_the_first_endpoint_is_asked_while_it_works() -> None:
    async with pair(gives) as both:
        for _ in range(3):
            assert await both.fetch() == CONTENT
        assert (both.request_counts, both.endpoint_events) == ((3, 0), [])


NOBODYS = TrustPolicy(skip_auth_proxy=False, has_accounts=False, identity=UpstreamIdentity.ANONYMOUS)
FAULTS = {
    "closes": Say(then="close"),
    "resets": Say(then="reset"),
    "is silent": Say(then="hang"),
    "500": reply(500),
    "503": reply(503, body=b"<html>"),
    "504": reply(504),
    "429": reply(429, ("Retry-After", "7")),
    "coded": reply(200, ("Content-Encoding", "gzip"), body=CONTENT),
    "sends away": reply(307, ("Location", "http://169.254.169.254/")),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("head", [False, True])
@in_loop
async def test_a_failure_before_the_first_byte_leads_to_the_next_endpoint(fault: str, *, head: bool) -> None:
    async with pair(lambda _: FAULTS[fault], read_timeout=0.3) as both:
        both.upstream = replace(both.upstream, trust=NOBODYS)
        for _ in range(3):
            assert await both.fetch(head=head) == (b"" if head else CONTENT)
        assert both.request_counts[1] == 3
        assert both.request_counts[0] <= (4 if head else 2), "each method once, and once more on a new connection"
        assert both.endpoint_events == [("EndpointFailed", both.first.url)]
        (event,) = both.parts.events.events
        assert isinstance(event, EndpointFailed)
        assert event.upstream == both.upstream.url
        assert event.reason


@in_loop
async def test_an_unreachable_endpoint_is_skipped() -> None:
    async with pair(gives) as both:
        also_gone = "http://127.0.0.1:11"
        found = replace(both, upstream=also_at(upstream_at(NOWHERE), also_gone, both.second.url))
        assert await found.fetch() == CONTENT
        assert [endpoint for _, endpoint in both.endpoint_events] == [NOWHERE, also_gone]


FINAL = {
    401: (reply(401, ("WWW-Authenticate", 'Basic realm="x"')), UpstreamChallenged),
    403: (reply(403), Denied),
    404: (reply(404), BlobUnknown),
    416: (reply(416, ("Content-Range", "bytes */9")), RangeUnsatisfiable),
}


@pytest.mark.parametrize("status", FINAL)
@in_loop
async def test_a_client_error_is_a_final_answer(status: int) -> None:
    said, expected = FINAL[status]
    async with pair(lambda _: said) as both:
        for _ in range(2):
            with pytest.raises(expected):
                await both.fetch()
        assert (both.request_counts, both.endpoint_events) == ((2, 0), [])


@in_loop
async def test_a_429_for_one_caller_does_not_mark_the_endpoint_as_failed() -> None:
    def first(heard: Heard) -> Say:
        return reply(429) if heard.header("Authorization") == "Bearer alice" else gives(heard)

    async with pair(first) as both:
        for _ in range(2):
            assert await both.fetch(ForwardedCredentials("Bearer alice")) == CONTENT
            assert await both.fetch(ForwardedCredentials("Bearer bob")) == CONTENT
        assert both.request_counts == (4, 2)
        assert both.endpoint_events == []


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        (reply(503), reply(429), UpstreamThrottled),
        (reply(429), Say(then="close"), UpstreamThrottled),
        (reply(503), Say(then="reset"), UpstreamBroken),
    ],
)
@in_loop
async def test_a_429_takes_precedence_over_other_failures(
    first: Say, second: Say, expected: type[RegistryError]
) -> None:
    async with pair(lambda _: first, lambda _: second) as both:
        with pytest.raises(expected):
            await both.fetch()


@pytest.mark.parametrize("size", [1000, 3 * MIB], ids=["small", "large"])
@pytest.mark.parametrize("then", ["close", "hang"])
@in_loop
async def test_after_an_incomplete_body_the_next_request_goes_to_the_next_endpoint(size: int, then: str) -> None:
    def cut(_: Heard) -> Say:
        return Say(reply(200, ("Content-Length", str(len(LARGE))), body=LARGE[:size]).data, then)

    def rest(heard: Heard) -> Say:
        start = int((heard.header("Range") or "bytes=0-")[6:-1])
        said = f"bytes {start}-{len(LARGE) - 1}/{len(LARGE)}"
        return reply(206, ("Content-Range", said), body=LARGE[start:])

    async with pair(cut, rest, read_timeout=0.3) as both:
        got = await both.begin()
        assert got == LARGE[:size]
        assert got + await both.fetch(byte_range=ByteRange(len(got), None)) == LARGE
        assert both.request_counts == (1, 1)
        assert both.endpoint_events == [("EndpointFailed", both.first.url)]


@in_loop
async def test_a_reader_that_leaves_does_not_mark_the_endpoint_as_failed() -> None:
    async with pair(lambda _: reply(body=LARGE)) as both:
        async with both.parts.registry.open(
            UpstreamRequest(resources(both.upstream)["blob"], ForwardedCredentials())
        ) as answer:
            await anext(aiter(answer.pieces()))
        assert both.endpoint_events == []
        assert await both.fetch() == LARGE


@in_loop
async def test_a_body_that_is_too_long_does_not_mark_the_endpoint_as_failed() -> None:
    """Every endpoint would send the same body, so one request could mark all endpoints as failed."""
    async with pair(gives) as both:
        for _ in range(2):
            async with both.parts.registry.open(
                UpstreamRequest(resources(both.upstream)["blob"], ForwardedCredentials())
            ) as answer:
                with pytest.raises(UpstreamBroken, match="more than"):
                    await answer.read(len(CONTENT) - 1)
        assert (both.request_counts, both.endpoint_events) == ((2, 0), [])


@in_loop
async def test_a_ping_fails_over_and_a_challenge_is_an_answer() -> None:
    challenge = reply(401, ("WWW-Authenticate", 'Bearer realm="https://auth.test/token"'))
    async with pair(lambda _: reply(502), lambda _: challenge) as both:
        answer = await both.parts.registry.ping(both.upstream, ForwardedCredentials())
        assert (answer.accepted, len(answer.challenges)) == (False, 1)
        assert both.request_counts == (1, 1)
        both.first.script = lambda _: challenge
        await asyncio.sleep(TRIAL * 1.2)
        await both.parts.registry.ping(both.upstream, ForwardedCredentials())
        assert both.request_counts == (2, 1)


@in_loop
async def test_forwarded_credentials_go_to_each_endpoint_unchanged() -> None:
    async with pair(lambda _: reply(503)) as both:
        await both.fetch(ForwardedCredentials("Bearer of-the-caller"))
        sent = [heard.header("Authorization") for heard in (*both.first.heard, *both.second.heard)]
        assert sent == ["Bearer of-the-caller"] * 2


def registry(url: str, token: str) -> Script:
    """Accepts only the tokens of its own token server, which is at `url`."""

    def script(heard: Heard) -> Say:
        if heard.target.startswith("/token"):
            return reply(body=f'{{"token":"{token}","expires_in":300}}'.encode())
        if heard.header("Authorization") != f"Bearer {token}":
            return reply(401, ("WWW-Authenticate", f'Bearer realm="{url}/token"'))
        return reply(body=CONTENT)

    return script


@in_loop
async def test_the_mirror_logs_in_at_each_endpoint() -> None:
    async with pair(gives) as both:
        both.first.script = registry(both.first.url, "of-the-first")
        both.second.script = registry(both.second.url, "of-the-second")
        assert await both.fetch(ALICE) == CONTENT
        both.first.script = lambda _: reply(503)
        for _ in range(2):
            assert await both.fetch(ALICE) == CONTENT
        assert "Bearer of-the-first" not in [heard.header("Authorization") for heard in both.second.heard]
        both.first.script = registry(both.first.url, "of-the-first")
        before = len(both.first.heard)
        await asyncio.sleep(TRIAL * 1.2)
        assert await both.fetch(ALICE) == CONTENT
        assert len(both.first.heard) == before + 1, "its login was remembered"


@in_loop
async def test_all_endpoints_may_use_the_realm_of_one() -> None:
    async with pair(lambda _: reply(503)) as both:

        def first(heard: Heard) -> Say:
            return reply(body=b'{"token":"abc"}') if heard.target.startswith("/token") else reply(503)

        both.first.script = first
        challenge = reply(401, ("WWW-Authenticate", f'Bearer realm="{both.first.url}/token"'))
        both.second.script = lambda heard: reply(body=CONTENT) if heard.header("Authorization") else challenge
        assert await both.fetch(ALICE) == CONTENT


@in_loop
async def test_an_endpoint_is_skipped_after_a_client_left_it_unanswered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("adapters.upstream.client._PATIENCE_SECONDS", 0.2)
    async with pair(lambda _: Say(then="hang")) as both:
        for patience in (0.05, 0.3):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(both.fetch(), patience)
            assert len(both.endpoint_events) == (patience > 0.2)
        assert await asyncio.wait_for(both.fetch(), 2) == CONTENT


@in_loop
async def test_a_client_that_leaves_the_queue_does_not_mark_the_endpoint_as_failed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("adapters.upstream.client._PATIENCE_SECONDS", 0.1)
    async with pair(gives, limits=RequestLimits(max_connections=1)) as both:
        async with both.parts.registry.open(UpstreamRequest(resources(both.upstream)["blob"], ForwardedCredentials())):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(both.fetch(), 0.3)
        assert both.endpoint_events == []


@pytest.mark.parametrize(
    "limits", [RequestLimits(max_connections=1), RequestLimits(max_rate=10)], ids=["connections", "rate"]
)
@in_loop
async def test_a_request_that_waits_for_a_failing_endpoint_goes_to_the_next(
    limits: RequestLimits,
) -> None:
    """Otherwise each request would wait for the timeout of the silent endpoint."""
    async with pair(lambda _: Say(then="hang"), read_timeout=0.4, limits=limits) as both:
        began = asyncio.get_running_loop().time()
        found = await asyncio.gather(*(both.fetch() for _ in range(8)))
        assert found == [CONTENT] * 8
        assert asyncio.get_running_loop().time() - began < 2.4
        assert both.request_counts[0] < (3 if limits.max_connections else 8)
        assert both.endpoint_events == [("EndpointFailed", both.first.url)]


@in_loop
async def test_a_skipped_endpoint_is_asked_if_all_others_fail() -> None:
    async with pair(
        lambda _: Say(then="hang"), lambda _: reply(503), 0.3, limits=RequestLimits(max_connections=1)
    ) as both:
        asking = [asyncio.create_task(both.fetch()) for _ in range(2)]
        await asyncio.sleep(0.1)
        both.first.script = gives
        failed, found = await asyncio.gather(*asking, return_exceptions=True)
        assert isinstance(failed, RegistryError)
        assert found == CONTENT
        assert both.endpoint_events[-1] == ("EndpointRecovered", both.first.url)


@in_loop
async def test_an_upstream_with_one_endpoint_has_no_circuit_breaker() -> None:
    async with pair(lambda _: reply(503)) as both:
        alone = replace(both, upstream=upstream_at(both.first.url))
        for _ in range(3):
            with pytest.raises(UpstreamBroken):
                await alone.fetch()
        both.first.script = gives
        assert await alone.fetch() == CONTENT
        assert (both.request_counts, both.endpoint_events) == ((4, 0), [])
    async with parts() as adapters:
        with pytest.raises(UpstreamUnreachable):
            await adapters.registry.ping(upstream_at(NOWHERE), ForwardedCredentials())
        assert adapters.events.events == []
