"""The limits of the connection to Redis, with servers that refuse, are silent, are killed or are not a primary.

The time that a request may wait is compared with `WAIT`, with room for a loaded machine.
"""

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from redis.asyncio import Redis

from adapters.shared.redis_connection import RedisConnection, key
from application.ports.shared import SharedUnavailable
from domain.events import SharedIndexLost, SharedIndexRecovered
from domain.redis_address import RedisAddress
from tests.adapters.shared.gate import gate, in_loop, seconds_of
from tests.e2e.support.certificates import make_authority
from tests.e2e.support.processes import free_port, wait_until
from tests.e2e.support.valkey import Valkey, redis_cluster, sentinel, valkey
from tests.fakes.events import RecordingEventSink

pytestmark = pytest.mark.slow

WAIT = 0.25
TRIAL_AFTER = 1.0


@asynccontextmanager
async def connected(
    address: str, wait: float = WAIT, trial_after: float = TRIAL_AFTER
) -> AsyncIterator[tuple[RedisConnection, RecordingEventSink]]:
    events = RecordingEventSink()
    connection = RedisConnection(RedisAddress.parse(address), events, wait, trial_after)
    try:
        yield connection, events
    finally:
        await connection.close()


async def ping(connection: RedisConnection) -> bool:
    return bool(await connection.run(Redis.ping))


async def failure_of(connection: RedisConnection) -> str:
    """The reason why a request fails."""
    with pytest.raises(SharedUnavailable) as refused:
        await ping(connection)
    return str(refused.value)


@in_loop
async def test_requests_use_the_same_connection(valkey_server: Valkey) -> None:
    async with gate(valkey_server.port) as relay, connected(f"redis://127.0.0.1:{relay.port}") as (connection, events):
        assert relay.connections == 0, "nothing is connected before the first request"
        for _ in range(20):
            assert await ping(connection)
        assert relay.connections == 1
        assert connection.is_available
        assert not events.events


@in_loop
async def test_many_requests_at_once_use_few_connections(valkey_server: Valkey) -> None:
    async with (
        gate(valkey_server.port) as relay,
        connected(f"redis://127.0.0.1:{relay.port}", wait=10) as (connection, _),
    ):
        assert all(await asyncio.gather(*(ping(connection) for _ in range(300))))
        assert relay.connections <= 16


@in_loop
async def test_a_refused_connection_fails_at_once_and_then_costs_nothing() -> None:
    port = free_port()
    async with connected(f"redis://127.0.0.1:{port}") as (connection, events):
        for _ in range(3):
            assert await failure_of(connection) == f"127.0.0.1:{port} cannot be reached: Connection refused"
        assert not connection.is_available
        assert events.events == [SharedIndexLost(f"127.0.0.1:{port}", connection.failure)]


@in_loop
async def test_a_silent_server_delays_each_request_once_and_then_none(valkey_server: Valkey) -> None:
    async with gate(valkey_server.port) as relay, connected(f"redis://127.0.0.1:{relay.port}") as (connection, events):
        relay.is_silent = True
        # The requests wait at the same time, also those for which no connection is free.
        waited = await seconds_of(asyncio.gather(*(ping(connection) for _ in range(50)), return_exceptions=True))
        assert 0.9 * WAIT <= waited < 3 * WAIT
        accepted = relay.requests
        assert accepted <= 16, "the others fail without a request when the first ones have failed"
        for _ in range(50):
            assert await failure_of(connection) == f"127.0.0.1:{relay.port} did not answer within 250 ms"
        assert relay.requests == accepted
        assert [type(event) for event in events.events] == [SharedIndexLost]


@in_loop
async def test_requests_that_wait_for_those_of_their_own_worker_do_not_blame_the_server(valkey_server: Valkey) -> None:
    async with connected(valkey_server.url, wait=10) as (connection, events):
        requests = [asyncio.create_task(connection.run(lambda redis: redis.blpop(["nothing"], 2))) for _ in range(16)]
        await asyncio.sleep(WAIT)
        connection._wait = WAIT
        with pytest.raises(SharedUnavailable, match="too many requests of this worker"):
            await ping(connection)
        assert connection.is_available
        assert await asyncio.gather(*requests) == [None] * 16
        assert await ping(connection)
        assert not events.events


