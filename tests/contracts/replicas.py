"""The contracts of what replicas share in Redis: each test runs on a real Valkey and on the fake."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TypeVar

import pytest

from adapters.shared.redis_connection import RedisConnection
from domain.redis_address import RedisAddress
from tests.e2e.support.valkey import Valkey
from tests.fakes.events import RecordingEventSink

KINDS = ("real", "fake")
_WAIT = 1.0  # of a request to Valkey: a loaded machine is slow

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
