"""Leases when processes are paused or killed, and when the server loses what it knew."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.shared.redis_connection import RedisConnection
from adapters.shared.redis_leases import RedisLeases
from application.ports.shared import FollowedLease, SharedLease, SharedProgress, SharedUnavailable
from domain.redis_address import RedisAddress
from tests.adapters.shared.gate import gate, in_loop
from tests.adapters.storage.places import line_of, process
from tests.contracts.shared_leases import DIGEST, followed, held, part
from tests.contracts.storage import HUB
from tests.e2e.support.processes import pause, resume
from tests.e2e.support.valkey import Valkey, sentinel, valkey
from tests.fakes.events import RecordingEventSink

pytestmark = pytest.mark.slow

SECONDS = 2.0  # of a lease
LONG = 60.0  # of a lease that a slow machine must not lose
WAIT = 1.0  # of a request: a loaded machine is slow

HOLDER = """
import asyncio, sys
from adapters.shared.redis_connection import RedisConnection
from adapters.shared.redis_leases import RedisLeases
from application.ports.shared import SharedPart
from domain.redis_address import RedisAddress
from tests.contracts.shared_leases import DIGEST
from tests.contracts.storage import HUB
from tests.fakes.events import RecordingEventSink

async def main():
    connection = RedisConnection(RedisAddress.parse(sys.argv[1]), RecordingEventSink(), 1.0)
    lease = await RedisLeases(connection, "holder", float(sys.argv[2])).lease(HUB, DIGEST)
    for offset in range(10**6):
        is_lost = lease.is_lost
        counts = await lease.publish(SharedPart(f"held/{offset}", offset, 1, "00"), None)
        print(offset, is_lost, counts, flush=True)
        await asyncio.sleep(0.02)

