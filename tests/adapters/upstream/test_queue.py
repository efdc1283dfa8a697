"""The queue of requests for an upstream with limits: served by client address, with a limited length."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from adapters.upstream import request_limits as limits
from adapters.upstream.request_limits import RequestLimiter, RequestLimits
from application.ports.telemetry import begin_record
from application.ports.upstream import ForwardedCredentials, QueueWatch, SharedWork, current_watch, watched_by
from domain.errors import MirrorBusy, RequestNotSent
from tests.adapters.upstream.line import CONTENT, in_loop, line
from tests.adapters.upstream.pair import gives, pair
from tests.adapters.upstream.wire import Say, reply

TIME = 5.0  # seconds, for what must not wait for ever
RATE = 200.0


def one_slot() -> RequestLimiter:
    return RequestLimiter(RequestLimits(max_connections=1))


async def use(limiter: RequestLimiter, by: str) -> None:
    if by == "rate":
        await limiter.turn()
    else:
        async with limiter.slot():
            await asyncio.sleep(0.001)


class Queue:
    """Requests of several clients for one limiter, and the order in which it admits them."""

    def __init__(self, by: str) -> None:
        self.by = by
        self.limiter = RequestLimiter(
            RequestLimits(max_rate=RATE) if by == "rate" else RequestLimits(max_connections=1)
        )
        self.order: list[str] = []

    def ask(self, client: str, use: Callable[[RequestLimiter, str], Awaitable[None]] = use) -> asyncio.Task[None]:
        async def request() -> None:
            begin_record().client = client
            await use(self.limiter, self.by)
            self.order.append(client)

        return asyncio.create_task(request())


BOTH = pytest.mark.parametrize("by", ["rate", "connections"])


@BOTH
@in_loop
async def test_clients_take_turns(by: str) -> None:
    queue = Queue(by)
    many = [queue.ask("192.0.2.1") for _ in range(30)]
    await asyncio.sleep(0)
    others = [queue.ask(f"192.0.2.{number}") for number in (2, 3, 2, 3)]
    async with asyncio.timeout(TIME):
        await asyncio.gather(*many, *others)
    assert [client[-1] for client in queue.order[:8]] in (list("11231231"), list("12312311"))


@BOTH
@in_loop
async def test_one_network_of_ipv6_is_one_client(by: str) -> None:
    queue = Queue(by)
    many = [queue.ask(f"2001:db8::{number:x}") for number in range(1, 31)]
    await asyncio.sleep(0)
    other = queue.ask("2001:db8:0:1::1")
    async with asyncio.timeout(TIME):
        await asyncio.gather(*many, other)
    assert queue.order.index("2001:db8:0:1::1") <= 2


@BOTH
@in_loop
async def test_a_cancelled_request_is_removed(by: str) -> None:
    queue = Queue(by)
    gone = [queue.ask("192.0.2.1") for _ in range(400)]
    await asyncio.sleep(0.01)
    for task in gone:
        task.cancel()
    await asyncio.gather(*gone, return_exceptions=True)
    before = len(queue.order)
    loop = asyncio.get_running_loop()
    began = loop.time()
    await asyncio.wait_for(queue.ask("192.0.2.2"), TIME)
    assert loop.time() - began < 200 / RATE, "half of what all who left would have taken"
    assert len(queue.order) == before + 1


@BOTH
@in_loop
async def test_a_request_that_is_cancelled_when_it_is_admitted_gives_its_place_back(by: str) -> None:
    queue = Queue(by)
    tasks = [queue.ask("192.0.2.1") for _ in range(20)]
    for task in tasks[::2]:
        await asyncio.sleep(0.003)
        task.cancel()
    async with asyncio.timeout(TIME):
        await asyncio.gather(*tasks, return_exceptions=True)
        await queue.ask("192.0.2.2")
    assert queue.order[-1] == "192.0.2.2"


@BOTH
@in_loop
async def test_a_request_is_removed_when_all_its_clients_have_left(by: str) -> None:
    """One client cannot end a task for which several clients wait."""
    queue, wanted = Queue(by), [True]

    async def begin() -> list[asyncio.Task[None]]:
        with watched_by(QueueWatch(lambda: wanted[0])):
            return [queue.ask("192.0.2.1") for _ in range(400)]

    first = queue.ask("192.0.2.1")
    await asyncio.sleep(0)
    gone = await begin()
    await asyncio.sleep(0)
    wanted[0] = False
    loop = asyncio.get_running_loop()
    began = loop.time()
    await asyncio.wait_for(queue.ask("192.0.2.2"), TIME)
    assert loop.time() - began < 200 / RATE
    await first
    failures = await asyncio.wait_for(asyncio.gather(*gone, return_exceptions=True), TIME)
    assert len([one for one in failures if isinstance(one, RequestNotSent)]) >= 399


@in_loop
async def test_the_queue_is_bounded_for_each_client_and_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "_WAITING", 12)
    monkeypatch.setattr(limits, "_WAITING_EACH", 4)
    queue, clients = Queue("connections"), [f"192.0.2.{number}" for number in range(1, 7)]
    async with queue.limiter.slot():
        asked = [[queue.ask(client) for _ in range(6)] for client in clients]
        await asyncio.sleep(0)
    async with asyncio.timeout(TIME):
        outcomes = [await asyncio.gather(*tasks, return_exceptions=True) for tasks in asked]
    busy = [one for tasks in outcomes for one in tasks if isinstance(one, MirrorBusy)]
    assert [tasks.count(None) for tasks in outcomes] == [4, 4, 2, 1, 1, 0]
    assert len(busy) == 6 * 6 - 12
    assert all(one.retry_after > 0 for one in busy)
    await asyncio.wait_for(queue.ask("192.0.2.1"), TIME)


@pytest.mark.slow
@in_loop
async def test_a_few_clients_with_many_requests_leave_room_for_others() -> None:
    queue = Queue("connections")
    async with queue.limiter.slot():
        many = [queue.ask(f"192.0.2.{number}") for number in range(1, 9) for _ in range(600)]
        await asyncio.sleep(0)
        other = queue.ask("198.51.100.1")
        await asyncio.sleep(0)
        for task in many:
            task.cancel()
    await asyncio.wait_for(other, TIME)
    await asyncio.gather(*many, return_exceptions=True)


@in_loop
async def test_unwanted_requests_do_not_take_places(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "_WAITING_EACH", 4)
    queue, wanted = Queue("connections"), [True]
    async with queue.limiter.slot():
        with watched_by(QueueWatch(lambda: wanted[0])):
            gone = [queue.ask("192.0.2.1") for _ in range(4)]
        await asyncio.sleep(0)
        wanted[0] = False
        task = queue.ask("192.0.2.1")
        await asyncio.sleep(0)
    await asyncio.wait_for(task, TIME)
    assert all(isinstance(one, RequestNotSent) for one in await asyncio.gather(*gone, return_exceptions=True))


@in_loop
async def test_a_full_queue_is_not_an_outage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "_WAITING_EACH", 1)
    async with pair(gives, limits=RequestLimits(max_rate=5)) as both:
        outcomes = await asyncio.gather(*(both.fetch() for _ in range(6)), return_exceptions=True)
        assert {type(one) for one in outcomes if one != CONTENT} == {MirrorBusy}
        assert both.request_counts[1] == 0
        assert both.endpoint_events == []


@in_loop
async def test_a_probe_does_not_wait() -> None:
    async with line(lambda _: reply(body=b"{}"), limits=RequestLimits(max_connections=1, max_rate=0.1)) as link:
        link.server.script = lambda heard: (
            reply(200, ("Content-Type", "application/json"), body=b"{}") if heard.target == "/v2/" else Say(then="hang")
        )
        waiting = [asyncio.create_task(link.fetch()) for _ in range(5)]
        await asyncio.sleep(0.05)
        async with asyncio.timeout(TIME):
            pinged = await link.parts.registry.ping(link.upstream, ForwardedCredentials(), is_probe=True)
        assert pinged.accepted
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)


class Seen(QueueWatch):
    def __init__(self) -> None:
        super().__init__()
        self.events: list[str] = []

    def paused(self) -> None:
        self.events.append("paused")

    def resumed(self) -> None:
        self.events.append("resumed")


@BOTH
@in_loop
async def test_a_queue_watch_is_notified_of_the_time_in_the_queue(by: str) -> None:
    queue, seen = Queue(by), Seen()
    first = queue.ask("192.0.2.1")
    await asyncio.sleep(0)
    with watched_by(seen):
        second = queue.ask("192.0.2.1")
    await asyncio.gather(first, second)
    assert seen.events == ["paused", "resumed"]


@in_loop
async def test_a_following_queue_watch_is_notified_too() -> None:
    work, early, late = SharedWork(), Seen(), Seen()
    assert not work.is_wanted
    with work.followed_by(early):
        assert work.is_wanted
        with work.queued():
            with work.followed_by(late), watched_by(late):
                assert current_watch() is late
            assert late.events == ["paused", "resumed"]
            assert early.events == ["paused"]
    assert early.events == ["paused", "resumed"]
    assert not work.is_wanted
