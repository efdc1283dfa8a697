"""A failed endpoint is not asked for a while; then one request tries it."""

import asyncio

import pytest

from domain.errors import UpstreamBroken
from domain.events import EndpointRecovered
from tests.adapters.upstream.line import CONTENT, in_loop
from tests.adapters.upstream.pair import TRIAL, gives, pair
from tests.adapters.upstream.wire import Say, reply


@in_loop
async def test_a_failed_endpoint_is_tried_again_after_a_while() -> None:
    async with pair(lambda _: reply(503)) as both:
        await both.fetch()
        await asyncio.sleep(TRIAL * 1.2)
        await both.fetch()
        assert both.request_counts == (2, 2), "the trial failed"
        both.first.script = gives
        await both.fetch()
        assert both.request_counts == (2, 3), "the endpoint is skipped again"
        await asyncio.sleep(TRIAL * 1.2)
        for _ in range(3):
            await both.fetch()
        assert both.request_counts == (5, 3)
        assert both.endpoint_events == [("EndpointFailed", both.first.url), ("EndpointRecovered", both.first.url)]
        assert both.parts.events.events[1] == EndpointRecovered(both.upstream.url, both.first.url)


@in_loop
async def test_one_request_makes_the_trial_and_the_others_do_not_wait() -> None:
    async with pair(lambda _: reply(503), read_timeout=1) as both:
        await both.fetch()
        await asyncio.sleep(TRIAL * 1.2)
        both.first.script = lambda _: Say(then="hang")
        trial = asyncio.create_task(both.fetch())
        await asyncio.sleep(0.05)
        await asyncio.wait_for(asyncio.gather(*(both.fetch() for _ in range(5))), 0.9)
        assert not trial.done()
        assert both.request_counts == (2, 6)
        assert await trial == CONTENT


@in_loop
async def test_a_request_from_before_the_trial_does_not_end_the_trial() -> None:
    script: list[Say] = [Say(then="hang"), reply(503)]
    async with pair(lambda _: script.pop(0) if script else Say(then="hang"), read_timeout=1) as both:
        early = asyncio.create_task(both.fetch())
        await asyncio.sleep(0.05)
        await both.fetch()
        await asyncio.sleep(TRIAL * 1.2)
        trial = asyncio.create_task(both.fetch())
        await asyncio.sleep(0.05)
        early.cancel()
        await asyncio.gather(early, return_exceptions=True)
        await asyncio.wait_for(both.fetch(), 0.3)
        assert not trial.done()
        assert both.request_counts == (3, 2)
        trial.cancel()
        await asyncio.gather(trial, return_exceptions=True)


@in_loop
async def test_the_next_request_repeats_a_cancelled_trial() -> None:
    async with pair(lambda _: reply(503)) as both:
        await both.fetch()
        await asyncio.sleep(TRIAL * 1.2)
        both.first.script = lambda _: Say(then="hang")
        trial = asyncio.create_task(both.fetch())
        await asyncio.sleep(0.05)
        trial.cancel()
        await asyncio.gather(trial, return_exceptions=True)
        both.first.script = gives
        await both.fetch()
        assert both.request_counts == (3, 1)
        assert both.endpoint_events[-1] == ("EndpointRecovered", both.first.url)


@in_loop
async def test_if_all_endpoints_have_failed_all_are_asked_in_order() -> None:
    async with pair(lambda _: reply(503), lambda _: reply(503)) as both:
        for _ in range(3):
            with pytest.raises(UpstreamBroken):
                await both.fetch()
        assert both.request_counts == (3, 3)
        both.second.script = gives
        assert await both.fetch() == CONTENT
        assert both.request_counts == (4, 4)
        assert await both.fetch() == CONTENT
        assert both.request_counts == (4, 5), "the endpoint that answered is healthy again at once"
