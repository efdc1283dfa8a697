"""One line for each request, and nothing secret in any of them."""

import asyncio
import logging
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from domain.errors import UpstreamBroken, UpstreamTimedOut
from tests.entrypoints.conftest import Start
from tests.entrypoints.service import Service, basic, until
from tests.fakes.upstream import FakeAnswer, FakeUpstream

ACCESS = "docker_image_proxy.access"
FIELDS = ("method", "path", "status", "bytes", "seconds", "upstream_status", "account", "client", "fault", "result")
ANN = basic("ann", "hunter2")
CONTENT = bytes(range(256)) * 1200


@pytest.fixture(autouse=True)
def _listening(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)


def _lines(caplog: pytest.LogCaptureFixture) -> list[Any]:
    return [record for record in caplog.records if record.name == ACCESS]


async def _line(caplog: pytest.LogCaptureFixture) -> Any:
    """The one line; it may be written a moment after the answer has arrived."""
    await until(lambda: bool(_lines(caplog)))
    (line,) = _lines(caplog)
    return line


async def test_each_request_writes_one_line(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    service = await start()
    service.upstream.put_manifest("team/app", "v1", b'{"schemaVersion":2}')
    await service.get("/v2/team/app/manifests/v1?ns=docker.io")
    line = await _line(caplog)
    metadata = {name: getattr(line, name) for name in FIELDS}
    assert 0 <= metadata.pop("seconds") < 5
    assert metadata == {
        "method": "GET",
        "path": "/v2/team/app/manifests/v1",
        "status": 200,
        "bytes": 19,
        "upstream_status": None,
        "account": None,
        "client": "127.0.0.1",
        "fault": None,
        "result": "miss",
    }
    assert line.levelno == logging.INFO
    assert line.getMessage().startswith("GET /v2/team/app/manifests/v1 200 19 bytes ")
    assert line.getMessage().endswith(
        f" upstream=- account=- client=127.0.0.1 fault=- result=miss request={line.request_id}"
    )


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_streamed_body_is_counted_exactly(start: Start, caplog: pytest.LogCaptureFixture, method: str) -> None:
    service = await start()
    digest = service.upstream.put_blob("team/app", CONTENT)
    await service.client._request(method, f"/v2/team/app/blobs/{digest}")
    line = await _line(caplog)
    assert (line.method, line.status, line.bytes) == (method, 200, len(CONTENT) if method == "GET" else 0)


async def test_part_of_blob_is_counted_alone(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    service = await start()
    digest = service.upstream.put_blob("team/app", CONTENT)
    await service.get(f"/v2/team/app/blobs/{digest}", {"Range": "bytes=5-9"})
    assert ((await _line(caplog)).status, (await _line(caplog)).bytes) == (206, 5)


async def test_account_is_named_when_checked(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    service = await start(accounts=ANN.split()[1], upstream_identity="anonymous")
    await service.get("/v2/", {"Authorization": basic("eve", "guess")})
    await service.get("/v2/", {"Authorization": ANN})
    await service.get("/v2/", {"Authorization": f"Bearer {await service.token(authorization=ANN)}"})
    seen = [(line.path, line.status, line.account) for line in _lines(caplog)]
    assert seen == [("/v2/", 401, None), ("/v2/", 200, "ann"), ("/v2/auth", 200, "ann"), ("/v2/", 200, "ann")]


def _written(caplog: pytest.LogCaptureFixture) -> str:
    """All that the service logged, with every field; the test's own client logs too, and is left out."""
    ours = [record for record in caplog.records if not record.name.startswith(("httpcore", "httpx"))]
    return "\n".join(f"{record.getMessage()} {vars(record)}" for record in ours)


async def _log_in_everywhere(service: Service) -> str:
    """Uses the password `hunter2` wherever a client might put it; returns a token of the service."""
    await service.get("/v2/auth?scope=repository:a:pull&password=hunter2&token=hunter2", {"Authorization": ANN})
    token = (await service.get("/v2/auth?offline_token=true", {"Authorization": ANN})).json().get("token", "hunter2")
    await service.post("/v2/auth?hunter2", {"grant_type": "password", "username": "ann", "password": "hunter2"})
    await service.post("/v2/auth", {"grant_type": "refresh_token", "refresh_token": "hunter2"})
    for path in ("/v2/?hunter2", "/v2/a/manifests/v1", "/nowhere?hunter2", "/v1/search?q=hunter2", "/v2/x?hunter2"):
        for value in (ANN, f"Bearer {token}", "Bearer hunter2", "hunter2"):
            await service.get(path, {"Authorization": value})
    for target in ("a.test:443?hunter2", "http://ann:hunter2@a/v2/?hunter2", "http:///?hunter2", "/\u00e9?hunter2"):
        await service.ask(f"GET {target} HTTP/1.1\nHost: a\nAuthorization: {ANN}")
    await service.ask(f"GET /v2/ HTTP/1.1\nAuthorization: {ANN}\nbroken")
    return str(token)


@pytest.mark.parametrize("settings", [{}, {"accounts": ANN.split()[1]}, {"skip_auth_proxy": True}])
async def test_no_secret_is_in_any_log(
    start: Start, upstream: FakeUpstream, caplog: pytest.LogCaptureFixture, settings: dict[str, object]
) -> None:
    upstream.scheme, upstream.users, upstream.refresh_token = "bearer", {"ann": "hunter2"}, "hunter2"
    token = await _log_in_everywhere(await start(**settings))
    assert len(_lines(caplog)) == 29
    written = _written(caplog)
    assert [secret for secret in ("hunter2", ANN.split()[1], token) if secret in written] == []


async def test_refused_requests_are_logged_too(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    service = await start()
    for request in (
        "PUT /v2/a/manifests/v1 HTTP/1.1\nHost: a",
        "GET /nowhere?x=1 HTTP/1.1\nHost: a",
        "GET /v2/A/manifests/v1 HTTP/1.1\nHost: a",
        "GARBAGE",
        "CONNECT a.test:443 HTTP/1.1\nHost: a",
        f"GET /v2/ HTTP/1.1\nHost: a\nX: {'x' * 50_000}",
    ):
        await service.ask(request)
    seen = [(line.method, line.path, line.status) for line in _lines(caplog)]
    assert seen[:3] == [
        ("PUT", "/v2/a/manifests/v1", 405),
        ("GET", "/nowhere", 404),
        ("GET", "/v2/A/manifests/v1", 400),
    ]
    assert [status for _, _, status in seen[3:]] == [400, 405, 413]


async def test_upstream_fault_is_named_in_line(
    start: Start, upstream: FakeUpstream, caplog: pytest.LogCaptureFixture
) -> None:
    service = await start()
    await service.get("/v2/")
    caplog.clear()
    upstream.fault = UpstreamTimedOut("no answer in time")
    await service.get("/v2/a/manifests/v1")
    line = await _line(caplog)
    assert (line.status, line.fault) == (504, "no answer in time")


class _Failing(FakeAnswer):
    """Breaks off after three pieces."""

    fault: Exception = UpstreamBroken("it broke off")

    async def pieces(self) -> AsyncIterator[bytes]:
        left = 3
        async for piece in super().pieces():
            if not left:
                raise self.fault
            left -= 1
            yield piece


class _FailingInside(_Failing):
    fault = OSError("hunter2")


async def test_the_line_of_a_body_that_ended_early_has_the_reason(
    start: Start, upstream: FakeUpstream, caplog: pytest.LogCaptureFixture
) -> None:
    digest = upstream.put_blob("a", CONTENT)
    upstream.alter = lambda answer: _Failing(answer.metadata, answer.content)
    answer = await (await start(cache_dir="off", fill_retries=0)).ask(f"GET /v2/a/blobs/{digest} HTTP/1.1\nHost: a")
    line = await _line(caplog)
    assert (line.status, line.bytes, line.fault) == (200, len(answer.body), "it broke off")


async def test_an_error_of_the_mirror_is_not_logged_as_the_clients(
    start: Start, upstream: FakeUpstream, caplog: pytest.LogCaptureFixture
) -> None:
    digest = upstream.put_blob("a", CONTENT)
    upstream.alter = lambda answer: _FailingInside(answer.metadata, answer.content)
    await (await start()).ask(f"GET /v2/a/blobs/{digest} HTTP/1.1\nHost: a")
    line = await _line(caplog)
    assert line.fault not in {None, "the client left"}


async def test_client_that_leaves_is_noted(
    start: Start, upstream: FakeUpstream, caplog: pytest.LogCaptureFixture
) -> None:
    content = CONTENT * 200
    digest = upstream.put_blob("a", content)
    async with (await start()).wire() as wire:
        await wire.send(f"GET /v2/a/blobs/{digest} HTTP/1.1\r\nHost: a\r\n\r\n")
        await wire.reader.readexactly(100_000)
    line = await _line(caplog)
    assert (line.status, line.bytes < len(content), line.fault) == (200, True, "the client left")


class _Silent(FakeAnswer):
    """Never begins."""

    async def pieces(self) -> AsyncIterator[bytes]:
        await asyncio.Event().wait()
        yield b""


async def test_client_leaving_early_is_noted_too(
    start: Start, upstream: FakeUpstream, caplog: pytest.LogCaptureFixture
) -> None:
    digest = upstream.put_blob("a", CONTENT)
    upstream.alter = lambda answer: _Silent(answer.metadata, b"")
    async with (await start()).wire() as wire:
        await wire.send(f"GET /v2/a/blobs/{digest} HTTP/1.1\r\nHost: a\r\n\r\n")
        await until(lambda: bool(upstream.asked))
    line = await _line(caplog)
    assert (line.method, line.bytes, line.fault) == ("GET", 0, "the client left")


async def _logged(start: Start, caplog: pytest.LogCaptureFixture, request_line: bytes) -> str:
    """The line that such a request leaves."""
    async with (await start(page="off")).wire() as wire:
        await wire.send(request_line + b" HTTP/1.1\r\nHost: a\r\n\r\n")
        assert (await wire.answer()).status in {400, 404, 405}
    return str((await _line(caplog)).getMessage())


@pytest.mark.parametrize("method", ["GET\n2026\tINFO\tforged", "GET\rx", "GET\x1b[31m", "G\u2028T", "G\u009bT"])
async def test_odd_method_forges_no_line(start: Start, caplog: pytest.LogCaptureFixture, method: str) -> None:
    assert (await _logged(start, caplog, f"{method} /livez".encode())).isprintable()


@pytest.mark.parametrize("path", ["/v2/\nforged", "/v2/\rx", "/v2/\x1b[31m", "/v2/\x00", "/v2/\x7f", "/v2/\t"])
async def test_odd_path_forges_no_line(start: Start, caplog: pytest.LogCaptureFixture, path: str) -> None:
    assert (await _logged(start, caplog, f"GET {path}".encode())).isprintable()


async def test_bytes_outside_utf8_can_be_written(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    assert (await _logged(start, caplog, b"G\xffT /livez")).encode("utf-8")


async def test_escapes_in_paths_stay_escaped(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    await (await start()).ask("GET /v2/a%0d%0ab%1b/tags/list HTTP/1.1\nHost: a")
    assert (await _line(caplog)).path == "/v2/a%0d%0ab%1b/tags/list"


async def test_warnings_of_upstream_leave_no_trace(
    start: Start, upstream: FakeUpstream, caplog: pytest.LogCaptureFixture
) -> None:
    upstream.put_manifest("a", "v1", b'{"schemaVersion":2}')
    upstream.alter = lambda answer: replace(answer, metadata=replace(answer.metadata, warnings=('299 - "x"',)))
    await (await start()).get("/v2/a/manifests/v1")
    assert (await _line(caplog)).fault is None
