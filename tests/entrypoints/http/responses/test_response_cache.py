"""A cached response is repeated for a request with the same bytes, as long as it is valid."""

import logging
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from domain.errors import UpstreamUnreachable
from domain.events import BytesDelivered, ContentRequested, Event, RequestAnswered
from tests.entrypoints.conftest import Start
from tests.entrypoints.service import Service, basic, until
from tests.fakes.clock import StoppedClock
from tests.fakes.parts import opening
from tests.fakes.upstream import FakeUpstream

CONTENT = b'{"schemaVersion" : 2,  "layers": [],  "config": {}}'
PATH = "/v2/team/app/manifests/v1"
GET = f"GET {PATH} HTTP/1.1\r\nHost: mirror.test\r\nAccept: */*\r\n"


@pytest.fixture
def upstream() -> FakeUpstream:
    upstream = FakeUpstream(users={"alice": "right"}, public=set())
    upstream.put_manifest("team/app", "v1", CONTENT)
    return upstream


@pytest.fixture
def clock() -> StoppedClock:
    return StoppedClock()


COUNTED = (ContentRequested, BytesDelivered)


class Hot:
    """A service, and what it found at hand."""

    def __init__(self, service: Service, clock: StoppedClock) -> None:
        self.service, self.clock = service, clock
        self.answers = service.client.app.ctx.runtimes.current.response_cache
        self.found: list[bool] = []
        find = self.answers.find

        def watched(request: Any) -> Any:
            answer = find(request)
            self.found.append(answer is not None)
            return answer

        self.answers.find = watched

    async def raw(self, *requests: str) -> list[bytes]:
        """What comes for each, on one connection."""
        answers = []
        async with self.service.wire() as wire:
            for request in requests:
                await wire.send(request + "\r\n")
                head = await wire.reader.readuntil(b"\r\n\r\n")
                has_body = not request.startswith("HEAD") and b" 304 " not in head[:20]
                size = int(head.lower().partition(b"content-length:")[2].split()[0]) if has_body else 0
                answers.append(head + await wire.reader.readexactly(size))
        return answers

    async def warm(self, request: str = GET) -> None:
        """After two requests the answer is at hand."""
        await self.raw(request, request)
        self.found.clear()

    def counted(self) -> list[Event]:
        """What was counted since the last look."""
        events: list[Event] = self.service.parts.events().events
        counted = [event for event in events if isinstance(event, COUNTED)]
        events.clear()
        return counted


Begin = Callable[..., Awaitable[Hot]]


def said(answer: bytes) -> tuple[bytes, list[bytes], bytes]:
    """Names of headers have neither case nor order; Alt-Svc stands in tests only, whose Sanic is not rewritten. Each
    response has another id.
    """
    head, _, body = answer.partition(b"\r\n\r\n")
    status, *lines = head.split(b"\r\n")
    pairs = [line.partition(b":") for line in lines if not line.lower().startswith((b"alt-svc", b"x-request-id"))]
    return status, sorted(name.lower() + b":" + value for name, _, value in pairs), body


@pytest.fixture
def begin(start: Start, upstream: FakeUpstream, clock: StoppedClock) -> Begin:
    async def begun(**settings: Any) -> Hot:
        return Hot(await start(parts=opening(upstream, clock), **settings), clock)

    return begun


