"""Blobs: streamed, checked on their way, and never complete where they are wrong."""

import asyncio
from dataclasses import replace

import pytest

from application.access.access_request import Caller
from application.blobs.blob_query import BlobAnswer, BlobQuery
from application.ports.upstream import ResponseMetadata
from domain.byte_ranges import ByteRange, Span
from domain.digest import Digest
from domain.errors import BlobUnknown, RangeUnsatisfiable, Unauthorized, UpstreamBroken
from domain.events import DigestMismatch
from tests.application.support.service import LAYER, LAYER_DIGEST, NAME, REALM, Service, bytes_of, stocked
from tests.fakes.upstream import FakeAnswer

SIZE = len(LAYER)


def pulled(service: Service, **query: object) -> tuple[BlobAnswer, bytes, bool]:
    """The answer, the bytes that came, and whether the body ended as it should."""

    async def pull() -> tuple[BlobAnswer, bytes, bool]:
        got = bytearray()
        asked = BlobQuery(NAME, **({"digest": LAYER_DIGEST} | query))
        try:
            async with service.parts.pull_blob().open(Caller(None, REALM), asked) as answer:
                if answer.pieces:
                    async for piece in answer.pieces:
                        got += bytes_of(piece)
        except UpstreamBroken:
            return answer, bytes(got), False
        return answer, bytes(got), True

    return service.run(pull())


def sending(content: bytes, *, piece: int = 100, size: int | None = None, **metadata: object) -> Service:
    """An upstream that answers everything with these bytes."""
    service = Service(stocked("none"))
    stated = replace(ResponseMetadata("application/octet-stream", size), **metadata)
    service.upstream.blobs = _Everything()
    service.upstream.alter = lambda _: FakeAnswer(stated, content, piece)
    return service


class _Everything(dict[tuple[str, str], bytes]):
    """Has a blob for every name and digest, which `alter` then replaces."""

    def __contains__(self, key: object) -> bool:
        return True

    def __missing__(self, key: tuple[str, str]) -> bytes:
        return LAYER


def test_whole_blob_arrives_with_its_facts() -> None:
    service = Service(stocked("none"))
    answer, content, complete = pulled(service)
    assert (content, complete) == (LAYER, True)
    assert (answer.digest, answer.size, answer.spans) == (LAYER_DIGEST, SIZE, ())
    assert answer.media_type == "application/octet-stream"


@pytest.mark.parametrize("content", [b"", b"x", LAYER])
@pytest.mark.parametrize("piece", [1, 7, 10_000])
def test_right_bytes_arrive_in_pieces_of_any_size(content: bytes, piece: int) -> None:
    answer, got, complete = pulled(sending(content, piece=piece, size=len(content)), digest=Digest.of(content))
    assert (got, complete, answer.size) == (content, True, len(content))


@pytest.mark.parametrize("wrong", [b"x", LAYER[:-1] + b"!", b"!" + LAYER[1:], LAYER + b"!", LAYER[:-1]])
@pytest.mark.parametrize("piece", [1, 100, 10_000])
@pytest.mark.parametrize("has_length", ["with its length", "without a length"])
@pytest.mark.parametrize("asked", [None, ByteRange(0, None)])
def test_wrong_bytes_never_arrive_complete(wrong: bytes, piece: int, has_length: str, asked: ByteRange | None) -> None:
    service = sending(wrong, piece=piece, size=len(wrong) if has_length == "with its length" else None)
    _, got, complete = pulled(service, ranges=(asked,) if asked else ())
    assert not complete
    assert len(got) < len(wrong)
    assert wrong.startswith(got)
    assert service.events[-1] == DigestMismatch("https://upstream.test", "public/app", str(LAYER_DIGEST))


@pytest.mark.parametrize("size", [0, None])
def test_an_empty_body_is_wrong_too(size: int | None) -> None:
    _, got, complete = pulled(sending(b"", size=size))
    assert (got, complete) == (b"", False)


def test_whole_blob_sent_as_a_part_is_checked() -> None:
    wrong = LAYER[:-1] + b"!"
    _, got, complete = pulled(
        sending(wrong, size=SIZE, span=Span(0, SIZE), whole_size=SIZE), ranges=(ByteRange(0, None),)
    )
    assert (complete, len(got) < SIZE) == (False, True)


def test_an_interrupted_body_is_never_completed() -> None:
    service = Service(stocked("none"), fill_retries=0)
    service.upstream.alter = lambda answer: replace(answer, piece=100, cut_after=200)
    _, got, complete = pulled(service)
    assert not complete
    assert len(got) < SIZE


@pytest.mark.parametrize(
    ("byte_range", "span"),
    [
        (ByteRange(0, 0), Span(0, 1)),
        (ByteRange(5, 99), Span(5, 100)),
        (ByteRange(5, None), Span(5, SIZE)),
        (ByteRange(None, 10), Span(SIZE - 10, SIZE)),
        (ByteRange(SIZE - 1, 10**9), Span(SIZE - 1, SIZE)),
        (ByteRange(0, None), Span(0, SIZE)),
        (ByteRange(None, 10**9), Span(0, SIZE)),
    ],
)
@pytest.mark.parametrize("ignored", [True, False])
def test_a_range_is_cut_by_the_upstream_or_by_the_mirror(byte_range: ByteRange, span: Span, ignored: bool) -> None:  # noqa: FBT001
    service = sending(LAYER, piece=7, size=SIZE) if ignored else Service(stocked("none"))
    answer, got, complete = pulled(service, ranges=(byte_range,))
    assert (got, complete) == (LAYER[span.start : span.stop], True)
    assert (answer.spans, answer.size) == ((span,), SIZE)
    is_whole = byte_range == ByteRange(0, None)  # asked as any whole blob, so that others can read along
    assert service.upstream.asked[0].byte_range == (None if is_whole else byte_range)


