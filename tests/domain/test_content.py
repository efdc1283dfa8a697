import json

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from domain.content import (
    CLOSE_BYTES,
    MANIFEST_MEDIA_TYPES,
    RANGES_LIMIT,
    ByteRange,
    Span,
    check_manifest,
    identifies_manifest,
    leading_range,
    parse_ranges,
    spans_of,
    stated_media_type,
    without_parameters,
)
from domain.digest import Digest
from domain.errors import RangeMalformed, RangeUnsatisfiable, UpstreamBroken

IMAGE, INDEX = MANIFEST_MEDIA_TYPES[:2]
OTHER = Digest.of(b"other")
_ends = st.integers(0, 60)
ranges = st.one_of(
    st.tuples(_ends, _ends).map(lambda ends: ByteRange(min(ends), max(ends))),
    _ends.map(lambda first: ByteRange(first, None)),
    _ends.map(lambda last: ByteRange(None, last)),
)


def wanted_positions(asked: ByteRange, size: int) -> list[int]:
    """Which bytes the range means, one by one (RFC 9110 section 14.1.2)."""
    if asked.first is None:
        return [position for position in range(size) if position >= size - (asked.last or 0)]
    return [
        position
        for position in range(size)
        if position >= asked.first and (asked.last is None or position <= asked.last)
    ]


@given(ranges)
def test_a_printed_range_is_read_back(asked: ByteRange) -> None:
    assert parse_ranges(str(asked)) == (asked,)


@pytest.mark.parametrize("header", [None, "", "bytes", "bytes 0-1", "items=0-1"])
def test_a_header_without_byte_ranges_asks_for_no_range(header: str | None) -> None:
    assert parse_ranges(header) == ()


@pytest.mark.parametrize(
    ("header", "asked"),
    [
        ("bytes=0-", ByteRange(0, None)),
        ("BYTES=5-9", ByteRange(5, 9)),
        ("bytes= 5-9 ", ByteRange(5, 9)),
        ("bytes=-0", ByteRange(None, 0)),
        ("bytes=0-9999999999999999999", ByteRange(0, 9999999999999999999)),
    ],
)
def test_a_single_byte_range_is_read(header: str, asked: ByteRange) -> None:
    assert parse_ranges(header) == (asked,)


@pytest.mark.parametrize(
    "header",
    [
        "bytes=",
        "bytes=,",
        "bytes=0-1,x",
        "bytes=-",
        "bytes=a-b",
        "bytes=1",
        "bytes=1-2-3",
        "bytes=--1",
        "bytes=+1-2",
        "bytes=1 -2",
    ],
)
def test_a_malformed_range_is_refused(header: str) -> None:
    with pytest.raises(RangeMalformed):
        parse_ranges(header)


def test_only_ascii_digits_make_a_range() -> None:
    with pytest.raises(RangeMalformed):
        parse_ranges("bytes=\N{ARABIC-INDIC DIGIT THREE}-\N{ARABIC-INDIC DIGIT FIVE}")


def test_a_number_of_twenty_digits_is_refused() -> None:
    with pytest.raises(RangeMalformed):
        parse_ranges("bytes=0-" + "9" * 20)


@given(_ends, st.integers(1, 60))
def test_a_range_that_ends_early_is_unsatisfiable(last: int, excess: int) -> None:
    with pytest.raises(RangeUnsatisfiable):
        parse_ranges(f"bytes={last + excess}-{last}")


@given(st.text())
def test_any_header_is_read_or_refused(header: str) -> None:
    for text in (header, f"bytes={header}"):
        try:
            asked = parse_ranges(text)
        except (RangeMalformed, RangeUnsatisfiable):
            continue
        assert all(parse_ranges(str(one)) == (one,) for one in asked)


@pytest.mark.parametrize("header", ["bytes=0-1,4-5", "bytes=0-1, 4-5", "bytes= ,0-1 ,, 4-5,", "bytes=0-1,9-8,4-5"])
def test_several_ranges_are_read_in_their_order(header: str) -> None:
    assert parse_ranges(header) == (ByteRange(0, 1), ByteRange(4, 5))


def test_the_number_of_ranges_is_bounded() -> None:
    assert len(parse_ranges("bytes=" + ",".join(["0-0"] * RANGES_LIMIT))) == RANGES_LIMIT
    with pytest.raises(RangeMalformed):
        parse_ranges("bytes=" + ",".join(["0-0"] * (RANGES_LIMIT + 1)))


