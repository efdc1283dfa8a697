"""Which bytes the next request of a download fetches."""

import asyncio
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from application.blobs.download import Download
from application.blobs.piece_plan import PiecePlan, PieceRequest
from domain.byte_ranges import ByteRange, Span
from domain.connection_count import ConnectionCount
from domain.span_set import END_UNKNOWN, SpanSet
from domain.upstreams import Source
from tests.application.support.service import NAME
from tests.application.support.watched import BIG_DIGEST
from tests.fakes.parts import settings_of

MIB = 1024 * 1024
TOTAL = 200 * MIB
NOW = 10.0


class Access:
    source = Source(settings_of().table.upstreams[0], NAME)
    identity = "anonymous"


class Planned:
    """A download of 200 MiB and its plan. `requests`: the running requests."""

    def __init__(self, *present: Span, first_range: ByteRange | None = None, allowed: int = 1) -> None:
        self.download = Download(BIG_DIGEST, Access, first_range)  # type: ignore[arg-type]  # only these attributes are read
        self.download.begin(None, TOTAL)
        self.download.grow(SpanSet.of(present))
        self.count = ConnectionCount(8)
        self.count.allowed = allowed
        self.requests: list[PieceRequest] = []
        self.plan = PiecePlan(self.download, self.count, self.requests)

    def running(self, start: int, stop: int, position: int = 0, rate: int = 0, **others: bool) -> PieceRequest:
        """A running request that receives `rate` bytes per second since a second ago."""
        request = PieceRequest(start, stop, position or start, received=rate, **others)
        request.first_byte_at = NOW - 1 if rate else None
        self.requests.append(request)
        return request

    def receive(self, request: PieceRequest) -> None:
        """A piece arrives and is written. None of its bytes may be present already."""
        arrived = Span(request.position, min(request.position + 2 * MIB, request.stop))
        if arrived.length:
            assert self.download.present.missing(arrived) == (arrived,)
            request.position, request.received = arrived.stop, request.received + arrived.length
            request.first_byte_at = NOW - 1
            self.download.grow(self.download.present.plus(arrived))
        if request.position >= request.stop:
            request.stop = self.plan.continuation(request, TOTAL, NOW)
        if request.position >= request.stop:
            self.requests.remove(request)

    def next(self) -> Span | None:
        return self.plan.next_piece(TOTAL, NOW)


def planned(act: Callable[[], None]) -> None:
    """A Download needs a running event loop."""

    async def go() -> None:
        act()

    asyncio.run(go())


def test_a_single_connection_fetches_all_up_to_the_next_present_byte() -> None:
    @planned
    def act() -> None:
        assert Planned().next() == Span(0, TOTAL)
        assert Planned(Span(0, 10)).next() == Span(10, TOTAL)
        assert Planned(Span(0, 10), Span(20, 30)).next() == Span(10, 20)
        assert Planned(Span(0, TOTAL)).next() is None


def test_a_second_connection_takes_over_the_end_of_the_first() -> None:
    @planned
    def act() -> None:
        one = Planned(allowed=2)
        first = one.running(0, TOTAL, position=5 * MIB, rate=5 * MIB)
        second = one.next()
        assert first.stop == 15 * MIB  # two seconds of its rate
        assert second == Span(15 * MIB, 25 * MIB)


def test_pieces_become_smaller_towards_the_end() -> None:
    @planned
    def act() -> None:
        one = Planned(Span(0, 184 * MIB), allowed=4)
        one.running(184 * MIB, 184 * MIB + 1, rate=50 * MIB)
        sizes = []
        while piece := one.next():
            sizes.append(piece.length)
            one.running(piece.start, piece.stop)
        assert sizes[0] < 2 * MIB + 1
        assert sizes == sorted(sizes, reverse=True) or min(sizes) >= 1
        assert sum(sizes) == 16 * MIB - 1


def test_a_request_that_is_almost_done_is_not_divided() -> None:
    @planned
    def act() -> None:
        one = Planned(Span(0, 190 * MIB), allowed=2)
        one.running(190 * MIB, TOTAL, position=197 * MIB, rate=5 * MIB)
        assert one.next() is None


def test_a_single_connection_is_never_divided() -> None:
    @planned
    def act() -> None:
        one = Planned()
        one.running(0, TOTAL, rate=MIB, is_for_reader=True)
        assert one.next() is None


def test_a_connection_continues_with_bytes_that_no_other_has_taken() -> None:
    @planned
    def act() -> None:
        one = Planned(Span(0, 10 * MIB))
        first = one.running(0, 10 * MIB, position=10 * MIB, rate=5 * MIB)
        assert one.plan.continuation(first, TOTAL, NOW) == TOTAL
        assert one.plan.continuation(first, 10 * MIB, NOW) == 10 * MIB
        one.running(12 * MIB, 15 * MIB)
        one.count.allowed = 2
        assert one.plan.continuation(first, TOTAL, NOW) == 12 * MIB
        one.running(10 * MIB, 12 * MIB)
        one.count.allowed = 3
        assert one.plan.continuation(first, TOTAL, NOW) == 10 * MIB


def test_a_connection_that_is_too_many_does_not_continue() -> None:
    @planned
    def act() -> None:
        one = Planned(Span(0, 10 * MIB), allowed=1)
        first = one.running(0, 10 * MIB, position=10 * MIB, rate=5 * MIB)
        one.running(20 * MIB, 30 * MIB, rate=5 * MIB)
        assert one.plan.continuation(first, TOTAL, NOW) == 10 * MIB