def test_a_range_of_a_blob_of_unknown_size_is_answered_with_the_whole() -> None:
    """Without a length there is no honest Content-Range; RFC 9110 section 14.2 allows a 200."""
    answer, got, _ = pulled(sending(LAYER, size=None), ranges=(ByteRange(5, 9),))
    assert (answer.spans, answer.size, got) == ((), None, LAYER)


@pytest.mark.parametrize("ignored", [True, False])
def test_range_beyond_the_end_is_unsatisfiable(ignored: bool) -> None:  # noqa: FBT001
    service = sending(LAYER, size=SIZE) if ignored else Service(stocked("none"))
    with pytest.raises(RangeUnsatisfiable) as refused:
        pulled(service, ranges=(ByteRange(SIZE, None),))
    assert refused.value.size == SIZE


@pytest.mark.parametrize(
    ("span", "whole_size", "size"),
    [
        (Span(6, 100), SIZE, 94),
        (Span(5, 99), SIZE, 94),
        (Span(5, 101), SIZE, 96),
        (Span(0, 95), SIZE, 95),
        (Span(5, 100), SIZE, 94),
        (Span(5, 100), 50, 95),
        (Span(6, 100), None, 94),
        (Span(5, 101), None, 96),
    ],
)
def test_a_different_range_than_requested_is_refused(span: Span, whole_size: int | None, size: int) -> None:
    service = sending(LAYER[:size], size=size, span=span, whole_size=whole_size)
    with pytest.raises((UpstreamBroken, RangeUnsatisfiable)):
        service.run(service.blob(ranges=(ByteRange(5, 99),)))


def test_a_partial_response_without_a_range_request_is_refused() -> None:
    service = sending(LAYER[:10], size=10, span=Span(0, 10), whole_size=SIZE)
    with pytest.raises(UpstreamBroken):
        service.run(service.blob())


def test_a_partial_response_without_a_total_is_accepted() -> None:
    service = sending(LAYER[5:100], size=95, span=Span(5, 100), whole_size=None)
    answer, got, complete = pulled(service, ranges=(ByteRange(5, 99),))
    assert (answer.spans, answer.size, got, complete) == ((Span(5, 100),), None, LAYER[5:100], True)


def test_a_suffix_without_a_total_is_refused() -> None:
    service = sending(LAYER[-10:], size=10, span=Span(SIZE - 10, SIZE), whole_size=None)
    with pytest.raises(UpstreamBroken):
        service.run(service.blob(ranges=(ByteRange(None, 10),)))


def test_part_that_ends_before_it_begins_is_refused() -> None:
    """RFC 9110 section 14.4: such a Content-Range is invalid, even if the size of the whole is unknown."""
    service = sending(LAYER[:5], size=None, span=Span(6, 3), whole_size=None)
    with pytest.raises(UpstreamBroken):
        service.run(service.blob(ranges=(ByteRange(6, None),)))


@pytest.mark.parametrize("query", [{"head": True}, {"known": True}, {"head": True, "ranges": (ByteRange(5, 9),)}])
def test_head_and_known_blob_cost_one_head(query: dict[str, object]) -> None:
    service = Service(stocked("none"))
    answer, got, _ = pulled(service, **query)
    assert (answer.pieces, answer.size, answer.spans, got) == (None, SIZE, (), b"")
    assert [(fetch.head, fetch.byte_range) for fetch in service.upstream.asked] == [(True, None)]


def test_knowing_a_digest_gives_no_permission() -> None:
    service = Service(stocked("bearer"))
    with pytest.raises(Unauthorized):
        service.run(service.blob(known=True))
    with pytest.raises(Unauthorized):
        service.run(service.blob("Bearer upstream-token-of-=", type(NAME)("private/app"), known=True))


def test_blob_of_another_repository_is_unknown() -> None:
    service = Service(stocked("none"))
    with pytest.raises(BlobUnknown):
        service.run(service.blob(name=type(NAME)("other/app")))


def test_short_name_means_library_on_docker_hub() -> None:
    service = Service(stocked("none"), upstream_registry="https://registry-1.docker.io")
    service.upstream.put_blob("library/nginx", LAYER)
    assert service.run(service.blob(name=type(NAME)("nginx"))) == LAYER
    assert service.upstream.asked[0].resource.path == f"library/nginx/blobs/{LAYER_DIGEST}"


def test_sha512_blob_is_checked_by_sha512() -> None:
    digest = Digest.of(LAYER, "sha512")
    assert pulled(sending(LAYER, size=SIZE), digest=digest)[2]
    assert not pulled(sending(LAYER[:-1] + b"!", size=SIZE), digest=digest)[2]


def test_a_client_that_stops_reading_ends_its_passthrough() -> None:
    service = Service(stocked("none"), cache_dir="off")
    service.upstream.alter = lambda answer: replace(answer, piece=10)

    async def leave() -> bytes:
        async with service.parts.pull_blob().open(Caller(None, REALM), BlobQuery(NAME, LAYER_DIGEST)) as answer:
            assert answer.pieces
            async for piece in answer.pieces:
                return bytes_of(piece)
        return b""

    assert asyncio.run(leave()) == LAYER[:10]
