"""The limits of requests to one upstream."""

import asyncio
import time
from collections.abc import Callable

import pytest

from adapters.upstream.request_limits import RequestLimiter, RequestLimits
from application.ports.upstream import ForwardedCredentials, SessionCredentials, UpstreamRequest
from domain.access import Credentials
from domain.errors import MirrorBusy, UpstreamFault
from tests.adapters.upstream.line import CONTENT, in_loop, line, resources
from tests.adapters.upstream.wire import Heard, Say, reply

TIME = 5.0  # seconds, for what must not wait for ever


class Crowd:
    """The admitted requests, and their largest number at one time."""

    def __init__(self, limiter: RequestLimiter) -> None:
        self.limiter = limiter
        self.inside = self.most = 0
        self.order: list[int] = []

    async def enter(self, number: int, pause: float = 0.001) -> None:
        async with self.limiter.slot():
            self.order.append(number)
            self.inside += 1
            self.most = max(self.most, self.inside)
            await asyncio.sleep(pause)
            self.inside -= 1


@in_loop
async def test_at_most_so_many_requests_are_admitted_in_order() -> None:
    crowd = Crowd(RequestLimiter(RequestLimits(max_connections=3)))
    await asyncio.gather(*(crowd.enter(number) for number in range(20)))
    assert (crowd.most, crowd.order) == (3, list(range(20)))


@in_loop
async def test_without_limits_no_request_waits() -> None:
    crowd = Crowd(RequestLimiter(RequestLimits()))
    await asyncio.gather(*(crowd.enter(number) for number in range(50)))
    assert crowd.most == 50
    for _ in range(1000):
        await crowd.limiter.turn()


@in_loop
async def test_a_cancelled_request_takes_no_place() -> None:
    crowd = Crowd(RequestLimiter(RequestLimits(max_connections=1)))
    first = asyncio.create_task(crowd.enter(0, 0.05))
    await asyncio.sleep(0)
    leaving = asyncio.create_task(crowd.enter(1))
    await asyncio.sleep(0)
    leaving.cancel()
    await asyncio.gather(first, leaving, return_exceptions=True)
    await asyncio.wait_for(crowd.enter(2), TIME)
    assert crowd.order == [0, 2]


@pytest.mark.parametrize("rate", [0.5, 20, 37.5])
@in_loop
async def test_the_rate_is_held_from_the_first_request_on(rate: float) -> None:
    limiter, loop = RequestLimiter(RequestLimits(max_rate=rate)), asyncio.get_running_loop()
    began, count = loop.time(), 2 if rate < 1 else 11
    await asyncio.gather(*(limiter.turn() for _ in range(count)))
    assert (count - 1) / rate * 0.95 <= loop.time() - began


@in_loop
async def test_requests_are_admitted_in_order() -> None:
    limiter, order = RequestLimiter(RequestLimits(max_rate=200)), []

    async def turn(number: int) -> None:
        await limiter.turn()
        order.append(number)

    await asyncio.gather(*(turn(number) for number in range(10)))
    assert order == list(range(10))


@in_loop
async def test_an_extra_request_is_admitted_only_if_a_connection_is_free() -> None:
    limiter = RequestLimiter(RequestLimits(max_connections=2))
    async with limiter.slot():
        async with limiter.slot(is_extra=True):
            with pytest.raises(MirrorBusy):
                await limiter.slot(is_extra=True).__aenter__()
        async with limiter.slot(is_extra=True):
            pass  # the refused request occupies no connection


