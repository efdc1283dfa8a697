"""Several ranges of one blob in one request, as clients that load images lazily ask for them."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from domain.byte_ranges import RANGES_LIMIT, ByteRange
from domain.digest import Digest
from tests.entrypoints.conftest import Start
from tests.entrypoints.service import Service
from tests.fakes.upstream import FakeAnswer, FakeUpstream

CONTENT = bytes(range(256)) * 4000
SIZE = len(CONTENT)
DIGEST = str(Digest.of(CONTENT))
PATH = f"/v2/team/app/blobs/{DIGEST}"
Prepare = Callable[[Service, FakeUpstream], Any]


@pytest.fixture
def upstream() -> FakeUpstream:
    upstream = FakeUpstream()
    upstream.put_blob("team/app", CONTENT)
    return upstream


def ignore_ranges(answer: FakeAnswer) -> FakeAnswer:
    metadata = replace(answer.metadata, size=SIZE, span=None, whole_size=None)
    return replace(answer, metadata=metadata, content=CONTENT, piece=1000)


async def cold(_: Service, upstream: FakeUpstream) -> None:
    upstream.alter = lambda answer: replace(answer, piece=1000)


async def cold_without_ranges(_: Service, upstream: FakeUpstream) -> None:
    upstream.alter = ignore_ranges


async def warm(service: Service, _: FakeUpstream) -> None:
    await service.get(PATH)


STATES = pytest.mark.parametrize("prepare", [cold, cold_without_ranges, warm])


async def ask(service: Service, ranges: str) -> Any:
    return await service.ask(f"GET {PATH} HTTP/1.1\nHost: a\nRange: {ranges}")


def parts_of(answer: Any) -> list[tuple[str, str, bytes]]:
    """Content-Type, Content-Range and the bytes of each part (RFC 2046 section 5.1.1)."""
    kind, _, boundary = str(answer.get("content-type")).partition("; boundary=")
    assert kind == "multipart/byteranges"
    preamble, *parts, end = answer.body.split(f"\r\n--{boundary}".encode())
    assert (preamble, end) == (b"", b"--\r\n")
    heads = [part.partition(b"\r\n\r\n") for part in parts]
    fields = [dict(line.split(": ") for line in head.decode().split("\r\n") if line) for head, _, _ in heads]
    return [
        (headers["Content-Type"], headers["Content-Range"], content)
        for headers, (_, _, content) in zip(fields, heads, strict=True)
    ]


@STATES
@pytest.mark.parametrize(
    ("asked", "spans"),
    [
        ("bytes=0-1,5-6", [(0, 2), (5, 7)]),
        ("bytes=0-0, 100000-100999, 900000-", [(0, 1), (100_000, 101_000), (900_000, SIZE)]),
        ("bytes=10-19,-7", [(10, 20), (SIZE - 7, SIZE)]),
        ("bytes=65-90,200000-200001,200002-200009", [(65, 91), (200_000, 200_002), (200_002, 200_010)]),
    ],
)
async def test_several_ranges_are_one_multipart_answer(
    start: Start, upstream: FakeUpstream, prepare: Prepare, asked: str, spans: list[tuple[int, int]]
) -> None:
    service = await start()
    await prepare(service, upstream)
    answer = await ask(service, asked)
    assert (answer.status, answer.get("content-range")) == (206, None)
    assert answer.get("content-length") == str(len(answer.body))
    assert answer.get("docker-content-digest") == DIGEST
    assert parts_of(answer) == [
        ("application/octet-stream", f"bytes {start}-{stop - 1}/{SIZE}", CONTENT[start:stop]) for start, stop in spans
    ]


@pytest.mark.parametrize("prepare", [cold, warm])
async def test_parts_come_in_the_order_of_the_request(start: Start, upstream: FakeUpstream, prepare: Prepare) -> None:
    service = await start()
    await prepare(service, upstream)
    answer = await ask(service, "bytes=500000-500009,7-9,300000-300000")
    assert [headers for _, headers, _ in parts_of(answer)] == [
        f"bytes 500000-500009/{SIZE}",
        f"bytes 7-9/{SIZE}",
        f"bytes 300000-300000/{SIZE}",
    ]


async def test_parts_out_of_order_come_also_if_the_upstream_has_no_ranges(start: Start, upstream: FakeUpstream) -> None:
    service = await start()
    upstream.alter = ignore_ranges
    answer = await ask(service, "bytes=500000-500009,7-9")
    assert [content for *_, content in parts_of(answer)] == [CONTENT[500_000:500_010], CONTENT[7:10]]


async def test_without_a_cache_parts_out_of_order_are_sent_whole_if_the_upstream_has_no_ranges(
    start: Start, upstream: FakeUpstream
) -> None:
    service = await start(cache_dir="off")
    upstream.alter = ignore_ranges
    answer = await ask(service, "bytes=500000-500009,7-9")
    assert (answer.status, answer.body) == (200, CONTENT)


@STATES
async def test_a_range_outside_the_blob_is_left_out(start: Start, upstream: FakeUpstream, prepare: Prepare) -> None:
    service = await start()
    await prepare(service, upstream)
    one = await ask(service, f"bytes={SIZE}-,5-6")
    assert (one.status, one.get("content-range"), one.body) == (206, f"bytes 5-6/{SIZE}", CONTENT[5:7])
    two = await ask(service, f"bytes=5-6,{SIZE + 9}-,8-8")
    assert [headers for _, headers, _ in parts_of(two)] == [f"bytes 5-6/{SIZE}", f"bytes 8-8/{SIZE}"]


@STATES
async def test_ranges_that_are_all_outside_are_refused(start: Start, upstream: FakeUpstream, prepare: Prepare) -> None:
    service = await start()
    await prepare(service, upstream)
    answer = await ask(service, f"bytes={SIZE}-,{SIZE + 5}-{SIZE + 6}")
    assert (answer.status, answer.get("content-range")) == (416, f"bytes */{SIZE}")


@STATES
async def test_ranges_longer_than_the_blob_together_are_sent_whole(
    start: Start, upstream: FakeUpstream, prepare: Prepare
) -> None:
    service = await start()
    await prepare(service, upstream)
    answer = await ask(service, "bytes=0-,1-,2-")
    assert (answer.status, answer.body) == (200, CONTENT)


async def test_too_many_ranges_reach_no_upstream(start: Start, upstream: FakeUpstream) -> None:
    service = await start()
    answer = await ask(service, "bytes=" + ",".join(f"{2 * n}-{2 * n}" for n in range(RANGES_LIMIT + 1)))
    assert answer.status == 400
    assert b"RANGE_INVALID" in answer.body
    assert upstream.asked == []


async def test_ranges_that_are_close_together_cost_one_request_upstream(start: Start, upstream: FakeUpstream) -> None:
    service = await start(cache_dir="off")
    answer = await ask(service, "bytes=0-0," + ",".join(f"{n}-{n + 9}" for n in range(300_000, 310_000, 100)))
    assert len(parts_of(answer)) == 101
    assert [fetch.byte_range for fetch in upstream.asked] == [ByteRange(0, 0), ByteRange(300_000, 309_909)]
    upstream.asked.clear()
    assert len(parts_of(await ask(service, "bytes=5-9,100-109,200-"))) == 3
    assert [fetch.byte_range for fetch in upstream.asked] == [ByteRange(5, None)]


async def test_two_range_lines_are_several_ranges(start: Start) -> None:
    # RFC 9110 section 5.3: they mean what one line with a comma means.
    service = await start()
    answer = await service.ask(f"GET {PATH} HTTP/1.1\nHost: a\nRange: bytes=0-1\nRange: bytes=5-6")
    assert answer.status == 400  # the second line repeats the unit, which no list of ranges does
    answer = await service.ask(f"GET {PATH} HTTP/1.1\nHost: a\nRange: bytes=0-1\nRange: 5-6")
    assert [headers for _, headers, _ in parts_of(answer)] == [f"bytes 0-1/{SIZE}", f"bytes 5-6/{SIZE}"]


async def test_an_upstream_that_refuses_is_an_error_and_not_a_cut(start: Start, upstream: FakeUpstream) -> None:
    service = await start()
    upstream.alter = lambda answer: replace(
        answer, metadata=replace(answer.metadata, span=None, size=None), cut_after=0
    )
    answer = await ask(service, "bytes=0-1,5-6")
    assert (answer.status, b"UNAVAILABLE" in answer.body) == (502, True)
