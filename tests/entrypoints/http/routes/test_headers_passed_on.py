"""Headers of a client that go upstream as they came: what cannot be sent on is the client's fault."""

import json

import pytest

from domain.digest import Digest
from tests.entrypoints.conftest import Start
from tests.entrypoints.service import Service
from tests.fakes.upstream import FakeUpstream

CONTENT = b'{"schemaVersion":2,"layers":[],"config":{}}'
ILLEGAL = [b"\x00", b"\x01", b"\x08", b"\x0b", b"\x0c", b"\x1f", b"\x7f", b"\xc2\x85", b"\xff", b"\xc3("]


@pytest.fixture
def upstream() -> FakeUpstream:
    upstream = FakeUpstream()
    upstream.put_manifest("team/app", "v1", CONTENT)
    return upstream


async def raw(service: Service, path: str, field: bytes, method: str = "GET") -> tuple[int, bytes]:
    async with service.wire() as wire:
        await wire.send(f"{method} {path} HTTP/1.1\r\nHost: a\r\n".encode() + field + b"\r\n\r\n")
        answer = await wire.answer(head=method == "HEAD")
        return answer.status, answer.body


@pytest.mark.parametrize("bad", ILLEGAL)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_an_accept_line_with_a_control_character_is_refused(
    start: Start, upstream: FakeUpstream, bad: bytes, method: str
) -> None:
    service = await start()
    status, body = await raw(service, "/v2/team/app/manifests/v1", b"Accept: a/b, x" + bad + b"y", method)
    assert status == 400
    if method == "GET":
        assert json.loads(body)["errors"][0]["code"] == "UNSUPPORTED"
    assert upstream.asked == []


async def test_every_accept_line_is_looked_at(start: Start, upstream: FakeUpstream) -> None:
    service = await start()
    lines = b"Accept: a/b\r\nAccept: c/d\r\nAccept: x\x01y"
    assert (await raw(service, "/v2/team/app/manifests/v1", lines))[0] == 400
    assert upstream.asked == []


@pytest.mark.parametrize("bad", ILLEGAL)
@pytest.mark.parametrize(
    "path",
    [
        "/v2/",
        "/v2/team/app/manifests/v1",
        f"/v2/team/app/blobs/{Digest.of(b'x')}",
        "/v2/team/app/tags/list",
        f"/v2/team/app/referrers/{Digest.of(b'x')}",
        "/v2/_catalog",
        "/v2/auth",
        "/v1/search?q=x",
    ],
)
async def test_an_authorization_with_a_control_character_is_refused(
    start: Start, upstream: FakeUpstream, path: str, bad: bytes
) -> None:
    service = await start()
    assert (await raw(service, path, b"Authorization: Bearer a" + bad + b"b"))[0] == 400
    assert upstream.asked == []


async def test_a_tab_is_allowed(start: Start, upstream: FakeUpstream) -> None:
    service = await start()
    assert (await raw(service, "/v2/team/app/manifests/v1", b"Accept: a/b,\t*/*"))[0] == 200
    assert [fetch.accept for fetch in upstream.asked] == [("a/b,\t*/*",)]


async def test_text_in_utf8_is_passed_on(start: Start, upstream: FakeUpstream) -> None:
    service = await start()
    assert (await raw(service, "/v2/team/app/manifests/v1", 'Accept: a/b;x="é", */*'.encode()))[0] == 200


@pytest.mark.parametrize("field", ["User-Agent", "Range", "If-None-Match", "X-Other"])
async def test_what_is_not_passed_on_does_not_reach_the_upstream(
    start: Start, upstream: FakeUpstream, field: str
) -> None:
    """A range goes upstream as numbers of ours; the others stay here."""
    service = await start()
    status, _ = await raw(service, "/v2/team/app/manifests/v1", f"{field}: bytes=a\x01b".encode())
    assert status in {200, 400}
    assert [fetch for fetch in upstream.asked if "x01" in repr(fetch)] == []
