"""PiecePlan: which bytes of a blob the next request fetches."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from application.blobs.download import Download
from domain.byte_ranges import Span
from domain.connection_count import ConnectionCount
from domain.span_set import SpanSet

_PIECE_SECONDS = 2.0
"""About how long one of several connections receives one piece."""
_SMALLEST_PIECE, _LARGEST_PIECE = 1024 * 1024, 16 * 1024 * 1024
_WORTH_DIVIDING = 4 * _SMALLEST_PIECE
_SOON_SECONDS, _SOON_BYTES = 0.5, 1024 * 1024
"""A reader waits for a running request that will reach its bytes in this time; if it has not received any byte yet, if
it begins this close before.
"""


@dataclass(eq=False)
class PieceRequest:
    """A running request for the bytes from `start` up to, but not including, `stop`, which changes when another request
    takes over the end. `position`: the end of the bytes that have arrived; they may not be written yet.

    `is_for_reader`: a reader needs these bytes at once. `received`: bytes; `first_byte_at`: a loop time.
    """

    start: int
    stop: int
    position: int
    is_for_reader: bool = False
    received: int = 0
    first_byte_at: float | None = None

    def rate(self, now: float) -> float:
        """Bytes per second; 0 if it is unknown."""
        return 0.0 if self.first_byte_at is None else self.received / max(now - self.first_byte_at, 0.001)


class PiecePlan:
    """Each byte is requested once: a request covers bytes that are neither present nor covered by another request."""

    def __init__(self, download: Download, count: ConnectionCount, running: Sequence[PieceRequest]) -> None:
        self._download = download
        self._count = count
        self._running = running
        self.wanted_elsewhere = SpanSet()
        """The bytes that readers in other processes want."""
        self.passes_over = False
        """Running bodies go on to their end, over bytes that are present: other requests may be refused."""

    def asked(self) -> int:
        """The number of bytes that are present or that readers want."""
        return SpanSet.of((*self._download.present, *self._wanted())).length

    def next_piece(self, total: int, now: float) -> Span | None:
        """The next bytes to fetch: the missing ones that a reader needs first. None if requests cover all of them and
        are not worth to be divided.
        """
        if (free := self._first_free(total)) is None:
            longest = max(self._running, key=lambda one: one.stop - one.position, default=None)
            if self._count.allowed == 1 or not longest or not longest.received:
                return None
            if longest.stop - longest.position < _WORTH_DIVIDING:
                return None
            # The new request takes over the end of the longest one.
            half = (longest.stop - longest.position) // 2
            longest.stop = longest.position + self._piece_size(half, half, now)
            if (free := self._first_free(total)) is None:
                return None
        if self._count.allowed == 1:
            return free
        return Span(free.start, free.start + self._piece_size(free.length, self._left(total), now))

    def continuation(self, request: PieceRequest, body_stop: int, now: float) -> int:
        """The new `stop` of a request that has received all its bytes and whose body goes on to `body_stop`: it also
        receives the following bytes, if no other request has taken them.
        """
        if self.passes_over and self._download.present.missing(Span(request.stop, body_stop)):
            return body_stop
        regular = sum(not one.is_for_reader for one in self._running)
        if request.stop >= body_stop or (regular > self._count.allowed and not request.is_for_reader):
            return request.stop
        free = _first_gap(self._taken(), Span(request.stop, body_stop), body_stop)
        if free is None or free.start > request.stop or not self._is_wanted(free.start):
            return request.stop
        if self._count.allowed == 1:
            return free.stop
        return free.start + self._piece_size(free.length, self._left(body_stop), now)

    def for_waiting_reader(self, total: int, now: float) -> Span | None:
        """Missing bytes that a reader needs at once and that no running request reaches soon."""
        taken = self._taken()
        for want in self._wanted():
            if want.start >= total or self._download.present.end_of(want.start) > want.start:
                continue
            if taken.end_of(want.start) > want.start:
                covering = next(one for one in self._running if one.start <= want.start < one.stop)
                soon = covering.rate(now) * _SOON_SECONDS if covering.received else _SOON_BYTES
                if want.start - covering.position <= soon:
                    continue
                covering.stop = want.start
                taken = self._taken()
            if free := _first_gap(taken, want, total):
                return free
        return None

    def _wanted(self) -> Iterator[Span]:
        """What each reader needs next, in this process and in others."""
        yield from self._download.needs()
        yield from self.wanted_elsewhere

    def _is_wanted(self, offset: int) -> bool:
        return self._download.is_whole_wanted or any(span.start <= offset < span.stop for span in self._wanted())

    def _taken(self) -> SpanSet:
        """The bytes that are present or that a running request covers."""
        taken = self._download.present
        for one in self._running:
            taken = taken.plus(Span(one.start, one.stop))
        return taken

    def _first_free(self, total: int) -> Span | None:
        """The bytes without a request that a reader needs first; of the bytes that no reader wants, the first."""
        wants = list(self._wanted())
        if self._download.is_whole_wanted:
            wants.append(Span(self._download.present.beginning, total))
        taken = self._taken()
        found = [
            (free.start - want.start, free.start, free) for want in wants if (free := _first_gap(taken, want, total))
        ]
        return min(found, key=lambda each: each[:2])[2] if found else None

    def _left(self, total: int) -> int:
        """The number of bytes that have no request."""
        return sum(gap.length for gap in self._taken().missing(Span(0, total)))

    def _piece_size(self, most: int, left: int, now: float) -> int:
        """The bytes of the next piece, at most `most`. The fewer bytes are left for all connections, the smaller are
        the pieces, so that all connections end at about the same time.
        """
        rates = [rate for one in self._running if (rate := one.rate(now))]
        usual = int(_PIECE_SECONDS * sum(rates) / len(rates)) if rates else _LARGEST_PIECE
        size = min(usual, _LARGEST_PIECE, left // (2 * self._count.allowed))
        return min(most, max(_SMALLEST_PIECE, size))


def _first_gap(taken: SpanSet, want: Span, total: int) -> Span | None:
    """The first of the wanted bytes that are not taken."""
    return next(iter(taken.missing(Span(want.start, min(want.stop, total)))), None)
