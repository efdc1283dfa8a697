"""What clients get out of the cache, over HTTP."""

from dataclasses import replace
from typing import Any

import pytest

from domain.digest import Digest
from domain.errors import UpstreamThrottled, UpstreamUnreachable
from domain.span_set import SpanSet
from tests.entrypoints.conftest import Start
from tests.entrypoints.service import WireAnswer, basic, until
from tests.fakes.clock import StoppedClock
from tests.fakes.parts import opening
from tests.fakes.storage import MemoryInode
from tests.fakes.upstream import FakeUpstream

CONTENT = bytes(range(256)) * 1000
DIGEST = Digest.of(CONTENT)
BLOB = f"/v2/team/app/blobs/{DIGEST}"
TAG = "/v2/team/app/manifests/v1"
MANIFEST = b'{"schemaVersion":2,"layers":[]}'


@pytest.fixture
def upstream() -> FakeUpstream:
    upstream = FakeUpstream(users={"alice": "right"}, public={"team/app"})
    upstream.put_manifest("team/app", "v1", MANIFEST)
    for name in ("team/app", "team/own"):
        upstream.put_blob(name, CONTENT)
    return upstream


def _without_id(answer: WireAnswer) -> list[tuple[str, str]]:
    return sorted(pair for pair in answer.headers if pair[0] != "x-request-id")


async def test_a_second_blob_is_the_same_answer_from_here(start: Start, upstream: FakeUpstream) -> None:
    service = await start()
    first = await service.ask(f"GET {BLOB} HTTP/1.1\nHost: a")
    upstream.fault = UpstreamUnreachable("gone")
    second = await service.ask(f"GET {BLOB} HTTP/1.1\nHost: a")
    assert first.body == second.body == CONTENT
    assert _without_id(first) == _without_id(second)
    head = await service.ask(f"HEAD {BLOB} HTTP/1.1\nHost: a")
    assert _without_id(head) == _without_id(second)


@pytest.mark.parametrize(
    ("asked", "status", "span", "content_range"),
    [
        ("bytes=0-9", 206, (0, 10), "bytes 0-9/256000"),
        ("bytes=-5", 206, (255995, 256000), "bytes 255995-255999/256000"),
        ("bytes=255999-", 206, (255999, 256000), "bytes 255999-255999/256000"),
        ("bytes=0-", 206, (0, 256000), "bytes 0-255999/256000"),
        ("bytes=256000-", 416, None, "bytes */256000"),
        ("bytes=0-1,0-", 200, (0, 256000), None),
        ("bytes=256000-,7-8", 206, (7, 9), "bytes 7-8/256000"),
    ],
)
@pytest.mark.parametrize("is_warm", [False, True])
async def test_parts_are_the_same_cold_and_warm(
    start: Start, asked: str, status: int, span: tuple[int, int] | None, content_range: str | None, *, is_warm: bool
) -> None:
    service = await start()
    if is_warm:
        await service.get(BLOB)
    answer = await service.ask(f"GET {BLOB} HTTP/1.1\nHost: a\nRange: {asked}")
    assert (answer.status, answer.get("content-range")) == (status, content_range)
    if span:
        assert answer.body == CONTENT[slice(*span)]


async def test_what_the_client_has_is_not_sent_again_and_needs_a_right_too(
    start: Start, upstream: FakeUpstream
) -> None:
    upstream.scheme = "bearer"
    service = await start()
    alice = await service.token("repository:team/own:pull", basic("alice", "right"))
    nobody = await service.token("repository:team/own:pull")
    path = BLOB.replace("app", "own")
    assert (await service.get(path, {"Authorization": f"Bearer {alice}"})).content == CONTENT
    for token, status in ((alice, 304), (nobody, 401)):
        headers = f"Authorization: Bearer {token}\nIf-None-Match: {DIGEST}"
        assert (await service.ask(f"GET {path} HTTP/1.1\nHost: a\n{headers}")).status == status
    for method in ("GET", "HEAD"):
        asked = f"{method} {path} HTTP/1.1\nHost: a\nAuthorization: Bearer {nobody}"
        answer = await service.ask(asked)
        assert (answer.status, str(DIGEST) in str(answer.headers)) == (401, False)
        assert (await service.ask(asked.partition("\nAuth")[0])).status == 401