@pytest.mark.parametrize(
    ("header", "leading"),
    [
        ("bytes=5-9", "bytes=5-9"),
        ("bytes=0-9,10-19,30-39,9000000-9000001", "bytes=0-39"),
        ("bytes=0-9,5-19", "bytes=0-9"),
        ("bytes=30-39,0-9", "bytes=30-39"),
        ("bytes=0-9,20-", "bytes=0-"),
        ("bytes=0-9,20-,30-39", "bytes=0-"),
        ("bytes=-5,0-9", "bytes=-5"),
        (f"bytes=0-0,{CLOSE_BYTES + 1}-{CLOSE_BYTES + 2}", f"bytes=0-{CLOSE_BYTES + 2}"),
        (f"bytes=0-0,{CLOSE_BYTES + 2}-{CLOSE_BYTES + 2}", "bytes=0-0"),
    ],
)
def test_the_leading_range_holds_what_follows_closely(header: str, leading: str) -> None:
    assert str(leading_range(parse_ranges(header))) == leading


@given(st.lists(ranges, min_size=1, max_size=5), st.integers(0, 80))
def test_several_ranges_mean_the_bytes_that_they_name(asked: list[ByteRange], size: int) -> None:
    wanted = [positions for one in asked if (positions := wanted_positions(one, size))]
    if not wanted:
        with pytest.raises(RangeUnsatisfiable):
            spans_of(asked, size)
        return
    assert [list(range(span.start, span.stop)) for span in spans_of(asked, size)] == wanted


@given(ranges, st.integers(0, 80))
def test_a_range_means_the_bytes_it_names(asked: ByteRange, size: int) -> None:
    wanted = wanted_positions(asked, size)
    if wanted:
        span = asked.of(size)
        assert list(range(span.start, span.stop)) == wanted
        assert span.length == len(wanted)
    else:
        with pytest.raises(RangeUnsatisfiable) as caught:
            asked.of(size)
        assert caught.value.size == size


@given(ranges, st.integers(1, 80), st.integers(0, 80), st.integers(1, 80))
def test_only_the_asked_bytes_answer_a_range(asked: ByteRange, size: int, start: int, length: int) -> None:
    wanted = wanted_positions(asked, size)
    assume(wanted)
    span = Span(start, start + length)
    assert asked.is_answered_by(span, size) == (list(range(start, start + length)) == wanted)
    assert asked.is_answered_by(Span(wanted[0], wanted[-1] + 1), size)


@pytest.mark.parametrize(
    ("asked", "span", "answered"),
    [
        (ByteRange(5, 9), Span(5, 10), True),
        (ByteRange(5, 9), Span(5, 8), True),
        (ByteRange(5, 9), Span(5, 11), False),
        (ByteRange(5, 9), Span(4, 10), False),
        (ByteRange(5, None), Span(5, 99), True),
        (ByteRange(None, 5), Span(0, 5), False),
    ],
)
def test_an_answer_of_unknown_size_is_judged(asked: ByteRange, span: Span, answered: bool) -> None:  # noqa: FBT001 - a column
    assert asked.is_answered_by(span, None) is answered


@pytest.mark.parametrize(
    ("media_type", "document"),
    [
        (IMAGE, {"config": {}, "layers": []}),
        (IMAGE, {"mediaType": IMAGE, "config": {}, "layers": []}),
        (INDEX, {"mediaType": INDEX, "manifests": []}),
        (IMAGE, {"mediaType": "", "layers": []}),
        (IMAGE, {"mediaType": None, "layers": []}),
        ("application/x-other", {"mediaType": "application/x-other", "anything": 1}),
        ("application/x-other", {"schemaVersion": 3}),
        ("application/vnd.docker.distribution.manifest.v1+prettyjws", {"schemaVersion": 1, "fsLayers": []}),
        ("text/plain", {"schemaVersion": 1, "fsLayers": []}),
        ("text/plain; charset=utf-8", {"schemaVersion": 1, "name": "app"}),
        ("application/json", {"fsLayers": []}),
        ("application/octet-stream", {"schemaVersion": 2, "layers": [], "config": {"mediaType": "text/x-artifact"}}),
        (
            "application/vnd.oci.artifact.manifest.v1+json",
            {"mediaType": "application/vnd.oci.artifact.manifest.v1+json", "blobs": []},
        ),
    ],
)
def test_a_manifest_with_one_meaning_passes(media_type: str, document: object) -> None:
    check_manifest(media_type, json.dumps(document).encode())


