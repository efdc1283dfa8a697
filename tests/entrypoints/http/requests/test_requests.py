"""Requests that no client library sends."""

import json

import pytest

from tests.entrypoints.conftest import Start
from tests.fakes.upstream import FakeUpstream

PING = "GET /v2/ HTTP/1.1\r\nHost: a\r\n\r\n"


@pytest.mark.parametrize(
    "request_line",
    [
        "GARBAGE",
        "GET /v2/",
        "GET /v2/ HTTP/2.7",
        "GET  /v2/ HTTP/1.1",
        "GET /v2/ HTTP/1.1\r\nno colon",
        "GET /v2/\u00e9 HTTP/1.1",
        "PUT /v2/ HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked",
        "PUT /v2/ HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 6",
        "PUT /v2/ HTTP/1.1\r\nContent-Length: -5",
    ],
)
async def test_malformed_requests_are_answered_in_json(start: Start, request_line: str) -> None:
    service = await start()
    async with service.wire() as wire:
        await wire.send(f"{request_line}\r\n\r\n")
        answer = await wire.answer()
        assert (answer.status, answer.get("content-type")) == (400, "application/json")
        assert json.loads(answer.body)["errors"][0]["code"] == "UNSUPPORTED"
        assert await wire.rest() == b""


@pytest.mark.parametrize(
    "line",
    ["CONNECT a.test:443", "GET a.test:443?token=hunter2", "GET http:///v2/?token=hunter2", "GET ?", "OPTIONS *"],
)
async def test_odd_targets_are_answered_in_json(start: Start, line: str) -> None:
    answer = await (await start(page="off")).ask(f"{line} HTTP/1.1\nHost: a")
    assert answer.status in {400, 404, 405}
    assert json.loads(answer.body)["errors"][0]["code"] == "UNSUPPORTED"
    assert b"hunter2" not in answer.body


async def test_absolute_target_is_its_path(start: Start) -> None:
    answer = await (await start()).ask("GET http://elsewhere.test/livez?x=1 HTTP/1.1\nHost: a")
    assert (answer.status, answer.body) == (200, b'{"status":"live"}')


@pytest.mark.parametrize("size", [8 * 1024, 20 * 1024, 32 * 1024])
async def test_large_header_fields_are_read(start: Start, size: int) -> None:
    service = await start()
    answer = await service.ask(f"GET /v2/ HTTP/1.1\nHost: a\nAuthorization: Bearer {'t' * size}")
    assert (answer.status, 'error="invalid_token"' in (answer.get("www-authenticate") or "")) == (401, True)


async def test_larger_header_fields_are_refused(start: Start) -> None:
    answer = await (await start()).ask(f"GET /v2/ HTTP/1.1\nHost: a\nAuthorization: Bearer {'t' * 41_000}")
    assert (answer.status, json.loads(answer.body)["errors"][0]["code"]) == (413, "SIZE_INVALID")
    assert answer.get("docker-distribution-api-version") == "registry/2.0"


async def test_pipelined_requests_are_answered_in_order(start: Start, upstream: FakeUpstream) -> None:
    digest = upstream.put_blob("a", b"blob" * 50_000)
    service = await start()
    blob = f"GET /v2/a/blobs/{digest} HTTP/1.1\r\nHost: a\r\n\r\n"
    async with service.wire() as wire:
        await wire.send(blob + PING + blob + "HEAD" + blob[3:] + "GET /livez HTTP/1.1\r\nHost: a\r\n\r\n")
        answers = [await wire.answer(head=number == 3) for number in range(5)]
    assert [answer.status for answer in answers] == [200, 401, 200, 200, 200]
    assert [len(answer.body) for answer in answers[::2]] == [200_000, 200_000, 17]


@pytest.mark.parametrize("path", ["/v2/", "/livez", "/v2/auth", "/v2/x", "/v2/a/manifests/v1", "/v2/a/tags/list"])
async def test_connection_is_kept_after_each(start: Start, upstream: FakeUpstream, path: str) -> None:
    upstream.put_manifest("a", "v1", b"{}")
    async with (await start()).wire() as wire:
        for method in ("GET", "HEAD", "GET"):
            await wire.send(f"{method} {path} HTTP/1.1\r\nHost: a\r\n\r\n")
            assert (await wire.answer(head=method == "HEAD")).get("connection") == "keep-alive"
        assert await wire.silence() == b""


async def test_connection_is_kept_after_not_modified(start: Start, upstream: FakeUpstream) -> None:
    digest = upstream.put_blob("a", b"blob")
    async with (await start()).wire() as wire:
        for _ in range(2):
            await wire.send(f"GET /v2/a/blobs/{digest} HTTP/1.1\r\nHost: a\r\nIf-None-Match: *\r\n\r\n")
            assert (await wire.answer()).status == 304
        assert await wire.silence() == b""


async def test_old_protocol_ends_the_connection(start: Start) -> None:
    async with (await start()).wire() as wire:
        await wire.send("GET /livez HTTP/1.0\r\n\r\n")
        answer = await wire.answer()
        assert (answer.status, answer.get("connection"), await wire.rest()) == (200, "close", b"")


async def test_body_of_a_get_is_read_over(start: Start) -> None:
    async with (await start()).wire() as wire:
        for body in ("Content-Length: 4\r\n\r\nbody", "Transfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n"):
            await wire.send(f"GET /livez HTTP/1.1\r\nHost: a\r\n{body}")
            assert (await wire.answer()).status == 200
