"""Time in our own queue before an upstream is no silence of the upstream."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from application.concurrency import SingleFlight
from application.ports.upstream import UpstreamRequest, UpstreamResponse, current_watch
from domain.errors import MirrorBusy
from domain.events import StaleServed
from tests.application.support.pulls import Pulls
from tests.application.support.service import IMAGE_CONTENT
from tests.application.support.watched import ALICES, BOBS

PATIENCE = 0.2


@pytest.fixture(autouse=True)
def _short_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("application.upstreams.outages._PATIENCE_SECONDS", PATIENCE)


def slow(pulls: Pulls, *, in_queue: float = 0.0, silent: float = 0.0) -> None:
    """From now on each request waits in the queue, and then for the upstream. Seconds."""
    opened = pulls.upstream.open

    @asynccontextmanager
    async def later(fetch: UpstreamRequest) -> AsyncIterator[UpstreamResponse]:
        with current_watch().queued():
            await asyncio.sleep(in_queue)
        await asyncio.sleep(silent)
        async with opened(fetch) as answer:
            yield answer

    pulls.upstream.open = later  # type: ignore[method-assign]


@pytest.mark.parametrize("silent", [0.0, PATIENCE / 4])
def test_a_request_that_waited_in_the_queue_is_answered_by_the_upstream(silent: float) -> None:
    pulls = Pulls()

    async def act() -> Any:
        await pulls.pull()
        pulls.service.clock.advance(301)
        slow(pulls, in_queue=3 * PATIENCE, silent=silent)
        return await pulls.pull()

    answer = pulls.run(act())
    assert (answer.content, answer.warnings) == (IMAGE_CONTENT, ())
    assert not [event for event in pulls.service.events if isinstance(event, StaleServed)]


def test_silence_behind_the_queue_counts() -> None:
    pulls = Pulls()

    async def act() -> Any:
        await pulls.pull()
        pulls.service.clock.advance(61)
        slow(pulls, in_queue=PATIENCE / 2, silent=5 * PATIENCE)
        return await pulls.pull()

    assert len(pulls.run(act()).warnings) == 1


def test_those_who_wait_for_the_same_do_not_count_its_time_in_the_queue_either() -> None:
    pulls = Pulls()

    async def act() -> Any:
        for caller in (ALICES, BOBS):
            await pulls.pull(caller)
        pulls.service.clock.advance(61)
        slow(pulls, in_queue=3 * PATIENCE)
        return await asyncio.gather(*(pulls.pull(caller) for caller in (ALICES, BOBS, ALICES, BOBS)))

    assert [answer.warnings for answer in pulls.run(act())] == [()] * 4


def test_a_queue_that_is_full_is_no_outage() -> None:
    pulls = Pulls()

    async def act() -> Any:
        await pulls.pull()
        pulls.service.clock.advance(61)
        pulls.upstream.refuse = lambda _: MirrorBusy("too many wait", retry_after=5)
        with pytest.raises(MirrorBusy):
            await pulls.pull()
        pulls.upstream.refuse = lambda _: None
        return await pulls.pull()

    answer = pulls.run(act())
    assert (answer.content, answer.warnings) == (IMAGE_CONTENT, ())
    assert not [event for event in pulls.service.events if isinstance(event, StaleServed)]


async def test_work_for_several_is_wanted_as_long_as_one_of_them_waits() -> None:
    seen: list[bool] = []

    joined, goes_on = SingleFlight(), asyncio.Event()

    async def work() -> None:
        watch = current_watch()
        seen.append(watch.is_wanted)
        while not goes_on.is_set():
            await asyncio.sleep(0.001)
            seen.append(watch.is_wanted)

    waiting = [asyncio.create_task(joined.do("key", work)) for _ in range(2)]
    await asyncio.sleep(0.01)
    waiting[0].cancel()
    await asyncio.sleep(0.01)
    assert seen[-1]
    waiting[1].cancel()
    await asyncio.sleep(0.01)
    assert not seen[-1]
    goes_on.set()
    await asyncio.gather(*waiting, return_exceptions=True)
    await asyncio.sleep(0.01)
