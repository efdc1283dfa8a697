"""When the history is sampled and stored, and by which worker."""

import asyncio
from collections.abc import Collection

import pytest

from adapters.telemetry.metrics import CountingEventSink
from application.ports.history import HistoryArchive
from application.upkeep.record_history import RecordHistory
from domain.events import BytesDelivered, ContentRequested
from domain.history import MINUTES, Bucket, Totals
from domain.records import ContentKind
from entrypoints.wiring.container import _record_history, make_counters
from tests.fakes.clock import StoppedClock
from tests.fakes.parts import container_of, settings_of
from tests.fakes.upstream import FakeUpstream

HIT = ContentRequested(ContentKind.MANIFEST, is_hit=True)


class MemoryArchive:
    """Implements HistoryArchive."""

    def __init__(self) -> None:
        self.stored: dict[tuple[int, int], Bucket] = {}
        self.saves = 0

    async def load(self) -> list[Bucket]:
        return list(self.stored.values())

    async def save(self, buckets: Collection[Bucket], now: float) -> None:
        self.saves += 1
        self.stored |= {(one.seconds, one.start): one for one in buckets}


class Run:
    """One run of the service."""

    def __init__(self, archive: HistoryArchive, clock: StoppedClock) -> None:
        self.sink = CountingEventSink(make_counters(settings_of()), 0)
        self.clock = clock
        self.recording = RecordHistory(self.sink.history, archive, clock)

    async def sample(self) -> None:
        self.clock.advance(self.recording.pause)
        await self.recording.record()

    def minutes(self) -> list[Totals]:
        return [one.totals for one in self.sink.history.buckets(MINUTES, 0, 4e9)]


@pytest.fixture
def clock() -> StoppedClock:
    return StoppedClock()


async def test_an_idle_service_stores_nothing(clock: StoppedClock) -> None:
    archive = MemoryArchive()
    run = Run(archive, clock)
    await run.recording.begin()
    for _ in range(100):
        await run.sample()
    assert archive.saves == 0
    run.sink.emit(HIT)
    for _ in range(100):
        await run.sample()
    assert archive.saves == 1
    assert len(archive.stored) == 3


async def test_samples_are_taken_at_the_ends_of_buckets(clock: StoppedClock) -> None:
    run = Run(MemoryArchive(), clock)
    clock.advance(3.25)
    assert run.recording.pause == 6.75
    clock.advance(6.75)
    assert run.recording.pause == 10


async def test_a_restart_loses_nothing_that_was_stored_and_counts_nothing_twice(clock: StoppedClock) -> None:
    """The counters of the second run begin at zero."""
    archive = MemoryArchive()
    for number in range(1, 4):
        run = Run(archive, clock)
        await run.recording.begin()
        run.sink.emit(HIT)
        run.sink.emit(BytesDelivered(100))
        await run.sample()
        assert Totals.sum(run.minutes()) == Totals(hits=number, bytes_out=100 * number)
        assert len(run.minutes()) == 1


async def test_what_happened_before_the_beginning_is_not_recorded(clock: StoppedClock) -> None:
    run = Run(MemoryArchive(), clock)
    run.sink.emit(HIT)
    await run.recording.begin()
    await run.sample()
    assert run.minutes() == []


def test_the_last_seconds_are_stored_at_the_end() -> None:
    async def go() -> None:
        container = container_of(settings_of(), FakeUpstream())
        container.upkeep().start()
        await asyncio.sleep(0.01)
        container.counting().emit(HIT)
        await container.upkeep().close()
        (minute,) = container.history().buckets(MINUTES, 0, 4e9)
        assert minute.totals == Totals(hits=1)

    asyncio.run(go())


@pytest.mark.parametrize(("page", "worker", "records"), [("public", 0, True), ("public", 1, False), ("off", 0, False)])
def test_one_worker_records_unless_the_page_is_off(page: str, worker: int, records: bool) -> None:  # noqa: FBT001
    settings = settings_of(page=page, workers=2)
    history = CountingEventSink(make_counters(settings), worker).history
    found = _record_history(settings, worker, history, MemoryArchive(), StoppedClock())
    assert (found is not None) == records


def test_without_the_page_nothing_is_sampled() -> None:
    async def go() -> None:
        container = container_of(settings_of(page="off"), FakeUpstream())
        container.upkeep().start()
        await asyncio.sleep(0.01)
        container.counting().emit(HIT)
        await container.upkeep().close()
        assert container.history().buckets(MINUTES, 0, 4e9) == []

    asyncio.run(go())