@pytest.mark.parametrize("reference", ["v1", "digest"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_a_cached_response_equals_the_first_one(
    begin: Begin, upstream: FakeUpstream, method: str, reference: str
) -> None:
    hot = await begin()
    digest = next(key[1] for key in upstream.manifests if key[1] != "v1")
    request = GET.replace("GET", method).replace("v1", digest if reference == "digest" else "v1")
    await hot.raw(GET)  # so that it is here
    first, second, third = await hot.raw(request, request, request)
    assert said(second) == said(third)
    assert said(first) == said(second)
    assert hot.found[-1] is True
    assert first.endswith(b"\r\n\r\n" + (CONTENT if method == "GET" else b""))


async def test_a_cached_response_needs_neither_upstream_nor_storage(begin: Begin, upstream: FakeUpstream) -> None:
    hot = await begin()
    await hot.warm()
    upstream.fault = UpstreamUnreachable("gone")
    upstream.asked.clear()
    await hot.raw(GET, GET)
    assert (hot.found, upstream.asked) == ([True, True], [])


async def test_a_response_is_not_used_after_it_has_expired(begin: Begin, upstream: FakeUpstream) -> None:
    hot = await begin(tag_ttl=3)
    await hot.warm()
    hot.clock.advance(2.9)
    await hot.raw(GET)
    hot.clock.advance(0.1)
    upstream.put_manifest("team/app", "v1", b'{"schemaVersion":2}')
    (answer,) = await hot.raw(GET)
    assert hot.found == [True, False]
    assert answer.endswith(b'{"schemaVersion":2}')


async def test_a_response_is_cached_for_a_few_seconds_at_most(begin: Begin) -> None:
    hot = await begin(tag_ttl=10**6, grant_ttl=80000)
    await hot.warm()
    hot.clock.advance(4)
    await hot.raw(GET)
    hot.clock.advance(2)
    await hot.raw(GET)
    assert hot.found == [True, False]


@pytest.mark.parametrize(
    "other",
    [
        GET.replace("mirror.test", "other.test"),
        GET.replace("*/*", "application/vnd.oci.image.index.v1+json"),
        GET + "Authorization: Basic YTpi\r\n",
        GET + "If-None-Match: *\r\n",
        GET.replace("GET", "HEAD"),
        GET.replace("v1 ", "v1?ns=docker.io "),
    ],
)
async def test_a_request_that_differs_in_one_byte_gets_no_cached_response(begin: Begin, other: str) -> None:
    hot = await begin()
    await hot.warm()
    await hot.raw(other)
    assert hot.found == [False]


async def test_a_response_is_not_shared_between_tokens(begin: Begin, upstream: FakeUpstream) -> None:
    upstream.scheme = "bearer"
    hot = await begin()
    alice = await hot.service.token("repository:team/app:pull", basic("alice", "right"))
    nobody = await hot.service.token("repository:team/app:pull")
    await hot.warm(f"{GET}Authorization: Bearer {alice}\r\n")
    answers = await hot.raw(
        GET,
        f"{GET}Authorization: Bearer {nobody}\r\n",
        f"{GET}Authorization: Bearer {alice}x\r\n",
        f"{GET}authorization: Bearer {alice}\r\n",
    )
    assert hot.found == [False] * 4
    assert [answer[9:12] for answer in answers[:2]] == [b"401", b"401"]


async def test_a_cached_response_ends_with_the_token_of_the_upstream(begin: Begin, upstream: FakeUpstream) -> None:
    upstream.scheme = "bearer"
    hot = await begin(tag_ttl=3600, grant_ttl=3600)
    hot.clock.advance(260)  # it ends 300 seconds after the clock's first
    token = await hot.service.token("repository:team/app:pull", basic("alice", "right"))
    request = f"{GET}Authorization: Bearer {token}\r\n"
    await hot.warm(request)
    hot.clock.advance(41)
    await hot.raw(request)
    assert hot.found == [False]


@pytest.mark.parametrize(("scheme", "identity"), [("none", "client"), ("bearer", "anonymous")])
async def test_a_cached_response_ends_with_the_token_of_the_mirror(
    begin: Begin, upstream: FakeUpstream, scheme: str, identity: str
) -> None:
    upstream.scheme = scheme
    upstream.public.add("team/app")
    hot = await begin(token_ttl=60, tag_ttl=3600, upstream_identity=identity)
    token = await hot.service.token("repository:team/app:pull")
    request = f"{GET}Authorization: Bearer {token}\r\n"
    await hot.warm(request)
    hot.clock.advance(30)
    hot.answers._answers.clear()
    await hot.warm(request)
    hot.clock.advance(31)
    (answer,) = await hot.raw(request)
    assert answer[9:12] == b"401"


async def test_cached_responses_are_not_used_while_the_service_stops(begin: Begin) -> None:
    hot = await begin()
    await hot.warm()
    app = hot.service.client.app
    app.ctx.is_stopping = True
    try:
        (answer,) = await hot.raw(GET)
        assert b"connection: close" in answer.lower()
        assert hot.found == []
    finally:
        app.ctx.is_stopping = False
    await hot.raw(GET)
    assert hot.found == [True]


async def test_nothing_is_kept_of_a_connection_that_ends(begin: Begin) -> None:
    hot = await begin()
    request = f"{GET}Connection: close\r\n"
    for _ in range(3):
        (answer,) = await hot.raw(request)
        assert b"connection: close" in answer.lower()
    assert hot.found == [False] * 3


async def test_a_cached_response_keeps_the_connection_of_an_old_client(begin: Begin) -> None:
    hot = await begin()
    request = GET.replace("HTTP/1.1", "HTTP/1.0") + "Connection: keep-alive\r\n"
    await hot.raw(request)  # so that it is here
    first, second, third = await hot.raw(request, request, request)
    assert said(second) == said(third)
    assert said(first) == said(second)


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_each_cached_response_is_logged(begin: Begin, caplog: pytest.LogCaptureFixture, method: str) -> None:
    caplog.set_level(logging.INFO)
    hot = await begin(accounts=basic("alice", "right").split()[1])
    token = await hot.service.token("repository:team/app:pull", basic("alice", "right"))
    request = GET.replace("GET", method) + f"Authorization: Bearer {token}\r\n"
    await hot.raw(GET + f"Authorization: Bearer {token}\r\n", request, request)
    lines = [record for record in caplog.records if record.name == "docker_image_proxy.access"]
    caplog.clear()
    await hot.raw(request)
    await until(lambda: any(record.name == "docker_image_proxy.access" for record in caplog.records))
    (line,) = [record for record in caplog.records if record.name == "docker_image_proxy.access"]
    assert hot.found[-1] is True
    names = ("method", "path", "status", "bytes", "upstream_status", "account", "client", "fault", "levelname")
    assert {name: getattr(line, name) for name in names} == {name: getattr(lines[-1], name) for name in names}
    assert (line.account, 0 <= line.seconds < 5) == ("alice", True)
    assert (line.bytes, token in line.getMessage()) == (len(CONTENT) if method == "GET" else 0, False)


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_each_cached_response_is_counted(begin: Begin, method: str) -> None:
    hot = await begin()
    request = GET.replace("GET", method)
    await hot.raw(GET)
    hot.counted()
    await hot.raw(request)
    expected = hot.counted()
    await hot.raw(request)
    assert hot.found[-1]
    assert hot.counted() == expected


async def test_a_cached_response_is_a_hit_of_its_route_and_upstream(begin: Begin) -> None:
    hot = await begin()
    await hot.warm()
    hot.service.parts.events().events.clear()
    await hot.raw(GET)
    assert hot.found == [True]
    answered = [one for one in hot.service.parts.events().events if isinstance(one, RequestAnswered)]
    assert answered == [RequestAnswered("manifest", "hit", "https://upstream.test", 0.0, len(CONTENT))]


async def test_other_requests_on_the_connection_go_on(begin: Begin) -> None:
    hot = await begin()
    await hot.warm()
    async with hot.service.wire() as wire:
        await wire.send((GET + "\r\n") * 3 + "GET /livez HTTP/1.1\r\nHost: a\r\n\r\n" + GET + "\r\n")
        answers = [await wire.answer() for _ in range(5)]
    assert [answer.body == CONTENT for answer in answers] == [True, True, True, False, True]
    assert answers[3].status == 200


async def test_stale_responses_are_not_cached(begin: Begin, upstream: FakeUpstream) -> None:
    hot = await begin()
    await hot.warm()
    hot.clock.advance(61)
    upstream.fault = UpstreamUnreachable("gone")
    for _ in range(3):
        (answer,) = await hot.raw(GET)
        assert b"warning: 299" in answer.lower()
    assert hot.found == [False] * 3


async def test_conditions_are_evaluated_for_each_request(begin: Begin, upstream: FakeUpstream) -> None:
    hot = await begin()
    digest = next(key[1] for key in upstream.manifests if key[1] != "v1")
    request = f'{GET}If-None-Match: "{digest}"\r\n'
    await hot.raw(GET)
    async with hot.service.wire() as wire:
        for _ in range(3):
            await wire.send(request + "\r\n")
            answer = await wire.answer()
            assert answer.status == 304
    assert hot.found == [False] * 4
