"""What Redis has of rate limits: a limited number of entries, in keys that expire."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

from adapters.shared.redis_connection import RedisConnection
from adapters.shared.redis_rate_limits import _AT_ONCE, _KEYS, _MOST, RedisRateLimits
from application.ports.rate_limits import BackOffNews
from domain.records import CallerId
from domain.redis_address import RedisAddress
from tests.e2e.support.valkey import Valkey
from tests.fakes.events import RecordingEventSink

NEWS = BackOffNews("0123456789abcdef", CallerId("login 0"), manifests=True, at=1_800_000_000.0, until=1_800_000_030.0)


def with_board(server: Valkey, act: Callable[[RedisRateLimits, RedisRateLimits], Awaitable[None]]) -> None:
    async def go() -> None:
        server.flush()
        connection = RedisConnection(RedisAddress.parse(server.url), RecordingEventSink(), 5.0)
        try:
            await act(RedisRateLimits(connection), RedisRateLimits(connection))
        finally:
            await connection.close()

    asyncio.run(go())


def of_caller(number: int) -> BackOffNews:
    return replace(NEWS, caller=CallerId(f"login {number}"))


def test_the_oldest_changes_are_removed_and_many_entries_arrive_in_several_answers(valkey_server: Valkey) -> None:
    async def act(one: RedisRateLimits, other: RedisRateLimits) -> None:
        for start in range(0, _MOST + 500, 500):
            await one.exchange([of_caller(number) for number in range(start, start + 500)])
        received, answers = set(), 0
        while found := await other.exchange([]):
            assert len(found) <= _AT_ONCE
            received |= {news.caller for news in found}
            answers += 1
        assert len(received) == _MOST
        assert of_caller(0).caller not in received
        assert answers == -(-_MOST // _AT_ONCE)

    with_board(valkey_server, act)
    assert valkey_server.command("HLEN", _KEYS[0]) == valkey_server.command("ZCARD", _KEYS[1]) == _MOST


def test_the_keys_expire_and_are_in_one_slot(valkey_server: Valkey) -> None:
    async def act(one: RedisRateLimits, _: RedisRateLimits) -> None:
        await one.exchange([NEWS])

    with_board(valkey_server, act)
    assert all(0 < int(str(valkey_server.command("TTL", name))) <= 3600 for name in _KEYS)
    tags = {name[name.index("{") : name.index("}")] for name in _KEYS}
    assert len(tags) == 1


def test_entries_of_another_program_are_ignored(valkey_server: Valkey) -> None:
    async def act(one: RedisRateLimits, other: RedisRateLimits) -> None:
        await one.exchange([NEWS])
        for number, value in enumerate(["", "1", "1 []", "1 {", '1 {"upstream":1,"caller":2}', "x y"]):
            valkey_server.command("HSET", _KEYS[0], f"other {number}", value)
            valkey_server.command("ZADD", _KEYS[1], 100 + number, f"other {number}")
        assert await other.exchange([]) == [NEWS]

    with_board(valkey_server, act)


def test_a_long_message_is_cut(valkey_server: Valkey) -> None:
    async def act(one: RedisRateLimits, other: RedisRateLimits) -> None:
        await one.exchange([replace(NEWS, message="long " * 10_000)])
        [received] = await other.exchange([])
        assert isinstance(received, BackOffNews)
        assert len(received.message) == 512

    with_board(valkey_server, act)
