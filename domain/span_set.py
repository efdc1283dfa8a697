"""SpanSet: which bytes of some content are present, as disjoint spans in order."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from typing import Self

from domain.byte_ranges import Span
from domain.value import Value

END_UNKNOWN = 2**62
"""The end of a span that reaches to the end of content whose length is unknown."""


class SpanSet(Value, frozen=True):
    """Spans in order. None is empty, and between two of them at least one byte is missing. A set never changes, so
    threads may share it.
    """

    spans: tuple[Span, ...] = ()

    @classmethod
    def up_to(cls, stop: int) -> Self:
        """The bytes from 0 up to, but not including, `stop`."""
        return cls((Span(0, stop),) if stop > 0 else ())

    @classmethod
    def of(cls, spans: Iterable[Span]) -> Self:
        """The bytes of any spans, which may overlap."""
        joined: list[Span] = []
        for span in sorted((one for one in spans if one.length > 0), key=lambda span: span.start):
            if joined and span.start <= joined[-1].stop:
                joined[-1] = Span(joined[-1].start, max(joined[-1].stop, span.stop))
            else:
                joined.append(span)
        return cls(tuple(joined))

    def __bool__(self) -> bool:
        return bool(self.spans)

    def __iter__(self) -> Iterator[Span]:
        return iter(self.spans)

    @property
    def length(self) -> int:
        """The number of bytes."""
        return sum(span.length for span in self.spans)

    @property
    def beginning(self) -> int:
        """The number of bytes that are present without a gap, from the first byte of the content on."""
        return self.end_of(0)

    def end_of(self, start: int) -> int:
        """The offset of the first missing byte at or after `start`."""
        place = bisect_right(self.spans, start, key=lambda span: span.start) - 1
        return max(start, self.spans[place].stop) if place >= 0 else start

    def covers(self, span: Span) -> bool:
        """Whether all bytes of the span are present."""
        return self.end_of(span.start) >= span.stop

    def overlaps(self, span: Span) -> bool:
        """Whether at least one byte of the span is present."""
        return bool(self._overlapping(span))

    def missing(self, within: Span) -> tuple[Span, ...]:
        """The missing bytes of this span, in order."""
        gaps: list[Span] = []
        position = within.start
        for span in self._overlapping(within):
            if position < span.start:
                gaps.append(Span(position, span.start))
            position = span.stop
        if position < within.stop:
            gaps.append(Span(position, within.stop))
        return tuple(gaps)

    def plus(self, added: Span) -> Self:
        """The set with the bytes of this span, too."""
        if added.length <= 0:
            return self
        first = bisect_left(self.spans, added.start, key=lambda span: span.stop)
        last = bisect_right(self.spans, added.stop, key=lambda span: span.start)
        if touched := self.spans[first:last]:
            added = Span(min(added.start, touched[0].start), max(added.stop, touched[-1].stop))
        return type(self)((*self.spans[:first], added, *self.spans[last:]))

    def _overlapping(self, span: Span) -> tuple[Span, ...]:
        """The spans of this set that have a byte in common with the span."""
        if span.length <= 0:
            return ()
        first = bisect_right(self.spans, span.start, key=lambda own: own.stop)
        last = bisect_left(self.spans, span.stop, key=lambda own: own.start)
        return self.spans[first:last]
