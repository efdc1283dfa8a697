"""Whoever is about to close it all can wait until nothing is being fetched any more."""

import asyncio

import pytest

from tests.application.support.crowd import Crowd
from tests.application.support.watched import BIG, held


def test_finished_waits_for_running_downloads() -> None:
    crowd = Crowd()

    async def act() -> bytes:
        fills = crowd.service.parts.downloads()
        await fills.finished()
        gate = held(crowd.upstream)
        reader = crowd.read()
        await crowd.under_way()
        waiting = asyncio.create_task(fills.finished())
        await asyncio.sleep(0.05)
        assert not waiting.done()
        gate.set()
        await waiting
        assert crowd.download is None
        return await reader

    assert crowd.run(act()) == BIG


def test_finished_does_not_wait_forever_for_downloads_without_a_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("application.blobs.running_downloads._LOOK_SECONDS", 0.01)
    crowd = Crowd()

    async def act() -> None:
        held(crowd.upstream)
        first = crowd.read()
        await crowd.under_way()
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        waiting = asyncio.create_task(crowd.service.parts.downloads().finished())
        await asyncio.sleep(0.05)
        assert not waiting.done()
        crowd.service.clock.advance(301)
        async with asyncio.timeout(10):
            await waiting

    crowd.run(act())
