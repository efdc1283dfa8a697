"""Content codings that the mirror did not request are decoded, within limits."""

import gzip

import pytest

from adapters.upstream.bodies import decode_body, has_content_coding
from domain.errors import UpstreamBroken

CONTENT = b"some bytes" * 10
WHOLE = gzip.compress(CONTENT)


@pytest.mark.parametrize("coding", [None, "", "identity", " Identity "])
def test_no_coding_leaves_the_bytes(coding: str | None) -> None:
    assert not has_content_coding(coding)
    assert decode_body(CONTENT, coding, 1) == CONTENT


@pytest.mark.parametrize("coding", ["gzip", "x-gzip", "GZip"])
def test_gzip_is_decoded(coding: str) -> None:
    assert has_content_coding(coding)
    assert decode_body(gzip.compress(CONTENT), coding, len(CONTENT)) == CONTENT


@pytest.mark.parametrize("coding", ["br", "deflate", "zstd", "gzip, gzip", "x" * 500])
def test_other_codings_are_refused(coding: str) -> None:
    with pytest.raises(UpstreamBroken, match="with the coding") as refused:
        decode_body(CONTENT, coding, 1000)
    assert len(refused.value.message) < 120


def test_a_body_that_decodes_to_too_many_bytes_is_refused() -> None:
    bomb = gzip.compress(bytes(50_000_000))
    with pytest.raises(UpstreamBroken, match="more than 1000 bytes"):
        decode_body(bomb, "gzip", 1000)


@pytest.mark.parametrize(
    "content", [b"", b"{}", WHOLE[:-9], WHOLE[:15]], ids=["nothing", "json", "no end", "a beginning"]
)
def test_invalid_or_incomplete_gzip_is_refused(content: bytes) -> None:
    with pytest.raises(UpstreamBroken):
        decode_body(content, "gzip", 1000)