@in_loop
async def test_an_extra_request_delays_no_waiting_request() -> None:
    crowd = Crowd(RequestLimiter(RequestLimits(max_connections=1)))
    async with crowd.limiter.slot(is_extra=True):
        waiting = [asyncio.create_task(crowd.enter(number)) for number in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(MirrorBusy):
            await crowd.limiter.slot(is_extra=True).__aenter__()
    with pytest.raises(MirrorBusy):  # the connection belongs to the first waiting request now
        await crowd.limiter.slot(is_extra=True).__aenter__()
    await asyncio.wait_for(asyncio.gather(*waiting), TIME)
    assert (crowd.most, crowd.order) == (1, [0, 1])
    async with crowd.limiter.slot(is_extra=True):
        pass


@in_loop
async def test_an_extra_request_starts_only_if_the_rate_allows_it_at_once() -> None:
    limiter, order = RequestLimiter(RequestLimits(max_rate=20)), []

    async def turn(number: int) -> None:
        await limiter.turn()
        order.append(number)

    await limiter.turn(is_extra=True)
    waiting = [asyncio.create_task(turn(number)) for number in range(2)]
    for _ in range(2):  # before and while other requests wait
        with pytest.raises(MirrorBusy):
            await limiter.turn(is_extra=True)
        await asyncio.sleep(0)
    await asyncio.wait_for(asyncio.gather(*waiting), TIME)
    assert order == [0, 1]
    await asyncio.sleep(0.06)
    await limiter.turn(is_extra=True)


@in_loop
async def test_an_extra_request_does_not_overtake_a_request_whose_turn_has_come() -> None:
    """The timer that admits the waiting request may be late."""
    limiter = RequestLimiter(RequestLimits(max_rate=100))
    await limiter.turn()
    waiting = asyncio.create_task(limiter.turn())
    await asyncio.sleep(0)
    time.sleep(0.03)  # noqa: ASYNC251 - the loop must not run its timers
    with pytest.raises(MirrorBusy):
        await limiter.turn(is_extra=True)
    await asyncio.wait_for(waiting, TIME)


@pytest.mark.parametrize("limits", [RequestLimits(max_connections=1), RequestLimits(max_rate=0.01)])
@in_loop
async def test_an_extra_request_above_the_limits_is_not_sent(limits: RequestLimits) -> None:
    async with line(lambda _: reply(body=CONTENT), limits=limits) as link:
        blob = UpstreamRequest(resources(link.upstream)["blob"], ForwardedCredentials())
        async with link.parts.registry.open(blob) as answer:
            for _ in range(3):
                with pytest.raises(MirrorBusy) as refused:
                    await asyncio.wait_for(link.fetch(is_extra=True), TIME)
                assert refused.value.retry_after > 0
            assert await answer.read(100) == CONTENT
        assert len(link.server.heard) == 1


@in_loop
async def test_an_extra_request_without_a_turn_gives_its_connection_back() -> None:
    limits = RequestLimits(max_connections=2, max_rate=10)
    async with line(lambda _: reply(body=CONTENT), limits=limits) as link:
        await link.fetch()
        for _ in range(3):
            with pytest.raises(MirrorBusy):
                await link.fetch(is_extra=True)
        found = await asyncio.wait_for(asyncio.gather(*(link.fetch() for _ in range(3))), TIME)
        assert [content for _, content in found] == [CONTENT] * 3


@pytest.mark.parametrize(("connections", "rows"), [(2, 2), (5, 2), (7, 3), (8, 8), (100, 7)])
def test_the_shares_of_all_workers_are_the_limits(connections: int, rows: int) -> None:
    shares = [RequestLimits(connections, 10).share(row, rows) for row in range(rows)]
    assert sum(share.max_connections or 0 for share in shares) == connections
    assert all(share.max_connections for share in shares)
    assert sum(share.max_rate or 0 for share in shares) == pytest.approx(10)
    assert RequestLimits().share(0, rows) == RequestLimits()


@in_loop
async def test_a_body_that_is_still_read_occupies_a_connection() -> None:
    async with line(lambda _: reply(body=CONTENT), limits=RequestLimits(max_connections=1)) as link:
        blob = UpstreamRequest(resources(link.upstream)["blob"], ForwardedCredentials())
        async with link.parts.registry.open(blob) as answer:
            second = asyncio.create_task(link.fetch())
            await asyncio.sleep(0.05)
            assert len(link.server.heard) == 1
            assert await answer.read(100) == CONTENT
        assert (await asyncio.wait_for(second, TIME))[1] == CONTENT


@in_loop
async def test_a_failed_request_gives_its_place_back() -> None:
    async with line(lambda _: Say(then="close"), limits=RequestLimits(max_connections=1)) as link:
        for _ in range(3):
            with pytest.raises(UpstreamFault):
                await asyncio.wait_for(link.fetch(), TIME)


def logging_in(url: Callable[[], str]) -> Callable[[Heard], Say]:
    """A registry that redirects, refuses HEAD, and requires a token."""

    def script(heard: Heard) -> Say:
        if heard.target.startswith("/token"):
            return reply(body=b'{"token":"abc"}')
        if heard.target == "/stored":
            return reply(405) if heard.method == "HEAD" else reply(body=CONTENT)
        if not heard.header("Authorization"):
            return reply(401, ("WWW-Authenticate", f'Bearer realm="{url()}/token"'))
        return reply(307, ("Location", "/stored"))

    return script


@pytest.mark.parametrize("credentials", [SessionCredentials(None), SessionCredentials(Credentials("bob", "pass"))])
@in_loop
async def test_a_login_and_a_redirect_need_only_one_connection(credentials: SessionCredentials) -> None:
    async with line(limits=RequestLimits(max_connections=1)) as link:
        link.server.script = logging_in(lambda: link.server.url)
        asked = [link.fetch(credentials=credentials, head=head) for head in (False, True, False, False)]
        found = await asyncio.wait_for(asyncio.gather(*asked), TIME)
        assert [content for _, content in found] == [CONTENT, b"", CONTENT, CONTENT]
        assert len([heard for heard in link.server.heard if heard.target.startswith("/token")]) == 1


@in_loop
async def test_every_request_to_the_upstream_itself_waits_for_its_turn() -> None:
    rate = 20
    async with line(limits=RequestLimits(max_rate=rate)) as link:
        link.server.script = logging_in(lambda: link.server.url)
        loop = asyncio.get_running_loop()
        began = loop.time()
        await asyncio.gather(*(link.fetch(credentials=SessionCredentials(None)) for _ in range(4)))
        assert loop.time() - began >= (len(link.server.heard) - 1) / rate * 0.95
