"""Blobs that several replicas want."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from domain.byte_ranges import ByteRange
from domain.errors import Denied
from domain.events import ContentDamaged
from tests.application.support.line import LARGE, LARGE_DIGEST, MIB, elapsed, once, seconds
from tests.application.support.replicas import Replicas
from tests.application.support.service import IMAGE_CONTENT, LAYER, LAYER_DIGEST, NAME, PRIVATE
from tests.application.support.watched import ALICES, BOBS, NOBODYS
from tests.fakes.shared_leases import LEASE_SECONDS


async def published(replicas: Replicas) -> None:
    """Waits until no replica writes to the store."""
    for one in replicas.all:
        await one.service.parts.replicas().finished()


def keys_of_parts(replicas: Replicas) -> list[str]:
    return list(replicas.store.contents)


@pytest.mark.parametrize("connections", [1, 4])
def test_many_clients_of_two_replicas_cost_the_upstream_one_blob(connections: int) -> None:
    replicas = Replicas(download_connections=connections)

    async def act() -> list[bytes]:
        return await asyncio.gather(*(one.read() for one in replicas.all for _ in range(6)))

    assert set(replicas.run(act())) == {LARGE}
    assert replicas.fetched < 1.02 * len(LARGE)
    assert [one.stored for one in replicas.all] == [LARGE, LARGE]
    assert [one.roles[0] for one in replicas.all] == ["led", "followed"]
    assert replicas.all[1].roles[1:] in ([], ["found"])  # the end is in the record, if the leader was quicker


def test_a_client_of_the_other_replica_receives_the_bytes_soon() -> None:
    replicas = Replicas(download_connections=1)
    first, second = replicas.all

    async def act() -> tuple[float, float]:
        reading = first.reading()
        await first.received(1)
        following = second.reading()
        await second.received(1)
        at_first = elapsed()
        await reading
        at_end = elapsed()
        assert await following == LARGE
        return at_first, elapsed() - at_end

    at_first, behind = replicas.run(act())
    assert at_first < 2.2  # the first part has 1 MiB, and a connection brings 1 MiB per second
    assert behind < 0.5


def test_a_blob_that_the_store_has_is_not_fetched_again() -> None:
    replicas = Replicas()
    first, second = replicas.all

    async def act() -> tuple[Any, float]:
        assert await first.read() == LARGE
        await published(replicas)
        return await seconds(second.read())

    got, duration = replicas.run(act())
    assert got == second.stored == LARGE
    assert duration < 1
    assert replicas.fetched < 1.02 * len(LARGE)
    assert second.roles == ["found"]


def test_small_blobs_and_manifests_are_shared() -> None:
    replicas = Replicas()
    first, second = replicas.all

    async def pull(one: Any) -> tuple[bytes, bytes]:
        manifest = await one.service.manifest(ALICES, PRIVATE)
        return manifest.content, await one.read(digest=LAYER_DIGEST)

    async def act() -> list[tuple[bytes, bytes]]:
        got = [await pull(first)]
        await published(replicas)
        await asyncio.sleep(1)  # the manifest is written in the background
        return [*got, await pull(second)]

    assert replicas.run(act()) == [(IMAGE_CONTENT, LAYER)] * 2
    assert [fetch.resource.kind.value for fetch in replicas.upstream.gets] == ["manifest", "blob"]


@pytest.mark.parametrize("header", [BOBS, NOBODYS])
def test_the_store_proves_no_right(header: str) -> None:
    """The upstream refuses bob and anonymous callers in another way than alice: its answer decides."""
    replicas = Replicas()
    first, second = replicas.all

    async def act() -> bytes:
        await first.read()
        await published(replicas)
        replicas.upstream.refuse = lambda fetch: Denied("no")
        return await second.read(header)

    with pytest.raises(Denied):
        replicas.run(act())


@pytest.mark.parametrize("ranges", [(ByteRange(0, 9),), (ByteRange(len(LARGE), None),)])
def test_a_range_proves_no_right_either(ranges: tuple[ByteRange, ...]) -> None:
    replicas = Replicas()
    first, second = replicas.all

    async def act() -> bytes:
        await first.read(name=NAME)
        await published(replicas)
        await second.read(NOBODYS, name=NAME, digest=LAYER_DIGEST)  # gives anonymous callers a grant for the repository
        replicas.upstream.refuse = lambda fetch: Denied("no")
        return await second.read(NOBODYS, name=NAME, ranges=ranges)

    with pytest.raises(Denied):
        replicas.run(act())
    assert LARGE_DIGEST in replicas.store.kept


def test_ranges_are_read_from_the_store() -> None:
    replicas = Replicas()
    first, second = replicas.all

    async def act() -> list[bytes]:
        await first.read()
        await published(replicas)
        spans = [(MIB - 5, MIB + 5), (9 * MIB, 10 * MIB - 1), (len(LARGE) - 9, len(LARGE) - 1)]
        return [await second.read(ranges=(ByteRange(*span),)) for span in spans]

    assert replicas.run(act()) == [LARGE[MIB - 5 : MIB + 6], LARGE[9 * MIB : 10 * MIB], LARGE[-9:]]
    assert replicas.fetched < 1.02 * len(LARGE)


def test_content_of_another_upstream_is_fetched_again() -> None:
    replicas = Replicas()
    first, second = replicas.all

    async def act() -> bytes:
        await first.read()
        await published(replicas)
        record = replicas.store.kept[LARGE_DIGEST]
        replicas.store.kept[LARGE_DIGEST] = replace(record, senders=frozenset())
        replicas.knowledge.sent.clear()
        return await second.read()

    assert replicas.run(act()) == LARGE
    assert 2 * len(LARGE) <= replicas.fetched < 2.02 * len(LARGE)


def test_an_empty_index_costs_no_second_download() -> None:
    """The record names the upstreams that have sent the content."""
    replicas = Replicas()
    first, second = replicas.all

    async def act() -> bytes:
        await first.read()
        await published(replicas)
        replicas.knowledge.sent.clear()
        return await second.read()

    assert replicas.run(act()) == LARGE
    assert replicas.fetched < 1.02 * len(LARGE)


# --- a replica that ends ---


def test_a_follower_takes_over_when_the_leading_replica_is_killed() -> None:
    replicas = Replicas(download_connections=1)
    first, second = replicas.all

    async def act() -> float:
        reading = first.reading()
        await first.received(1)
        following = second.reading()
        await second.received(6 * MIB)
        await first.crash()
        at = elapsed()
        await second.received(9 * MIB)
        stall = elapsed() - at
        assert await following == LARGE
        await asyncio.gather(reading, return_exceptions=True)
        return stall

    # The part that was being filled, and at most what arrives until the lease ends.
    assert replicas.run(act()) < LEASE_SECONDS + 2 + 3
    assert replicas.fetched < len(LARGE) + 5 * MIB
    assert second.roles == ["followed", "took_over"]


def test_a_new_replica_continues_from_the_parts_of_a_killed_one() -> None:
    replicas = Replicas(download_connections=1)
    first, second = replicas.all

    async def act() -> bytes:
        reading = first.reading()
        await first.received(9 * MIB)
        await first.crash()
        await asyncio.gather(reading, return_exceptions=True)
        await asyncio.sleep(LEASE_SECONDS)
        got = await second.read()
        await published(replicas)
        return got

    assert replicas.run(act()) == LARGE
    assert replicas.fetched < len(LARGE) + 3 * MIB
    assert second.roles == ["took_over"]
    leases = {key.split("/")[-2] for key in keys_of_parts(replicas)}
    assert len(leases) == 2  # the parts of the first lease are not written again
    assert len(keys_of_parts(replicas)) == len({key.split("/")[-1] for key in keys_of_parts(replicas)})


def test_the_parts_of_a_replica_that_was_stopped_beyond_its_lease_do_not_count() -> None:
    replicas = Replicas(download_connections=1)
    first, second = replicas.all

    async def act() -> tuple[bytes, bytes]:
        reading = first.reading()
        await first.received(3 * MIB)
        first.cut_off()
        await asyncio.sleep(LEASE_SECONDS)
        following = second.reading()
        await second.received(5 * MIB)
        first.leases.is_cut_off = False
        got = await asyncio.gather(reading, following)
        await published(replicas)
        return got

    assert replicas.run(act()) == [LARGE, LARGE]
    assert second.roles == ["took_over"]
    assert replicas.fetched <= 2 * len(LARGE)


# --- the shared tier fails ---


def test_without_the_index_each_replica_fetches_for_itself() -> None:
    replicas = Replicas()
    replicas.index.is_away = True

    async def act() -> list[bytes]:
        return await asyncio.gather(*(one.read() for one in replicas.all for _ in range(5)))

    assert set(replicas.run(act())) == {LARGE}
    assert 2 * len(LARGE) <= replicas.fetched < 2.02 * len(LARGE)
    assert [one.roles for one in replicas.all] == [["alone"], ["alone"]]


def test_an_index_that_fails_midway_ends_nothing() -> None:
    replicas = Replicas(download_connections=1)
    first, second = replicas.all

    async def act() -> list[bytes]:
        readings = [first.reading(), second.reading()]
        await second.received(3 * MIB)
        replicas.index.is_away = True
        return await asyncio.gather(*readings)

    assert replicas.run(act()) == [LARGE, LARGE]
    assert replicas.fetched < 2 * len(LARGE)


def test_a_store_that_fails_midway_ends_nothing() -> None:
    replicas = Replicas(download_connections=1)
    first, second = replicas.all

    async def act() -> list[bytes]:
        readings = [first.reading(), second.reading()]
        await second.received(3 * MIB)
        replicas.store.is_away = True
        return await asyncio.gather(*readings)

    assert replicas.run(act()) == [LARGE, LARGE]
    assert replicas.fetched < 2 * len(LARGE)


def test_a_store_that_is_gone_costs_a_leader_no_time() -> None:
    alone = Replicas(1)
    _, without = alone.run(seconds(alone.all[0].read()))
    replicas = Replicas(1)
    replicas.store.is_away = True
    got, duration = replicas.run(seconds(replicas.all[0].read()))
    assert got == LARGE
    assert duration < 1.1 * without


def test_a_slow_store_costs_the_clients_of_the_leader_no_time() -> None:
    alone = Replicas(1)
    _, without = alone.run(seconds(alone.all[0].read()))
    replicas = Replicas(1)
    replicas.store.seconds = 0.2
    got, duration = replicas.run(seconds(replicas.all[0].read()))
    assert got == LARGE
    assert duration < 1.1 * without


# --- damage ---


def test_a_flipped_bit_in_a_stored_part_is_found_and_healed() -> None:
    replicas = Replicas()
    first, second = replicas.all

    async def act() -> bytes:
        await first.read()
        await published(replicas)
        replicas.store.damage(keys_of_parts(replicas)[-1])
        got = await second.read()
        await published(replicas)
        third = replicas.added(3)
        replicas.all.append(third)
        await third.logged_in()
        assert await third.read() == LARGE
        assert third.roles == ["found"]
        return got

    assert replicas.run(act()) == LARGE
    assert second.count(ContentDamaged) == 1
    assert second.roles == ["found", "led"]
    assert replicas.fetched < 2 * len(LARGE)


def test_wrong_bytes_of_the_upstream_reach_no_record() -> None:
    replicas = Replicas(download_connections=1)
    first, second = replicas.all
    wrong = bytes([LARGE[0] ^ 1]) + LARGE[1:]
    second.change = once(lambda _: True, lambda answer: _with_content(answer, wrong))

    async def act() -> list[Any]:
        got = await asyncio.gather(first.read(), return_exceptions=True)
        await published(replicas)
        return [*got, await second.read()]

    failed, healed = replicas.run(act())
    assert isinstance(failed, Exception)
    assert healed == LARGE


def _with_content(answer: Any, content: bytes) -> Any:
    return replace(answer, content=content)