@in_loop
async def test_after_a_failure_one_request_at_a_time_tries_again(valkey_server: Valkey) -> None:
    async with gate(valkey_server.port) as relay, connected(f"redis://127.0.0.1:{relay.port}") as (connection, events):
        relay.is_silent = True
        await failure_of(connection)
        await asyncio.sleep(1.1 * TRIAL_AFTER)
        before = relay.connections
        results = await asyncio.gather(*(ping(connection) for _ in range(20)), return_exceptions=True)
        assert all(isinstance(result, SharedUnavailable) for result in results)
        assert relay.connections == before + 1
        await failure_of(connection)
        assert relay.connections == before + 1, "the failed trial opens the breaker again"
        relay.is_silent = False
        await asyncio.sleep(1.1 * TRIAL_AFTER)
        assert await ping(connection)
        assert connection.is_available
        assert connection.failure == ""
        assert [type(event) for event in events.events] == [SharedIndexLost, SharedIndexRecovered]
        assert all(await asyncio.gather(*(ping(connection) for _ in range(20))))


@in_loop
async def test_a_cancelled_trial_lets_the_next_request_try(valkey_server: Valkey) -> None:
    async with gate(valkey_server.port) as relay, connected(f"redis://127.0.0.1:{relay.port}") as (connection, _):
        relay.is_silent = True
        await failure_of(connection)
        await asyncio.sleep(1.1 * TRIAL_AFTER)
        trial = asyncio.create_task(ping(connection))
        await asyncio.sleep(WAIT / 5)
        trial.cancel()
        await asyncio.wait([trial])
        relay.is_silent = False
        assert await ping(connection)


@in_loop
async def test_a_request_that_no_client_waits_for_tries_again_at_once(valkey_server: Valkey) -> None:
    async with gate(valkey_server.port) as relay, connected(f"redis://127.0.0.1:{relay.port}") as (connection, _):
        relay.is_silent = True
        await failure_of(connection)
        relay.is_silent = False
        await failure_of(connection)
        assert await connection.run(Redis.ping, in_background=True)
        assert await ping(connection)


@in_loop
async def test_connections_that_died_while_they_were_idle_are_not_tried_again(valkey_server: Valkey) -> None:
    """After a partition, every connection of before may be dead, and none of them says so."""
    async with (
        gate(valkey_server.port) as relay,
        connected(f"redis://127.0.0.1:{relay.port}", trial_after=0) as (connection, _),
    ):
        await asyncio.gather(*(connection.run(lambda redis: redis.blpop(["nothing"], 0.1)) for _ in range(8)))
        assert relay.connections == 8
        relay.is_silent = True
        await failure_of(connection)
        relay.is_silent = False
        relay.connections = 0
        assert await ping(connection)
        assert relay.connections == 1


@in_loop
async def test_a_connection_that_the_server_closed_while_it_was_idle_is_replaced(valkey_server: Valkey) -> None:
    async with gate(valkey_server.port) as relay, connected(f"redis://127.0.0.1:{relay.port}") as (connection, events):
        assert await ping(connection)
        relay.cut()
        await asyncio.sleep(WAIT / 5)
        assert await ping(connection)
        assert relay.connections == 2
        assert not events.events


@in_loop
async def test_an_event_loop_that_is_late_does_not_blame_the_server(valkey_server: Valkey) -> None:
    async with connected(valkey_server.url) as (connection, events):
        await ping(connection)
        request = asyncio.create_task(ping(connection))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        time.sleep(2 * WAIT)  # noqa: ASYNC251 - a busy process, or one that was paused
        assert await request
        assert not events.events