async def test_what_is_stale_comes_with_a_warning(start: Start, upstream: FakeUpstream) -> None:
    clock = StoppedClock()
    service = await start(parts=opening(upstream, clock))
    for path in (TAG, BLOB):
        await service.get(path)
    upstream.fault = UpstreamThrottled("slow down")
    clock.advance(301)
    for path, content in ((TAG, MANIFEST), (BLOB, CONTENT)):
        answer = await service.ask(f"GET {path} HTTP/1.1\nHost: a")
        assert (answer.status, answer.body) == (200, content)
        (warning,) = answer.all("warning")
        assert warning == '299 - "not checked with the upstream just now: slow down"'
        clock.advance(301)


async def test_a_stale_response_has_one_warning_of_bounded_length(start: Start, upstream: FakeUpstream) -> None:
    clock = StoppedClock()
    service = await start(parts=opening(upstream, clock))
    await service.get(TAG)
    clock.advance(61)
    upstream.fault = UpstreamUnreachable('caf\u00e9 "down"\r\n' * 1000)
    answer = await service.ask(f"GET {TAG} HTTP/1.1\nHost: a")
    [line] = answer.all("warning")
    assert answer.body == MANIFEST
    assert line.startswith("299 - \"not checked with the upstream just now: caf? 'down'")
    assert len(line) <= 4096


async def test_without_cached_content_there_is_no_stale_warning(start: Start, upstream: FakeUpstream) -> None:
    service = await start()
    await service.get("/v2/")
    upstream.fault = UpstreamThrottled("slow down", retry_after="7")
    answer = await service.ask(f"GET {TAG} HTTP/1.1\nHost: a")
    assert (answer.status, answer.get("retry-after")) == (429, "7")


async def test_content_that_turns_out_short_cuts_the_client_and_is_fetched_again(
    start: Start, upstream: FakeUpstream
) -> None:
    service = await start()
    await service.get(BLOB)
    store: Any = service.parts.store()
    short = MemoryInode(CONTENT[:1000])
    short.present = SpanSet.up_to(len(CONTENT))  # as a file that shrank after it was opened
    store.disk.inodes[DIGEST] = short
    cut = await service.ask(f"GET {BLOB} HTTP/1.1\nHost: a")
    assert not cut.is_whole
    await until(lambda: DIGEST not in store.disk.inodes)
    assert (await service.get(BLOB)).content == CONTENT


async def test_a_blob_without_a_length_is_chunked_cold_and_measured_warm(start: Start, upstream: FakeUpstream) -> None:
    upstream.alter = lambda answer: replace(answer, metadata=replace(answer.metadata, size=None))
    service = await start()
    cold = await service.ask(f"GET {BLOB} HTTP/1.1\nHost: a")
    assert (cold.body, cold.get("transfer-encoding")) == (CONTENT, "chunked")
    warm = await service.ask(f"GET {BLOB} HTTP/1.1\nHost: a")
    assert (warm.body, warm.get("content-length")) == (CONTENT, str(len(CONTENT)))


async def test_an_empty_blob_is_an_answer_too(start: Start, upstream: FakeUpstream) -> None:
    digest = upstream.put_blob("team/app", b"")
    service = await start()
    for _ in range(2):
        answer = await service.ask(f"GET /v2/team/app/blobs/{digest} HTTP/1.1\nHost: a")
        assert (answer.status, answer.body, answer.get("content-length")) == (200, b"", "0")


async def test_without_authorization_a_bearer_upstream_is_401_warm_as_cold(
    start: Start, upstream: FakeUpstream
) -> None:
    upstream.scheme = "bearer"
    service = await start()
    assert (await service.ask(f"GET {TAG} HTTP/1.1\nHost: a")).status == 401
    token = await service.token("repository:team/app:pull")
    for path in (TAG, BLOB):
        assert (await service.get(path, {"Authorization": f"Bearer {token}"})).status_code == 200
    for path in (TAG, BLOB):
        assert (await service.ask(f"GET {path} HTTP/1.1\nHost: a")).status == 401