@pytest.mark.parametrize(
    ("media_type", "document"),
    [
        (IMAGE, {"mediaType": INDEX, "layers": []}),
        (INDEX, {"mediaType": IMAGE, "manifests": []}),
        ("application/x-other", {"mediaType": IMAGE}),
        (INDEX, {"manifests": [], "layers": []}),
        (INDEX, {"manifests": [], "config": {}}),
        (IMAGE, {"manifests": [], "layers": []}),
        (IMAGE, []),
        (INDEX, "text"),
    ],
)
def test_a_manifest_with_two_meanings_is_refused(media_type: str, document: object) -> None:
    with pytest.raises(UpstreamBroken):
        check_manifest(media_type, json.dumps(document).encode())


ANY_TYPE = [IMAGE, INDEX, "text/html", "text/plain", "application/json", "application/x-other", ""]


@pytest.mark.parametrize("media_type", ANY_TYPE)
@pytest.mark.parametrize("content", [b"", b"<html>", b"\xff\xfe", b"{", b"{}{}", b"[]", b"null", b'"text"'])
def test_content_that_is_not_a_json_object_is_not_a_manifest(media_type: str, content: bytes) -> None:
    with pytest.raises(UpstreamBroken):
        check_manifest(media_type, content)


@pytest.mark.parametrize("media_type", ANY_TYPE)
@pytest.mark.parametrize(
    "document",
    [
        {},
        {"errors": [{"code": "DENIED"}]},
        {"message": "log in first", "config": {}},
        {"schemaVersion": True},
        {"schemaVersion": "2"},
        {"layers": "none"},
        {"name": "app", "tags": []},
        {"mediaType": ""},
    ],
)
def test_other_json_is_not_a_manifest(media_type: str, document: object) -> None:
    with pytest.raises(UpstreamBroken):
        check_manifest(media_type, json.dumps(document).encode())


@pytest.mark.parametrize("media_type", ["text/html", "TEXT/HTML; charset=utf-8", "application/xhtml+xml"])
def test_a_web_page_is_never_a_manifest(media_type: str) -> None:
    with pytest.raises(UpstreamBroken):
        check_manifest(media_type, b'{"schemaVersion":1,"fsLayers":[]}')


@pytest.mark.parametrize(
    ("document", "media_type"),
    [
        ({"mediaType": "application/x-other"}, "application/x-other"),
        ({"schemaVersion": 1, "fsLayers": []}, "application/vnd.docker.distribution.manifest.v1+json"),
        ({"schemaVersion": 1, "signatures": []}, "application/vnd.docker.distribution.manifest.v1+prettyjws"),
        ({"schemaVersion": 2, "manifests": []}, INDEX),
        ({"schemaVersion": 2, "config": {}, "layers": []}, IMAGE),
    ],
)
def test_a_manifest_without_a_content_type_says_what_it_is(document: object, media_type: str) -> None:
    assert stated_media_type(json.dumps(document).encode()) == media_type


def test_a_manifest_without_any_media_type_is_refused() -> None:
    with pytest.raises(UpstreamBroken):
        stated_media_type(b'{"schemaVersion":2}')


@pytest.mark.parametrize(
    ("media_type", "digest", "is_believed"),
    [
        (IMAGE, None, True),
        ("application/x-other", None, True),
        ("text/plain", None, False),
        ("text/plain; charset=utf-8", OTHER, True),
        ("application/json", None, False),
        (None, None, False),
        (None, OTHER, True),
        ("text/html", None, False),
        ("Text/HTML; charset=utf-8", OTHER, False),
    ],
)
def test_a_response_head_identifies_a_manifest_by_its_type_or_its_digest(
    media_type: str | None, digest: Digest | None, *, is_believed: bool
) -> None:
    assert identifies_manifest(media_type, digest) is is_believed


def test_a_manifest_nested_too_deeply_is_refused() -> None:
    with pytest.raises(UpstreamBroken):
        check_manifest(IMAGE, b"[" * 100_000)


@pytest.mark.parametrize("stated", [IMAGE, IMAGE.upper(), f"{IMAGE.title()} ; charset=utf-8"])
@pytest.mark.parametrize("header", [IMAGE, IMAGE.upper(), f"{IMAGE.title()};charset=utf-8"])
def test_media_types_are_compared_without_regard_to_case(header: str, stated: str) -> None:
    check_manifest(header, json.dumps({"mediaType": stated, "layers": []}).encode())


@pytest.mark.parametrize(
    ("header", "sent"),
    [
        (f"{IMAGE.upper()} ; charset=utf-8", IMAGE),
        ("application/vnd.Other+json;a=b", "application/vnd.Other+json"),
        (";a=b", None),
        (None, None),
    ],
)
def test_a_media_type_is_sent_without_parameters(header: str | None, sent: str | None) -> None:
    assert without_parameters(header) == sent
