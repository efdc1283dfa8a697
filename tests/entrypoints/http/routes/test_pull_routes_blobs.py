"""Blobs over HTTP: headers, ranges and conditions."""

import json
from collections.abc import Callable
from dataclasses import replace

import pytest

from domain.byte_ranges import Span
from domain.digest import Digest
from tests.entrypoints.conftest import Start
from tests.fakes.upstream import FakeAnswer, FakeUpstream

CONTENT = bytes(range(256)) * 4
SIZE = len(CONTENT)
DIGEST = str(Digest.of(CONTENT))
PATH = f"/v2/team/app/blobs/{DIGEST}"

Alter = Callable[[FakeAnswer], FakeAnswer]


@pytest.fixture
def upstream() -> FakeUpstream:
    upstream = FakeUpstream()
    upstream.put_blob("team/app", CONTENT)
    return upstream


def _without_ranges(answer: FakeAnswer) -> FakeAnswer:
    """An upstream that answers every request with the whole."""
    metadata = replace(answer.metadata, size=SIZE, span=None, whole_size=None)
    return replace(answer, metadata=metadata, content=CONTENT)


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_blob_answer_has_exact_headers(start: Start, method: str) -> None:
    service = await start()
    answer = await service.ask(f"{method} {PATH} HTTP/1.1\nHost: a\nAccept-Encoding: gzip, zstd")
    ours = {name: value for name, value in answer.headers if name not in {"connection", "alt-svc", "x-request-id"}}
    assert answer.status == 200
    assert ours == {
        "content-type": "application/octet-stream",
        "content-length": str(SIZE),
        "docker-content-digest": DIGEST,
        "etag": f'"{DIGEST}"',
        "accept-ranges": "bytes",
        "docker-distribution-api-version": "registry/2.0",
    }
    assert answer.body == (CONTENT if method == "GET" else b"")


async def test_blob_keeps_its_upstream_type(start: Start, upstream: FakeUpstream) -> None:
    upstream.alter = lambda answer: replace(answer, metadata=replace(answer.metadata, media_type="text/x-odd;a=b"))
    answer = await (await start()).get(PATH)
    assert answer.headers["content-type"] == "text/x-odd;a=b"


async def test_empty_blob_has_a_length(start: Start, upstream: FakeUpstream) -> None:
    digest = upstream.put_blob("team/app", b"")
    answer = await (await start()).ask(f"GET /v2/team/app/blobs/{digest} HTTP/1.1\nHost: a")
    assert (answer.status, answer.get("content-length"), answer.body) == (200, "0", b"")


async def test_head_of_unknown_length_is_refused(start: Start, upstream: FakeUpstream) -> None:
    # Without a length Sanic would write one of 0, and clients believe it.
    upstream.alter = lambda answer: replace(answer, metadata=replace(answer.metadata, size=None))
    answer = await (await start()).ask(f"HEAD {PATH} HTTP/1.1\nHost: a")
    assert (answer.status, answer.get("docker-content-digest")) == (502, None)


PARTS = {
    "bytes=0-0": (0, 0),
    "bytes=500-899": (500, 899),
    "bytes=500-": (500, SIZE - 1),
    "bytes=-100": (SIZE - 100, SIZE - 1),
    "bytes=-9999": (0, SIZE - 1),
    "bytes=1000-99999": (1000, SIZE - 1),
    "bytes=0-": (0, SIZE - 1),
    "Bytes= 7-9": (7, 9),
}
WITH_AND_WITHOUT_RANGES = pytest.mark.parametrize("alter", [lambda answer: answer, _without_ranges])


@WITH_AND_WITHOUT_RANGES
async def test_range_is_answered_in_part(start: Start, upstream: FakeUpstream, alter: Alter) -> None:
    upstream.alter = alter
    service = await start()
    for asked, (first, last) in PARTS.items():
        answer = await service.get(PATH, {"Range": asked})
        assert (answer.status_code, answer.content) == (206, CONTENT[first : last + 1]), asked
        assert answer.headers["content-range"] == f"bytes {first}-{last}/{SIZE}"
        assert answer.headers["content-length"] == str(last + 1 - first)
        assert (answer.headers["docker-content-digest"], answer.headers["accept-ranges"]) == (DIGEST, "bytes")


@WITH_AND_WITHOUT_RANGES
async def test_range_outside_names_the_size(start: Start, upstream: FakeUpstream, alter: Alter) -> None:
    upstream.alter = alter
    service = await start()
    for asked in (f"bytes={SIZE}-", f"bytes={SIZE + 5}-{SIZE + 9}", "bytes=-0"):
        answer = await service.get(PATH, {"Range": asked})
        assert (answer.status_code, answer.json()["errors"][0]["code"]) == (416, "RANGE_INVALID"), asked
        assert answer.headers["content-range"] == f"bytes */{SIZE}"


