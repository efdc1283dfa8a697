"""Byte ranges: the Range header of a request, and the bytes of some content that it means (RFC 9110 section 14)."""

import re
from collections.abc import Sequence
from itertools import pairwise

from domain.errors import RangeMalformed, RangeUnsatisfiable
from domain.value import Value

CLOSE_BYTES = 64 * 1024
"""Two ranges with at most this many bytes between them are requested together: this costs less than two requests."""
RANGES_LIMIT = 256
"""Maximum ranges in one request. Clients that load images lazily request one range per missing chunk. If the request
fails, they request fewer ranges (stargz-snapshotter) or the whole blob (containers/image)."""
_RANGE_SPEC = re.compile(r"([0-9]{0,19})-([0-9]{0,19})")


class Span(Value, frozen=True):
    """The bytes from `start` up to, but not including, `stop`."""

    start: int
    stop: int

    @property
    def length(self) -> int:
        return self.stop - self.start


class ByteRange(Value, frozen=True):
    """One range of a Range header (RFC 9110 section 14.1.2); `first` None means the last `last` bytes."""

    first: int | None
    last: int | None

    def of(self, size: int) -> Span:
        """The bytes of the range in content of `size` bytes. Raises RangeUnsatisfiable if there are none."""
        return spans_of([self], size)[0]

    def is_answered_by(self, span: Span, size: int | None) -> bool:
        """Whether a partial response with these bytes answers the range. `size`: None if not stated."""
        if size is not None:
            return self.of(size) == span
        return span.length > 0 and self.first == span.start and (self.last is None or span.stop <= self.last + 1)

    def __str__(self) -> str:
        first, last = ("" if end is None else str(end) for end in (self.first, self.last))
        return f"bytes={first}-{last}"


def parse_ranges(header: str | None) -> tuple[ByteRange, ...]:
    """The ranges of a Range header (RFC 9110 section 14.2), in the order of the header. Empty if there is no header or
    its unit is not bytes: then the response has the whole content.

    Omits ranges that end before they begin (section 14.1.1: they are invalid). Raises RangeMalformed for malformed
    headers and more than RANGES_LIMIT ranges, and RangeUnsatisfiable if all ranges are omitted, because the OCI
    conformance suite requires 416.
    """
    unit, equals, specs = (header or "").partition("=")
    if not equals or unit.strip().lower() != "bytes":
        return ()
    # A list may contain empty elements (section 5.6.1.2), but not only empty ones.
    texts = [text for text in (part.strip() for part in specs.split(",")) if text] or [""]
    if len(texts) > RANGES_LIMIT:
        raise RangeMalformed(f"a request may have at most {RANGES_LIMIT} byte ranges", detail={"ranges": len(texts)})
    ranges = tuple(one for one in map(_parse_range, texts) if one)
    if not ranges:
        raise RangeUnsatisfiable("the byte range ends before it begins")
    return ranges


def _parse_range(text: str) -> ByteRange | None:
    """None for a range that ends before it begins. Raises RangeMalformed."""
    matched = _RANGE_SPEC.fullmatch(text)
    if not matched or not any(matched.groups()):
        raise RangeMalformed("malformed byte range", detail={"range": text[:64]})
    first, last = (int(digits) if digits else None for digits in matched.groups())
    if first is not None and last is not None and last < first:
        return None
    return ByteRange(first, last)


def leading_range(ranges: Sequence[ByteRange]) -> ByteRange:
    """The first range, extended over the ranges that follow it in order with at most CLOSE_BYTES between them."""
    leading, *others = ranges
    for one in others:
        if leading.first is None or leading.last is None or one.first is None:
            break
        if not leading.last < one.first <= leading.last + 1 + CLOSE_BYTES:
            break
        leading = ByteRange(leading.first, one.last)
    return leading


def spans_of(ranges: Sequence[ByteRange], size: int) -> tuple[Span, ...]:
    """The bytes of the ranges in content of `size` bytes, in order, without ranges outside it (RFC 9110 section
    15.3.7.2). Raises RangeUnsatisfiable if all ranges are outside.
    """
    spans: list[Span] = []
    for one in ranges:
        if one.first is None:
            start, stop = max(0, size - (one.last or 0)), size
        else:
            start, stop = one.first, size if one.last is None else min(one.last + 1, size)
        if start < stop:
            spans.append(Span(start, stop))
    if not spans:
        raise RangeUnsatisfiable("the requested bytes lie outside the content", size=size)
    return tuple(spans)


def grouped(spans: Sequence[Span]) -> list[list[Span]]:
    """Groups of spans to request together: in a group, each span begins at most CLOSE_BYTES after the end of the one
    before it.
    """
    groups = [[spans[0]]]
    for before, after in pairwise(spans):
        if before.stop <= after.start <= before.stop + CLOSE_BYTES:
            groups[-1].append(after)
        else:
            groups.append([after])
    return groups
