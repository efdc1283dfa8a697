"""With whose right a download goes on that had broken off."""

import asyncio
from typing import Any

import pytest

from application.ports.upstream import UpstreamRequest
from domain.errors import (
    RegistryError,
    Unauthorized,
)
from tests.application.support.breaking import Breaking
from tests.application.support.watched import BIG, BOBS, challenged, held, soon


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("application.blobs.retries._FIRST_PAUSE", 0.005)
    monkeypatch.setattr("application.blobs.retries._LONGEST_PAUSE", 0.02)


def test_the_access_of_another_reader_is_used_when_the_first_ends() -> None:
    crowd = Breaking()

    def refuse(fetch: UpstreamRequest) -> RegistryError | None:
        return challenged() if fetch.byte_range and "alice" in repr(fetch.credentials.raw) else None

    async def act() -> list[bytes]:
        gate = held(crowd.upstream, breaks=True)
        first = crowd.read()
        await crowd.under_way()
        second = crowd.read(BOBS)
        await soon(lambda: len(crowd.download.accesses) == 2)
        crowd.upstream.refuse = refuse
        gate.set()
        return await asyncio.gather(first, second)

    assert crowd.run(act()) == [BIG, BIG]
    assert "bob" in repr(crowd.upstream.asked[-1].credentials.raw)


def test_without_another_access_the_download_ends_with_the_first() -> None:
    crowd = Breaking()
    crowd.upstream.refuse = lambda fetch: challenged() if fetch.byte_range else None

    async def act() -> Any:
        return (await asyncio.gather(crowd.read(), return_exceptions=True))[0]

    assert isinstance(crowd.run(act()), Unauthorized)


def test_a_new_reader_does_not_receive_the_refusal_of_another_caller() -> None:
    """His own right is being proven while the first one's ends: the refusal is none of his."""
    crowd = Breaking()

    async def act() -> bytes:
        gate = held(crowd.upstream, breaks=True)
        first = crowd.read()
        await crowd.under_way()
        proving, seen = asyncio.Event(), asyncio.Event()

        async def hold(fetch: UpstreamRequest) -> None:
            if fetch.head:
                seen.set()
                await proving.wait()

        crowd.upstream.hold = hold
        second = crowd.read(BOBS)
        await seen.wait()
        crowd.upstream.refuse = lambda fetch: challenged() if "alice" in repr(fetch.credentials.raw) else None
        gate.set()
        await asyncio.gather(first, return_exceptions=True)
        proving.set()
        return await second

    assert crowd.run(act()) == BIG
