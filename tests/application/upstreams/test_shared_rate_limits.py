"""What one replica has learnt about rate limits holds at the others."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from application.ports.rate_limits import AllowanceNews, BackOffNews
from application.upstreams.back_offs import Allowances, Asker, BackOffs
from application.upstreams.rate_limit_outbox import RateLimitOutbox
from application.upstreams.shared_rate_limits import SharedRateLimits
from domain.allowance import RateLimit
from domain.errors import UpstreamBackOff, UpstreamThrottled
from domain.records import ANONYMOUS_CALLER, CallerId, mirror_caller
from tests.application.support.line import VirtualTimeLoop
from tests.application.support.replicas import Replicas
from tests.application.support.service import IMAGE_CONTENT, NAME
from tests.application.support.watched import ALICES, BOBS
from tests.contracts.storage import HUB, QUAY
from tests.fakes.allowances import MemoryAllowanceTable
from tests.fakes.clock import StoppedClock
from tests.fakes.events import RecordingEventSink
from tests.fakes.rate_limits import FakeRateLimits, RateLimitTable

ALICE = CallerId("login of-alice")
ASKER = Asker(HUB, ALICE, manifests=True)
SPENT, LEFT = RateLimit(100, 0, 3600), RateLimit(100, 76, 3600)
SOON = 1.1
"""Seconds in which a replica has exchanged what it knows at least once."""


class Worker:
    """The rate limits of one worker."""

    def __init__(self, table: RateLimitTable, clock: StoppedClock, upstreams: tuple[Any, ...] = (HUB, QUAY)) -> None:
        outbox = RateLimitOutbox()
        self.events = RecordingEventSink()
        self.allowances = Allowances(MemoryAllowanceTable(), clock, outbox)
        self.back_offs = BackOffs(self.allowances, clock, self.events, outbox)
        board = FakeRateLimits(table)
        self.exchange = SharedRateLimits(board, outbox, self.back_offs, self.allowances, upstreams)


class Two:
    def __init__(self) -> None:
        self.clock, self.table = StoppedClock(), RateLimitTable()
        self.one, self.other = Worker(self.table, self.clock), Worker(self.table, self.clock)

    async def exchanged(self) -> None:
        await asyncio.sleep(2 * SOON)

    def throttle(self, retry_after: str | None = "30", asker: Asker = ASKER) -> None:
        self.one.back_offs.throttled(asker, UpstreamThrottled("slow down", retry_after=retry_after))


def by_two(test: Callable[[Two], Awaitable[None]]) -> Callable[[], None]:
    def run() -> None:
        async def go() -> None:
            two = Two()
            for worker in (two.one, two.other):
                worker.exchange.start()
            try:
                await test(two)
            finally:
                for worker in (two.one, two.other):
                    await worker.exchange.close()

        with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
            runner.run(go())

    return run


@by_two
async def test_a_429_at_one_replica_holds_at_the_other(two: Two) -> None:
    two.throttle()
    await two.exchanged()
    assert two.other.back_offs.current(ASKER) == two.one.back_offs.current(ASKER)
    two.clock.advance(29.9)
    assert two.other.back_offs.current(ASKER) is not None
    two.clock.advance(0.1)
    assert two.other.back_offs.current(ASKER) is None


@by_two
async def test_a_429_for_one_caller_says_nothing_about_other_callers_and_requests(two: Two) -> None:
    two.throttle()
    await two.exchanged()
    for other in (Asker(HUB, ALICE), Asker(QUAY, ALICE, manifests=True), Asker(HUB, ANONYMOUS_CALLER, manifests=True)):
        assert two.other.back_offs.current(other) is None


@by_two
async def test_an_answer_without_429_ends_the_back_off_everywhere(two: Two) -> None:
    two.throttle()
    await two.exchanged()
    two.clock.advance(5)
    two.other.back_offs.answered(ASKER)
    await two.exchanged()
    assert two.one.back_offs.current(ASKER) is two.other.back_offs.current(ASKER) is None


@by_two
async def test_a_newer_429_counts_if_another_replica_got_an_answer_before(two: Two) -> None:
    two.throttle()
    await two.exchanged()
    two.clock.advance(1)
    two.other.back_offs.answered(ASKER)
    two.clock.advance(1)
    two.throttle("60")
    await two.exchanged()
    current = two.other.back_offs.current(ASKER)
    assert current
    assert current == two.one.back_offs.current(ASKER)
    assert current.until == two.clock.now() + 60


@by_two
async def test_after_a_learnt_429_a_request_without_an_older_answer_is_sent_a_second_later(two: Two) -> None:
    two.throttle()
    await two.exchanged()
    with pytest.raises(UpstreamBackOff, match="slow down") as refusal:
        two.other.back_offs.take_turn(ASKER)
    assert refusal.value.retry_after == "30"
    two.clock.advance(1)
    two.other.back_offs.take_turn(ASKER)


@by_two
async def test_an_operator_reads_of_each_back_off_once(two: Two) -> None:
    two.throttle()
    await two.exchanged()
    assert len(two.one.events.events) == 1
    assert two.other.events.events == []


@by_two
async def test_a_used_up_allowance_of_a_caller_holds_at_the_other_replica_until_some_is_left(two: Two) -> None:
    two.one.back_offs.saw(HUB, ALICE, SPENT)
    await two.exchanged()
    assert two.other.back_offs.current(ASKER) == two.one.back_offs.current(ASKER) is not None
    two.clock.advance(5)
    two.other.back_offs.saw(HUB, ALICE, LEFT)
    await two.exchanged()
    assert two.one.back_offs.current(ASKER) is None


@by_two
async def test_an_allowance_that_a_caller_has_left_stays_at_its_replica(two: Two) -> None:
    two.one.back_offs.saw(HUB, ALICE, LEFT)
    await two.exchanged()
    assert two.other.allowances.last(HUB, ALICE) is None
    assert two.table.entries == {}


@by_two
async def test_operators_see_the_newest_allowance_of_all_replicas(two: Two) -> None:
    mirror = mirror_caller("with a login")
    two.one.back_offs.saw(HUB, mirror, LEFT)
    two.clock.advance(1)
    two.one.back_offs.saw(HUB, mirror, RateLimit(100, 75, 3600))
    await two.exchanged()
    assert two.other.allowances.newest(HUB) == two.one.allowances.newest(HUB)
    two.other.allowances.learn(HUB, mirror, LEFT.seen(two.clock.now() - 1))
    assert two.other.allowances.newest(HUB) == RateLimit(100, 75, 3600).seen(two.clock.now())


@by_two
async def test_what_happens_while_the_index_is_away_is_told_when_it_is_back(two: Two) -> None:
    two.table.is_away = True
    two.throttle("300")
    await two.exchanged()
    assert two.other.back_offs.current(ASKER) is None
    two.throttle("400")
    await two.exchanged()
    two.table.is_away = False
    await two.exchanged()
    current = two.other.back_offs.current(ASKER)
    assert current
    assert current.until == two.clock.now() + 400


@by_two
async def test_a_clock_that_is_ahead_makes_no_back_off_longer_than_ten_minutes(two: Two) -> None:
    now = two.clock.now()
    news = BackOffNews(HUB.fingerprint, ALICE, manifests=True, at=now + 3600, until=now + 4000, message="slow down")
    two.other.back_offs.learn(HUB, news)
    current = two.other.back_offs.current(ASKER)
    assert current
    assert current.until == now + 600


@by_two
async def test_news_about_an_upstream_that_this_replica_does_not_have_are_ignored(two: Two) -> None:
    later = Worker(two.table, two.clock, (QUAY,))
    later.exchange.start()
    two.throttle()
    two.one.back_offs.saw(HUB, ALICE, SPENT)
    two.throttle(asker=Asker(QUAY, ALICE))
    await two.exchanged()
    await later.exchange.close()
    assert later.back_offs.current(ASKER) is None
    assert later.back_offs.current(Asker(QUAY, ALICE)) is not None


def test_the_outbox_has_the_newest_of_each_kind_and_is_limited() -> None:
    outbox = RateLimitOutbox()
    older = BackOffNews(HUB.fingerprint, ALICE, manifests=True, at=1.0, until=2.0)
    newer = BackOffNews(HUB.fingerprint, ALICE, manifests=True, at=2.0, until=3.0)
    allowance = AllowanceNews(HUB.fingerprint, ALICE, SPENT.seen(1.0))
    outbox.put(older)
    outbox.put(allowance)
    taken = outbox.take()
    assert (taken, outbox.take()) == ([older, allowance], [])
    outbox.put(newer)
    outbox.put_back(taken)
    assert outbox.take() == [allowance, newer]
    for number in range(5000):
        outbox.put(AllowanceNews(HUB.fingerprint, CallerId(f"login {number}"), SPENT.seen(1.0)))
    kept = outbox.take()
    assert len(kept) == 4096
    assert kept[-1].caller == "login 4999"


def test_a_429_at_one_replica_keeps_the_requests_of_the_other_from_the_upstream() -> None:
    replicas = Replicas(2)
    first, second = replicas.all
    replicas.upstream.refuse = lambda fetch: UpstreamThrottled("slow down", retry_after="30")

    async def act() -> None:
        for one in replicas.all:
            one.service.parts.rate_limits().start()
        with pytest.raises(UpstreamThrottled):
            await first.service.manifest(ALICES, NAME)
        await asyncio.sleep(2 * SOON)
        replicas.upstream.refuse = lambda fetch: None
        replicas.upstream.asked.clear()
        with pytest.raises(UpstreamBackOff) as refusal:
            await second.service.manifest(ALICES, NAME)
        assert (refusal.value.retry_after, replicas.upstream.asked) == ("30", [])
        assert (await second.service.manifest(BOBS, NAME)).content == IMAGE_CONTENT

    replicas.run(act())