@in_loop
async def test_an_event_loop_that_is_late_while_it_connects_does_not_blame_the_server(valkey_server: Valkey) -> None:
    async with connected(valkey_server.url) as (connection, events):
        requests = [asyncio.create_task(ping(connection)) for _ in range(5)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        time.sleep(5 * WAIT)  # noqa: ASYNC251 - a busy process, or one that was paused
        assert await asyncio.gather(*requests) == [True] * 5
        assert not events.events


@in_loop
async def test_an_event_loop_with_much_work_does_not_blame_the_server(valkey_server: Valkey) -> None:
    loop = asyncio.get_running_loop()

    def work() -> None:
        nonlocal rest
        time.sleep(WAIT / 3)
        rest = loop.call_soon(work)

    rest = loop.call_soon(work)
    async with connected(f"redis://127.0.0.1:{valkey_server.port}/1") as (connection, events):
        waited = await seconds_of(connection.call("return ARGV[1]", [], ["a new connection"]))
        rest.cancel()
        assert connection.is_available
        assert waited > 1.5 * WAIT, "it took longer than the limit"
        assert not events.events


@in_loop
async def test_a_server_that_is_killed_and_restarted_is_used_again(tmp_path: Path) -> None:
    with valkey(tmp_path) as server:
        async with connected(server.url, wait=5) as (connection, events):
            request = asyncio.create_task(connection.run(lambda redis: redis.blpop(["nothing"], 30)))
            assert await asyncio.to_thread(wait_until, lambda: b"blpop" in _clients(server), 10)
            server.kill()
            with pytest.raises(SharedUnavailable, match="cannot be reached"):
                await request
            await asyncio.to_thread(server.restart)
            await asyncio.sleep(1.1 * TRIAL_AFTER)
            assert await ping(connection)
            assert [type(event) for event in events.events] == [SharedIndexLost, SharedIndexRecovered]


@in_loop
async def test_a_paused_server_is_used_again_after_it_goes_on(tmp_path: Path) -> None:
    with valkey(tmp_path) as server:
        async with connected(server.url) as (connection, _):
            assert await ping(connection)
            server.pause()
            assert "did not answer" in await failure_of(connection)
            server.resume()
            await asyncio.sleep(1.1 * TRIAL_AFTER)
            assert await ping(connection)


@in_loop
async def test_a_script_runs_on_a_server_that_does_not_know_it(valkey_server: Valkey) -> None:
    script = "return {KEYS[1], ARGV[1], ARGV[2], redis.call('PING')['ok'], 7}"
    async with connected(valkey_server.url) as (connection, _):
        for _ in range(2):
            assert await connection.call(script, ["a key"], [b"\x00\xff", 1.5]) == [
                b"a key",
                b"\x00\xff",
                b"1.5",
                b"PONG",
                7,
            ]
            valkey_server.command("SCRIPT", "FLUSH")


@in_loop
async def test_a_read_only_server_is_not_used_for_a_while(tmp_path: Path, valkey_server: Valkey) -> None:
    """So it is after a failover, if the address leads to the server that was the primary before."""
    with valkey(tmp_path) as server:
        server.follow(valkey_server.port)
        async with connected(server.url) as (connection, _):
            with pytest.raises(SharedUnavailable, match="is a replica, which accepts no writes"):
                await connection.call("return redis.call('SET', KEYS[1], 'x')", [key("test", "tag")], [])
            assert not connection.is_available
            server.promote()
            await asyncio.sleep(1.1 * TRIAL_AFTER)
            await connection.call("return redis.call('SET', KEYS[1], 'x')", [key("test", "tag")], [])


@in_loop
async def test_the_login_is_sent_and_never_repeated_in_messages(tmp_path: Path) -> None:
    options = ["--user", "default", "off", "--user", "mirror", "on", "allkeys", "allcommands", ">secret"]
    with valkey(tmp_path, *options) as server:
        async with connected(f"redis://mirror:secret@127.0.0.1:{server.port}/3") as (connection, _):
            assert await ping(connection)
            assert (await connection.run(Redis.client_info))["db"] == 3
        for login in ("mirror:wrong%20secret@", "other:secret@", ":secret@", ""):
            async with connected(f"redis://{login}127.0.0.1:{server.port}") as (connection, events):
                reason = await failure_of(connection)
                assert reason == f"127.0.0.1:{server.port} rejected the user name or the password"
                assert "secret" not in repr(events.events) + repr(vars(connection)["_address"])


@in_loop
async def test_the_reason_of_a_refused_request_contains_none_of_its_arguments(tmp_path: Path) -> None:
    options = ["--user", "default", "on", "nopass", "allkeys", "allcommands", "-get", "--maxmemory", "1"]
    with valkey(tmp_path, *options) as server:
        requests: dict[str, Callable[[Redis], Awaitable[object]]] = {
            "has no memory left": lambda redis: redis.set("secret", "secret"),
            "does not permit this user a command that the mirror needs": lambda redis: redis.get("secret"),
            "refused a request: ResponseError": lambda redis: redis.execute_command("secret", "secret"),
        }
        for reason, request in requests.items():
            async with connected(server.url) as (connection, events):
                with pytest.raises(SharedUnavailable) as refused:
                    await connection.run(request)
                assert str(refused.value) == f"127.0.0.1:{server.port} {reason}"
                assert "secret" not in repr(events.events)


@pytest.mark.parametrize("is_trusted", [True, False])
@in_loop
async def test_tls_checks_the_certificate(*, is_trusted: bool, tmp_path: Path, valkey_server: Valkey) -> None:
    authority = make_authority(tmp_path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(authority.server.certificate, authority.server.key)
    option = f"?ca_file={authority.certificate}" if is_trusted else ""
    async with (
        gate(valkey_server.port, context) as relay,
        connected(f"rediss://127.0.0.1:{relay.port}{option}", wait=5) as (connection, _),
    ):
        if is_trusted:
            assert await ping(connection)
        else:
            assert "cannot be reached by TLS: unable to get local issuer certificate" in await failure_of(connection)


@in_loop
async def test_a_tls_server_that_is_silent_delays_neither_requests_nor_the_end(
    tmp_path: Path, valkey_server: Valkey
) -> None:
    authority = make_authority(tmp_path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(authority.server.certificate, authority.server.key)
    async with gate(valkey_server.port, context) as relay:
        address = RedisAddress.parse(f"rediss://127.0.0.1:{relay.port}?ca_file={authority.certificate}")
        connection = RedisConnection(address, RecordingEventSink(), WAIT)
        await asyncio.wait_for(connection.run(Redis.ping, in_background=True), 5)
        relay.is_silent = True
        assert await seconds_of(ping(connection)) < 3 * WAIT
        assert await seconds_of(connection.close()) < 5


@in_loop
async def test_a_redis_cluster_finds_the_node_of_each_key(tmp_path: Path) -> None:
    with redis_cluster(tmp_path) as server:
        address = f"redis+cluster://127.0.0.1:{free_port()},127.0.0.1:{server.port}"
        async with connected(address, wait=2) as (connection, _):
            one, other = key("test", "a tag", "one"), key("test", "a tag", "other")
            script = "redis.call('SET', KEYS[1], ARGV[1]); return redis.call('GET', KEYS[2])"
            assert await connection.call(script, [one, other], ["content"]) is None
            assert await connection.run(lambda redis: redis.get(one)) == b"content"
            server.kill()
            await asyncio.sleep(0)
            assert "127.0.0.1" in await failure_of(connection)


@in_loop
async def test_sentinel_leads_to_the_new_primary_after_a_failover(tmp_path: Path) -> None:
    with valkey(tmp_path) as first, valkey(tmp_path) as second:
        second.follow(first.port)
        with sentinel(tmp_path, first, "mirror") as port:
            # The first Sentinel of the list does not exist.
            address = f"redis+sentinel://127.0.0.1:{free_port()},127.0.0.1:{port}/mirror/2"
            async with connected(address, wait=1) as (connection, events):
                await connection.run(lambda redis: redis.set("where", "first"))
                assert _bytes(first.command("CONFIG", "GET", "port")) is not None
                first.kill()
                assert "127.0.0.1" in await failure_of(connection)

                async def is_back() -> bool:
                    try:
                        return bool(
                            await connection.run(lambda redis: redis.set("where", "second"), in_background=True)
                        )
                    except SharedUnavailable:
                        return False

                tries = 0
                while not await is_back():
                    tries += 1
                    assert tries < 300
                    await asyncio.sleep(0.1)
                assert [type(event) for event in events.events] == [SharedIndexLost, SharedIndexRecovered]
            assert "role:master" in second.replication()


def _clients(server: Valkey) -> bytes:
    return _bytes(server.command("CLIENT", "LIST"))


def _bytes(answer: object) -> bytes:
    return answer if isinstance(answer, bytes) else repr(answer).encode()


@in_loop
async def test_the_login_of_sentinel_is_that_of_the_server_if_the_address_says_so(tmp_path: Path) -> None:
    with (
        valkey(tmp_path, "--requirepass", "secret") as server,
        sentinel(tmp_path, server, "main", password="secret") as port,
    ):
        address = f"redis+sentinel://:secret@127.0.0.1:{port}/main"
        async with connected(f"{address}?sentinel_auth=yes", wait=5) as (connection, _):
            assert await ping(connection)
        async with connected(address, wait=5) as (connection, _):
            assert await failure_of(connection) == (
                f"127.0.0.1:{port}/main (Sentinel) knows no primary, cannot be reached, or rejected the login"
            )
        async with connected(f"redis+sentinel://:secret@127.0.0.1:{port}/other?sentinel_auth=yes", wait=5) as (
            connection,
            _,
        ):
            assert "(Sentinel) knows no primary" in await failure_of(connection)


@in_loop
async def test_a_silent_sentinel_leaves_time_for_the_next_one(tmp_path: Path) -> None:
    with valkey(tmp_path) as server, sentinel(tmp_path, server, "main") as port:
        async with (
            gate(port) as relay,
            connected(f"redis+sentinel://127.0.0.1:{relay.port},127.0.0.1:{port}/main", wait=2) as (connection, events),
        ):
            relay.is_silent = True
            assert await ping(connection)
            assert relay.connections == 1
            assert not events.events