def test_a_body_that_goes_on_is_not_received_further_than_readers_want() -> None:
    @planned
    def act() -> None:
        one = Planned(first_range=ByteRange(0, 9))
        first = one.running(0, 10, position=10, rate=10)
        with one.download.wanting([Span(5 * MIB, 6 * MIB)]):
            assert one.plan.continuation(first, TOTAL, NOW) == 10
        with one.download.wanting([Span(10, 20)]):
            assert one.plan.continuation(first, 20, NOW) == 20


def test_a_reader_that_still_has_bytes_to_receive_gets_no_request_of_its_own() -> None:
    @planned
    def act() -> None:
        one = Planned(Span(5 * MIB, 6 * MIB))
        with one.download.wanting([Span(5 * MIB, 8 * MIB)]) as want:
            assert one.plan.for_waiting_reader(TOTAL, NOW) is None
            want.received(6 * MIB)
            assert one.plan.for_waiting_reader(TOTAL, NOW) == Span(6 * MIB, 8 * MIB)


def test_a_reader_far_ahead_gets_a_request_of_its_own() -> None:
    @planned
    def act() -> None:
        one = Planned(Span(0, MIB))
        first = one.running(0, TOTAL, position=MIB, rate=5 * MIB)
        with one.download.wanting([Span(150 * MIB, 151 * MIB)]):
            assert one.plan.for_waiting_reader(TOTAL, NOW) == Span(150 * MIB, 151 * MIB)
            assert first.stop == 150 * MIB
            one.running(150 * MIB, 151 * MIB, is_for_reader=True)
            assert one.plan.for_waiting_reader(TOTAL, NOW) is None
        # What follows the part is requested later.
        one.requests.clear()
        one.download.grow(SpanSet.of([Span(0, 150 * MIB), Span(150 * MIB, 151 * MIB)]))
        assert one.next() == Span(151 * MIB, TOTAL)


def test_a_reader_waits_for_a_connection_that_is_close() -> None:
    @planned
    def act() -> None:
        one = Planned(Span(0, MIB))
        first = one.running(0, TOTAL, position=MIB, rate=20 * MIB)
        with one.download.wanting([Span(10 * MIB, 11 * MIB)]):  # half a second
            assert one.plan.for_waiting_reader(TOTAL, NOW) is None
        with one.download.wanting([Span(12 * MIB, 13 * MIB)]):
            assert one.plan.for_waiting_reader(TOTAL, NOW) == Span(12 * MIB, 13 * MIB)
        assert first.stop == 12 * MIB


def test_only_wanted_bytes_are_fetched_for_readers_of_parts() -> None:
    @planned
    def act() -> None:
        one = Planned(first_range=ByteRange(0, 9))
        assert one.next() is None
        with one.download.wanting([Span(MIB, 2 * MIB)]):
            assert one.next() == Span(MIB, 2 * MIB)
            one.running(MIB, 2 * MIB)
            with one.download.wanting([Span(MIB + 5, 2 * MIB + 5)]):
                assert one.next() == Span(2 * MIB, 2 * MIB + 5)


def test_parts_that_are_close_together_are_one_request() -> None:
    @planned
    def act() -> None:
        one = Planned(first_range=ByteRange(0, 9))
        with one.download.wanting([Span(0, 10), Span(1000, 1010), Span(MIB, MIB + 10), Span(9 * MIB, 10 * MIB)]):
            assert one.next() == Span(0, 1010)
            assert list(one.download.needs()) == [Span(0, 1010), Span(MIB, MIB + 10)]


def test_the_wants_of_other_processes_are_served() -> None:
    @planned
    def act() -> None:
        one = Planned(first_range=ByteRange(0, 9))
        one.plan.wanted_elsewhere = SpanSet.of([Span(5 * MIB, 6 * MIB), Span(END_UNKNOWN - 1, END_UNKNOWN)])
        assert one.next() == Span(5 * MIB, 6 * MIB)
        assert one.plan.for_waiting_reader(TOTAL, NOW) == Span(5 * MIB, 6 * MIB)


def test_readers_of_the_whole_blob_wait_for_the_beginning() -> None:
    @planned
    def act() -> None:
        one = Planned(Span(0, 10 * MIB))
        with one.download.wanting([Span(3 * MIB, TOTAL)]), one.download.wanting([Span(10 * MIB, TOTAL)]):
            assert list(one.download.needs()) == []
            assert one.next() == Span(10 * MIB, TOTAL)


@pytest.mark.parametrize("allowed", [1, 2, 4])
@given(
    present=st.lists(st.tuples(st.integers(0, 199), st.integers(1, 20)), max_size=8),
    wants=st.lists(st.tuples(st.integers(0, 199), st.integers(1, 20)), max_size=5),
    steps=st.lists(st.integers(0, 3), max_size=40),
)
def test_no_byte_is_requested_twice(
    allowed: int, present: list[tuple[int, int]], wants: list[tuple[int, int]], steps: list[int]
) -> None:
    @planned
    def act() -> None:
        spans = [Span(start * MIB, min((start + length) * MIB, TOTAL)) for start, length in present]
        one = Planned(*spans, allowed=allowed)
        for start, length in wants:
            one.download.wanting([Span(start * MIB, min((start + length) * MIB, TOTAL))]).__enter__()
        for step in [*steps, *[3] * 700]:
            if len(one.requests) < allowed and (piece := one.next()):
                one.running(piece.start, piece.stop)
            elif step == 0 and (piece := one.plan.for_waiting_reader(TOTAL, NOW)):
                one.running(piece.start, piece.stop, is_for_reader=True)
            elif one.requests:
                one.receive(one.requests[step % len(one.requests)])
        assert one.download.present == SpanSet.up_to(TOTAL)