async def test_range_ending_early_is_unsatisfiable(start: Start, upstream: FakeUpstream) -> None:
    answer = await (await start()).get(PATH, {"Range": "bytes=500-0"})
    assert (answer.status_code, answer.json()["errors"][0]["code"]) == (416, "RANGE_INVALID")
    assert upstream.asked == []


async def test_malformed_range_reaches_no_upstream(start: Start, upstream: FakeUpstream) -> None:
    service = await start()
    for asked in ("bytes=", "bytes=-", "bytes=a-b", "bytes=1-2-3", "bytes=--1", f"bytes={'9' * 20}-", "bytes=1 - 2"):
        answer = await service.get(PATH, {"Range": asked})
        assert (answer.status_code, answer.json()["errors"][0]["code"]) == (400, "RANGE_INVALID"), asked
    assert upstream.asked == []


async def test_range_of_foreign_digits_is_malformed(start: Start) -> None:
    # RFC 9110 section 14.1.1: a DIGIT is 0 to 9, and nothing else that Unicode calls a digit.
    answer = await (await start()).ask(f"GET {PATH} HTTP/1.1\nHost: a\nRange: bytes=\u0663-\u0665")
    assert (answer.status, json.loads(answer.body)["errors"][0]["code"]) == (400, "RANGE_INVALID")


async def test_other_units_are_answered_whole(start: Start, upstream: FakeUpstream) -> None:
    service = await start()
    for asked in ("lines=1-2", "nonsense"):
        answer = await service.get(PATH, {"Range": asked})
        assert (answer.status_code, answer.content, "content-range" in answer.headers) == (200, CONTENT, False), asked
        assert upstream.asked[-1].byte_range is None


async def test_head_does_not_know_ranges(start: Start) -> None:
    # RFC 9110 section 14.2: range handling is defined for GET only, and ignored elsewhere.
    service = await start()
    for asked in ("bytes=0-9", "bytes=5-2", "bytes=x", f"bytes={SIZE}-"):
        answer = await service.head(PATH, {"Range": asked})
        assert (answer.status_code, answer.headers["content-length"]) == (200, str(SIZE)), asked


@pytest.mark.parametrize("condition", [f'"{DIGEST}"', DIGEST])
async def test_right_if_range_gives_the_part(start: Start, condition: str) -> None:
    answer = await (await start()).get(PATH, {"Range": "bytes=2-3", "If-Range": condition})
    assert (answer.status_code, answer.content) == (206, CONTENT[2:4])


async def test_wrong_if_range_gives_the_whole(start: Start) -> None:
    service = await start()
    for condition in ('"sha256:other"', f'W/"{DIGEST}"', "Wed, 21 Oct 2015 07:28:00 GMT", '""'):
        answer = await service.get(PATH, {"Range": "bytes=2-3", "If-Range": condition})
        assert (answer.status_code, answer.content) == (200, CONTENT), condition


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_known_blob_is_not_sent_again(start: Start, upstream: FakeUpstream, method: str) -> None:
    service = await start()
    for condition in (f'"{DIGEST}"', DIGEST, f'W/"{DIGEST}"', f'"a", "{DIGEST}"', "*"):
        answer = await service.ask(f"{method} {PATH} HTTP/1.1\nHost: a\nIf-None-Match: {condition}")
        assert (answer.status, answer.get("content-length"), answer.get("etag")) == (304, None, f'"{DIGEST}"')
        assert (answer.get("accept-ranges"), answer.get("docker-content-digest")) == ("bytes", DIGEST)
    assert all(fetch.head for fetch in upstream.asked)


async def test_unknown_blob_is_no_known_one(start: Start) -> None:
    missing = f"/v2/team/app/blobs/sha256:{'0' * 64}"
    answer = await (await start()).get(missing, {"If-None-Match": "*"})
    assert (answer.status_code, answer.json()["errors"][0]["code"]) == (404, "BLOB_UNKNOWN")


async def test_an_ill_formed_digest_is_an_unknown_blob(start: Start, upstream: FakeUpstream) -> None:
    service = await start()
    for reference in ("latest", "sha256:baddigest", f"sha1:{'0' * 40}", DIGEST.upper(), f"{DIGEST}0", "", "sha256:"):
        answer = await service.get(f"/v2/team/app/blobs/{reference}")
        assert (answer.status_code, answer.json()["errors"][0]["code"]) == (404, "BLOB_UNKNOWN"), reference
    assert upstream.asked == []


async def test_escaped_colon_is_a_colon(start: Start) -> None:
    answer = await (await start()).ask(f"GET {PATH.replace(':', '%3A')} HTTP/1.1\nHost: a")
    assert (answer.status, answer.body) == (200, CONTENT)


async def test_blob_of_another_range_is_refused(start: Start, upstream: FakeUpstream) -> None:
    other = Span(1, 5)
    upstream.alter = lambda answer: FakeAnswer(replace(answer.metadata, span=other), CONTENT[1:5])
    answer = await (await start()).get(PATH, {"Range": "bytes=0-3"})
    assert (answer.status_code, answer.json()["errors"][0]["code"]) == (502, "UNAVAILABLE")
