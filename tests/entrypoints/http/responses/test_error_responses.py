"""Refusals over HTTP: statuses, bodies, challenges, other methods, pages that are not there."""

import json

import pytest

from domain.challenge import Challenge
from domain.errors import (
    Denied,
    MirrorBusy,
    RangeUnsatisfiable,
    RegistryError,
    Unauthorized,
    UpstreamRejected,
    UpstreamThrottled,
    UpstreamTimedOut,
    UpstreamUnreachable,
)
from entrypoints.http.responses.error_responses import error_response
from tests.entrypoints.conftest import Start
from tests.entrypoints.service import WireAnswer, basic
from tests.fakes.upstream import FakeUpstream

MANIFEST = "/v2/team/app/manifests/v1"
READ = {"GET", "HEAD"}


def _assert_refused(answer: WireAnswer, status: int, code: str) -> None:
    document = json.loads(answer.body)
    assert (answer.status, answer.get("content-type")) == (status, "application/json")
    assert answer.get("docker-distribution-api-version") == "registry/2.0"
    assert [set(error) - {"detail"} for error in document["errors"]] == [{"code", "message"}]
    assert document["errors"][0]["code"] == code


def _allowed(answer: WireAnswer) -> set[str]:
    return set((answer.get("allow") or "").split(", "))


def test_challenges_stand_on_lines_bearer_first() -> None:
    challenges = (Challenge.of("Basic", realm="a b"), Challenge.of("Bearer", realm="http://h/t", service="s"))
    response = error_response(Unauthorized("why", challenges=challenges), "service")
    lines = response.headers.getall("www-authenticate")
    assert lines == ['Bearer realm="http://h/t",service="s"', 'Basic realm="a b"']
    assert response.headers["cache-control"] == "no-store"


def test_each_extra_header_has_its_refusal() -> None:
    throttled = error_response(UpstreamThrottled("slow down", retry_after="Wed, 21 Oct 2015 07:28:00 GMT"), "s")
    assert throttled.headers["retry-after"] == "Wed, 21 Oct 2015 07:28:00 GMT"
    assert "retry-after" not in error_response(UpstreamThrottled("slow down"), "s").headers
    assert error_response(RangeUnsatisfiable("no", size=0), "s").headers["content-range"] == "bytes */0"


@pytest.mark.parametrize(
    ("fault", "status", "code"),
    [
        (UpstreamUnreachable("gone"), 502, "UNAVAILABLE"),
        (UpstreamTimedOut("slow"), 504, "UNAVAILABLE"),
        (UpstreamThrottled("enough", retry_after="17"), 429, "TOOMANYREQUESTS"),
        (Denied("not yours", detail=[{"Type": "repository"}]), 403, "DENIED"),
        (UpstreamRejected("odd"), 400, "UNSUPPORTED"),
    ],
)
async def test_upstream_trouble_is_told_as_json(
    start: Start, upstream: FakeUpstream, fault: RegistryError, status: int, code: str
) -> None:
    service = await start()
    await service.get("/v2/")  # so that it is known how the upstream wants to be asked
    upstream.fault = fault
    answer = await service.ask(f"GET {MANIFEST} HTTP/1.1\nHost: a")
    _assert_refused(answer, status, code)
    told = {"request_id": answer.get("x-request-id")}
    given = [*fault.detail, told] if isinstance(fault.detail, list) else told
    assert json.loads(answer.body)["errors"][0]["detail"] == given
    assert answer.get("retry-after") == ("17" if status == 429 else None)
    head = await service.ask(f"HEAD {MANIFEST} HTTP/1.1\nHost: a")
    assert (head.status, head.get("content-length")) == (status, str(len(answer.body)))


async def test_an_unknown_authentication_of_the_upstream_is_unavailable(start: Start, upstream: FakeUpstream) -> None:
    upstream.fault = UpstreamUnreachable("gone")
    service = await start()
    for path in ("/v2/", MANIFEST, "/v2/auth", "/v2/_catalog"):
        _assert_refused(await service.ask(f"GET {path} HTTP/1.1\nHost: a"), 503, "UNAVAILABLE")


