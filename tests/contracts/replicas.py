"""The contracts of what replicas share in Redis: each test runs on a real Valkey and on the fake."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TypeVar

import pytest

from adapters.shared.redis_connection import RedisConnection
from domain.redis_address import RedisAddress
from tests.e2e.support.processes import wait_until
from tests.e2e.support.valkey import Valkey
from tests.fakes.events import RecordingEventSink

KINDS = ("real", "fake")
_WAIT = 15.0
"""Seconds that a request to Valkey may take: a loaded machine is slow."""
_SILENCE = 0.5
"""The same, of requests to a server that is known to be silent."""

T = TypeVar("T")


def connection_to(server: Valkey) -> RedisConnection:
    """The connection of one worker."""
    return RedisConnection(RedisAddress.parse(server.url), RecordingEventSink(), _WAIT)


@asynccontextmanager
async def connected(server: Valkey, count: int = 2) -> AsyncIterator[list[RedisConnection]]:
    """The connections of `count` workers to a server that is empty. A test may pause the server."""
    server.flush()
    connections = [connection_to(server) for _ in range(count)]
    try:
        yield connections
    finally:
        server.resume()
        for connection in connections:
            await connection.close()


def silence(server: Valkey, connections: Sequence[RedisConnection]) -> None:
    """The server does not answer any more."""
    server.pause()
    for connection in connections:
        connection._wait = _SILENCE


def let_expire(server: Valkey, *keys: str, within: float) -> None:
    """The time of these keys passes. They must have one, of at most `within` seconds."""
    for key in keys:
        left = server.command("PTTL", key)
        assert isinstance(left, int)
        assert 0 < left <= within * 1000
        server.command("PEXPIRE", key, 1)
    assert wait_until(lambda: not any(server.command("EXISTS", key) for key in keys), 20, pause=0.01)


def with_each_kind(
    opened: Callable[[str, Valkey], AbstractAsyncContextManager[T]],
) -> Callable[[Callable[[T], Awaitable[None]]], Callable[[str, Valkey], None]]:
    """Runs a test once with each of KINDS. `opened`: what the test gets."""

    def decorate(test: Callable[[T], Awaitable[None]]) -> Callable[[str, Valkey], None]:
        @pytest.mark.parametrize("kind", KINDS)
        def run(kind: str, valkey_server: Valkey) -> None:
            async def go() -> None:
                async with opened(kind, valkey_server) as replicas:
                    await test(replicas)

            asyncio.run(go())

        return run

    return decorate
