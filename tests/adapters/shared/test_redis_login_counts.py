"""What Redis has of logins: no names, and nothing that stays."""

import asyncio
from typing import Any

from adapters.shared.redis_connection import RedisConnection
from adapters.shared.redis_login_counts import RedisLoginCounts
from application.ports.login_counts import Admission, LoginResult
from domain.login_pace import COUNTED_SECONDS, Pace
from domain.redis_address import RedisAddress
from tests.e2e.support.valkey import Valkey
from tests.fakes.events import RecordingEventSink

LANE = "account 192.0.2.0 alice"
STRICT = Pace(free=1, first=1, longest=8, is_strict=True)


def keys_after(server: Valkey, *secrets: bytes) -> list[bytes]:
    """The names of the keys after an attempt at replicas with these secrets."""

    async def go() -> None:
        connection = RedisConnection(RedisAddress.parse(server.url), RecordingEventSink(), 5.0)
        try:
            for secret in secrets:
                counts = RedisLoginCounts(connection, secret)
                await counts.record(LANE, LoginResult.REFUSED)
                await counts.begin(LANE, STRICT)
        finally:
            await connection.close()

    server.flush()
    asyncio.run(go())
    keys: Any = server.command("KEYS", "*")
    return list(keys)


def test_replicas_with_the_same_secret_use_the_same_key(valkey_server: Valkey) -> None:
    assert len(keys_after(valkey_server, b"one secret", b"one secret")) == 1
    assert len(keys_after(valkey_server, b"one secret", b"another secret")) == 2


def test_redis_learns_neither_accounts_nor_addresses(valkey_server: Valkey) -> None:
    [name] = keys_after(valkey_server, b"one secret")
    members: Any = valkey_server.command("ZRANGE", name.decode(), 0, -1)
    for text in (b"alice", b"192.0.2"):
        assert text not in name + b" ".join(members)


def test_the_key_expires(valkey_server: Valkey) -> None:
    [name] = keys_after(valkey_server, b"one secret")
    assert 0 < int(str(valkey_server.command("TTL", name.decode()))) <= COUNTED_SECONDS


def test_old_attempts_and_attempts_of_killed_workers_do_not_count(valkey_server: Valkey) -> None:
    [name] = keys_after(valkey_server, b"one secret")
    time: Any = valkey_server.command("TIME")
    now = int(time[0])
    valkey_server.command("DEL", name.decode())
    for member, age in (("rkilled", 11), ("wold", 301), ("xold", 301)):
        valkey_server.command("ZADD", name.decode(), now - age, member)

    async def go() -> Admission:
        connection = RedisConnection(RedisAddress.parse(valkey_server.url), RecordingEventSink(), 5.0)
        try:
            return await RedisLoginCounts(connection, b"one secret").begin(LANE, STRICT)
        finally:
            await connection.close()

    admission = asyncio.run(go())
    assert admission.wait == 0
    assert valkey_server.command("ZRANGE", name.decode(), 0, -1) == [f"r{admission.attempt}".encode()]