asyncio.run(main())
"""


@asynccontextmanager
async def replica(url: str, name: str, seconds: float = SECONDS) -> AsyncIterator[RedisLeases]:
    connection = RedisConnection(RedisAddress.parse(url), RecordingEventSink(), WAIT, trial_after=0)
    try:
        yield RedisLeases(connection, name, seconds)
    finally:
        await connection.close()


@in_loop
async def test_a_lease_is_renewed_as_long_as_its_holder_lives(valkey_server: Valkey) -> None:
    valkey_server.flush()
    async with replica(valkey_server.url, "one") as one, replica(valkey_server.url, "other") as other:
        lease, follower = await held(one), await followed(other)
        for _ in range(6):
            await asyncio.sleep(SECONDS / 4)
            assert (await follower.look()).is_held
            assert not lease.is_lost
        await lease.release(keep=False)
        await asyncio.sleep(2.5 * SECONDS)
        assert valkey_server.command("DBSIZE") == 0, "nothing of a released lease stays or comes back"


@in_loop
async def test_parts_are_forgotten_after_a_day(valkey_server: Valkey) -> None:
    valkey_server.flush()
    async with replica(valkey_server.url, "one") as one:
        lease = await held(one)
        await lease.publish(part(0, lease), 20)
        await lease.release(keep=True)
        kept = _keys(valkey_server, "parts") + _keys(valkey_server, "total")
        assert len(kept) == 2
        for key in kept:
            remaining = valkey_server.command("TTL", key)
            assert isinstance(remaining, int)
            assert 23 * 3600 < remaining <= 24 * 3600


@in_loop
async def test_a_replica_that_was_paused_beyond_its_lease_knows_it_and_publishes_nothing(valkey_server: Valkey) -> None:
    valkey_server.flush()
    with process(HOLDER, valkey_server.url, str(SECONDS)) as holder:
        _, is_lost, counts = (await asyncio.to_thread(line_of, holder)).split()
        assert (is_lost, counts) == ("False", "True")
        pause(holder.pid)
        async with replica(valkey_server.url, "other") as other:
            follower = await followed(other)
            before = await follower.look()
            assert before.is_held
            await asyncio.sleep(1.2 * SECONDS)
            lease = await held(other)
            parts = (await follower.look()).parts
            assert lease.found.parts == parts
            resume(holder.pid)
            last = [line.split() for line in [await asyncio.to_thread(line_of, holder) for _ in range(80)]]
            lost = next(
                number for number, (_, is_lost, counts) in enumerate(last) if is_lost == "True" or counts == "False"
            )
            # One request may have been under way when the process was paused. It does not count.
            assert all(counts == "False" for _, _, counts in last[lost:])
            assert all(is_lost == "True" for _, is_lost, _ in last[lost + 1 :])
            assert (await follower.look()).parts == parts, "the late parts do not count"
            assert await lease.publish(part(10**6, lease), None)
            await lease.release(keep=False)


@in_loop
async def test_the_lease_of_a_killed_replica_ends_and_its_parts_are_found(valkey_server: Valkey) -> None:
    valkey_server.flush()
    async with replica(valkey_server.url, "other") as other:
        with process(HOLDER, valkey_server.url, str(SECONDS)) as holder:
            await asyncio.to_thread(line_of, holder)
            follower = await followed(other)
            holder.kill()
            holder.wait()
        began = asyncio.get_running_loop().time()
        looks = 0
        while (await follower.look()).is_held:
            looks += 1
            await asyncio.sleep(0.05)
        assert asyncio.get_running_loop().time() - began < SECONDS + 1
        lease = await held(other)
        assert lease.found.parts
        await lease.release(keep=False)


@in_loop
async def test_a_server_that_lost_everything_gets_the_lease_and_its_parts_again(valkey_server: Valkey) -> None:
    valkey_server.flush()
    async with replica(valkey_server.url, "one") as one, replica(valkey_server.url, "other") as other:
        lease, follower = await held(one), await followed(other)
        parts = [part(offset, lease) for offset in (0, 10, 20)]
        for each in parts[:2]:
            await lease.publish(each, 30)
        assert len((await follower.look()).parts) == 2
        valkey_server.flush()
        assert await follower.look() == SharedProgress((), None, is_held=False)
        await asyncio.sleep(SECONDS / 2)  # the next renewal
        assert await follower.look() == SharedProgress(tuple(parts[:2]), 30, is_held=True)
        assert isinstance(await other.lease(HUB, DIGEST), FollowedLease)
        assert await lease.publish(parts[2], None)
        assert await follower.look() == SharedProgress(tuple(parts), 30, is_held=True)
        await lease.release(keep=False)


@in_loop
async def test_a_lease_that_began_after_a_release_is_restored_as_well(valkey_server: Valkey) -> None:
    valkey_server.flush()
    async with replica(valkey_server.url, "one") as one, replica(valkey_server.url, "other") as other:
        await (await held(other)).release(keep=True)
        lease = await held(one)
        for key in _keys(valkey_server, "lease"):
            valkey_server.command("DEL", key)
        assert await lease.publish(part(0, lease), None)
        assert (await (await followed(other)).look()).parts == (part(0, lease),)
        await lease.release(keep=False)


@in_loop
async def test_a_lease_that_another_replica_took_after_a_flush_is_lost(valkey_server: Valkey) -> None:
    valkey_server.flush()
    async with replica(valkey_server.url, "one") as one, replica(valkey_server.url, "other") as other:
        lost = await held(one)
        await lost.publish(part(0, lost), 30)
        valkey_server.flush()
        lease = await held(other)
        assert lease.found.parts == ()
        assert not await lost.publish(part(10, lost), None)
        assert lost.is_lost
        new = part(0, lease)
        assert await lease.publish(new, None)
        await lost.release(keep=False)
        assert (await (await followed(one)).look()).parts == (new,)
        await lease.release(keep=False)


@in_loop
async def test_a_part_that_could_not_be_published_follows_with_the_next_request(valkey_server: Valkey) -> None:
    valkey_server.flush()
    async with (
        gate(valkey_server.port) as relay,
        replica(f"redis://127.0.0.1:{relay.port}", "one", 20) as one,
        replica(valkey_server.url, "other") as other,
    ):
        lease, follower = await held(one), await followed(other)
        assert await lease.publish(part(0, lease), None)
        relay.is_silent = True
        assert await lease.publish(part(10, lease), None)
        # The request had an effect if it was only late: its part must not be there twice.
        relay.is_silent = False
        await asyncio.sleep(WAIT / 2)
        assert await lease.publish(part(20, lease), 30)
        assert [each.offset for each in (await follower.look()).parts] == [0, 10, 20]
        await lease.release(keep=False)


@in_loop
async def test_an_older_list_of_the_same_length_is_replaced(valkey_server: Valkey) -> None:
    """The server that is promoted may have what an earlier holder had published."""
    valkey_server.flush()
    async with replica(valkey_server.url, "one") as one, replica(valkey_server.url, "other") as other:
        lease, follower = await held(one), await followed(other)
        parts = [part(offset, lease) for offset in (0, 10)]
        await lease.publish(parts[0], 20)
        (key,) = _keys(valkey_server, "parts")
        valkey_server.command("DEL", key)
        valkey_server.command("RPUSH", key, "an older version", "0 99 00 an/older/part")
        assert (await follower.look()).parts[0].size == 99
        await lease.publish(parts[1], None)
        assert (await follower.look()).parts == tuple(parts)
        await lease.release(keep=False)


@in_loop
async def test_a_lease_that_was_taken_over_is_not_restored_when_its_successor_has_ended(valkey_server: Valkey) -> None:
    valkey_server.flush()
    async with replica(valkey_server.url, "one") as one, replica(valkey_server.url, "other") as other:
        lost = await held(one)
        await lost.publish(part(0, lost), 20)
        lease = await held(one)
        await lease.release(keep=False)
        assert not await lost.publish(part(10, lost), None)
        assert (await held(other)).found == SharedProgress((), None, is_held=False)


@in_loop
async def test_a_lease_is_lost_when_the_server_was_away_for_its_time(valkey_server: Valkey) -> None:
    valkey_server.flush()
    async with gate(valkey_server.port) as relay, replica(f"redis://127.0.0.1:{relay.port}", "one") as one:
        lease = await held(one)
        relay.is_silent = True
        await asyncio.sleep(1.1 * SECONDS)
        assert lease.is_lost
        assert not await lease.publish(part(0, lease), None)
        await lease.release(keep=True)


@in_loop
async def test_an_unreadable_list_of_parts_is_not_used(valkey_server: Valkey) -> None:
    valkey_server.flush()
    async with replica(valkey_server.url, "one") as one, replica(valkey_server.url, "other") as other:
        lease, follower = await held(one), await followed(other)
        await lease.publish(part(0, lease), 20)
        (key,) = _keys(valkey_server, "parts")
        for wrong in ("x", "0 1", "one 1 00 key", b"\xff\xff 1 00 key"):
            valkey_server.command("RPUSH", key, wrong)
            with pytest.raises(SharedUnavailable, match="malformed"):
                await follower.look()
            valkey_server.command("RPOP", key)
        assert (await follower.look()).parts
        await lease.release(keep=False)


@in_loop
async def test_a_lease_survives_a_failover_by_sentinel(tmp_path: Path) -> None:
    with valkey(tmp_path) as first, valkey(tmp_path) as second:
        second.follow(first.port)
        with sentinel(tmp_path, first, "mirror") as port:
            url = f"redis+sentinel://127.0.0.1:{port}/mirror"
            async with replica(url, "one", LONG) as one, replica(url, "other", LONG) as other:
                lease = await held(one)
                assert await lease.publish(part(0, lease), 20)
                assert first.command("WAIT", 1, 10_000) == 1, "the other server has the lease"
                first.kill()
                assert await lease.publish(part(10, lease), None), "the part waits for the next primary"
                assert isinstance(await _taken(other), FollowedLease)
                await _renewed(lease)
                progress = await (await followed(other)).look()
                assert [each.offset for each in progress.parts][:2] == [0, 10]
                assert (progress.total, progress.is_held) == (20, True)
                await lease.release(keep=False)


@in_loop
async def test_a_lease_that_the_promoted_server_never_had_is_restored_by_its_holder(tmp_path: Path) -> None:
    """The address leads to the primary, as a service of Kubernetes or a load balancer."""
    with valkey(tmp_path) as first, valkey(tmp_path) as second:
        async with gate(first.port) as replication, gate(first.port) as service:
            await asyncio.to_thread(second.follow, replication.port)
            url = f"redis://127.0.0.1:{service.port}"
            async with replica(url, "one", LONG) as one, replica(url, "other", LONG) as other:
                replication.is_silent = True
                lease, follower = await held(one), await followed(other)
                assert await lease.publish(part(0, lease), 20)
                first.kill()
                replication.cut()
                second.promote()
                service.backend_port = second.port
                assert second.command("DBSIZE") == 0, "the lease did not reach the other server"
                assert await lease.publish(part(10, lease), None)
                await _renewed(lease)
                progress = await follower.look()
                assert [each.offset for each in progress.parts][:2] == [0, 10]
                assert (progress.total, progress.is_held) == (20, True)
                await lease.release(keep=False)


@in_loop
async def test_after_a_failover_that_lost_the_lease_two_replicas_may_hold_it_but_only_one_publishes(
    tmp_path: Path,
) -> None:
    with valkey(tmp_path) as first, valkey(tmp_path) as second:
        async with gate(first.port) as service:
            url = f"redis://127.0.0.1:{service.port}"
            async with replica(url, "one", LONG) as one, replica(url, "other", LONG) as other:
                lost = await held(one)
                assert await lost.publish(part(0, lost), 20)
                first.kill()
                service.backend_port = second.port
                lease = await _taken(other)
                assert not isinstance(lease, FollowedLease)
                assert lease.id != lost.id, "ids are random, so the objects of both are in different places"
                assert lease.found == SharedProgress((), None, is_held=False)
                assert not await lost.publish(part(10, lost), None)
                assert lost.is_lost
                new = part(0, lease)
                assert await lease.publish(new, 20)
                assert await (await followed(one)).look() == SharedProgress((new,), 20, is_held=True)
                await lease.release(keep=False)


@given(
    steps=st.lists(
        st.tuples(st.sampled_from(("lease", "publish", "publish", "keep", "forget", "flush")), st.integers(0, 99)),
        max_size=25,
    )
)
@settings(max_examples=40)
def test_whatever_is_lost_one_lease_publishes_and_no_part_is_there_twice(
    steps: list[tuple[str, int]], valkey_server: Valkey
) -> None:
    asyncio.run(_lose(steps, valkey_server))


async def _lose(steps: list[tuple[str, int]], server: Valkey) -> None:
    server.flush()
    async with replica(server.url, "one", LONG) as one, replica(server.url, "other", LONG) as other:
        leases: list[SharedLease] = []
        published: set[str] = set()
        for offset, (action, number) in enumerate(steps):
            lease = leases[number % len(leases)] if leases else None
            if action == "flush":
                server.flush()
            elif action == "lease" and not isinstance(
                new := await (one, other)[number % 2].lease(HUB, DIGEST), FollowedLease
            ):
                leases.append(new)
            elif action == "publish" and lease and await lease.publish(part(offset, lease), None):
                published.add(part(offset, lease).key)
            elif action in {"keep", "forget"} and lease:
                await lease.release(keep=action == "keep")
        owners = [await lease.publish(part(100, lease), None) for lease in leases]
        assert owners.count(True) <= 1
        for lease in leases:
            await lease.release(keep=True)
        last = await held(one)
        await last.release(keep=True)
        keys = [each.key for each in last.found.parts]
        assert len(keys) == len(set(keys))
        assert set(keys) <= published | {part(100, lease).key for lease in leases}


def _keys(server: Valkey, kind: str) -> list[str]:
    keys = server.command("KEYS", f"dip:1:{kind}:*")
    assert isinstance(keys, list)
    return [key.decode() for key in keys]


async def _taken(leases: RedisLeases) -> SharedLease | FollowedLease:
    """The answer of the server, as soon as one answers."""
    async with asyncio.timeout(40):
        while True:
            try:
                return await leases.lease(HUB, DIGEST)
            except SharedUnavailable:
                await asyncio.sleep(0.2)


async def _renewed(lease: SharedLease) -> None:
    """Returns when a server has renewed the lease."""
    before = lease._renewed_at
    offset = 1000
    async with asyncio.timeout(40):
        while lease._renewed_at == before:
            await asyncio.sleep(0.2)
            assert await lease.publish(part(offset, lease), None)
            offset += 10