async def test_every_row_challenges_on_its_lines(start: Start, upstream: FakeUpstream) -> None:
    ours = 'realm="http://m.test/v2/auth",service="docker-image-proxy"'
    theirs = 'realm="http://m.test/v2/auth",service="upstream.test"'
    accounts = basic("a", "b").split()[1]
    for scheme, settings, challenge in (
        ("none", {}, f"Bearer {ours}"),
        ("bearer", {}, f"Bearer {theirs}"),
        ("basic", {}, 'Basic realm="Upstream Registry"'),
        (
            "bearer",
            {"skip_auth_proxy": True},
            'Bearer realm="https://auth.upstream.test/token",service="upstream.test"',
        ),
        ("bearer", {"upstream_identity": "anonymous"}, f"Bearer {ours}"),
        ("bearer", {"upstream_identity": "anonymous", "accounts": accounts}, f"Bearer {ours}"),
        ("bearer", {"accounts": accounts}, f"Bearer {theirs}"),
        ("basic", {"accounts": accounts}, 'Basic realm="docker-image-proxy"'),
    ):
        upstream.scheme = scheme
        answer = await (await start(**settings)).ask("GET /v2/ HTTP/1.1\nHost: m.test")
        _assert_refused(answer, 401, "UNAUTHORIZED")
        assert (answer.all("www-authenticate"), answer.get("cache-control")) == ([challenge], "no-store")


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "MKCOL", "get"])
async def test_other_methods_are_refused_unauthenticated(start: Start, upstream: FakeUpstream, method: str) -> None:
    service = await start(accounts=basic("a", "b").split()[1])
    paths = (MANIFEST, "/v2/team/app/blobs/uploads/", "/v2/a/blobs/uploads/?mount=sha256:0&from=b", "/v2", "/v2/")
    pages = dict.fromkeys((*paths, "/v2/_catalog"), READ)
    if method != "POST":
        pages["/v2/auth"] = {"GET", "POST"}
    for path, allowed in pages.items():
        answer = await service.ask(f"{method} {path} HTTP/1.1\nHost: a\nAuthorization: Bearer x")
        _assert_refused(answer, 405, "UNSUPPORTED")
        assert (_allowed(answer), answer.get("www-authenticate")) == (allowed, None), path
    assert (upstream.asked, upstream.pinged) == ([], [])


@pytest.mark.parametrize(
    "body",
    [
        "Content-Length: 3000000000\r\n\r\n",
        "Content-Length: 3000000000\r\n\r\n" + "x" * 5000,
        "Content-Length: 3000000000\r\nExpect: 100-continue\r\n\r\n",
        "Content-Length: 10\r\nExpect: 100-continue\r\n\r\n",
        "Content-Length: 10\r\n\r\nhalf",
        "Transfer-Encoding: chunked\r\n\r\n",
        "Transfer-Encoding: chunked\r\n\r\n5\r\nhel",
        "Transfer-Encoding: chunked\r\n\r\n" + "fffff\r\n" + "y" * 70_000,
    ],
)
async def test_push_is_refused_before_its_body(start: Start, body: str) -> None:
    service = await start()
    async with service.wire() as wire:
        await wire.send(f"PUT {MANIFEST} HTTP/1.1\r\nHost: a\r\n{body}")
        answer = await wire.answer()
    _assert_refused(answer, 405, "UNSUPPORTED")
    assert _allowed(answer) == READ


async def test_connection_outlives_a_whole_push(start: Start) -> None:
    service = await start()
    async with service.wire() as wire:
        for body in ("Content-Length: 5\r\n\r\nhello", "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"):
            await wire.send(f"PUT {MANIFEST} HTTP/1.1\r\nHost: a\r\n{body}")
            _assert_refused(await wire.answer(), 405, "UNSUPPORTED")
        await wire.send("GET /livez HTTP/1.1\r\nHost: a\r\n\r\n")
        assert (await wire.answer()).status == 200


async def test_unknown_pages_are_json_too(start: Start, upstream: FakeUpstream) -> None:
    service = await start(accounts=basic("a", "b").split()[1], page="off")
    pages = ("/", "/v1", "/v1/", "/v3/", "/v2x", "//v2/", "/v2/x", "/v2/a/b", "/v2/a/tags/list/", "/v2/a/manifests/v/")
    for path in (*pages, "/v2/a/tags/all", "/v2/a/blobs/uploads/", "/V2/", "/favicon.ico", "/v2/auth/", "/metric"):
        answer = await service.ask(f"GET {path} HTTP/1.1\nHost: a")
        _assert_refused(answer, 404, "UNSUPPORTED")
    assert (upstream.asked, upstream.pinged) == ([], [])


async def test_unexpected_error_tells_no_details(start: Start, upstream: FakeUpstream) -> None:
    def broken(_: object) -> None:
        raise KeyError("hunter2")

    upstream.alter = broken
    answer = await (await start()).ask(
        f"GET /v2/team/app/tags/list HTTP/1.1\nHost: a\nAuthorization: {basic('u', 'p')}"
    )
    assert answer.status == 401
    upstream.tags["team/app"] = ["v1"]
    answer = await (await start()).ask("GET /v2/team/app/tags/list HTTP/1.1\nHost: a")
    _assert_refused(answer, 500, "UNKNOWN")
    assert b"hunter2" not in answer.body
    assert b"Error" not in answer.body


@pytest.mark.parametrize("field", ["soon", "-1", "1.5", "x\udcff", ""])
def test_an_invalid_retry_after_is_not_passed_on(field: str) -> None:
    assert "Retry-After" not in error_response(UpstreamThrottled("slow down", retry_after=field), "s").headers


def test_the_response_to_a_full_queue_has_the_time_to_wait() -> None:
    response = error_response(MirrorBusy("too many requests are waiting for the upstream", retry_after=5), "s")
    assert (response.status, response.headers["Retry-After"]) == (429, "5")
