"""The simulation of replicas gives in small cases what exact arithmetic gives."""

from dataclasses import replace
from itertools import pairwise

import pytest

from benchmarks import replicas
from benchmarks.replicas import GIB, Burst, Lru, Parameters, Prices, Shares
from domain.part_layout import MIB

# All values are sums of powers of two, so that the results are exact.
SMALL = Parameters(
    fetch_rate=1 / 1024, upstream_rate=4 / 1024, store_rate=2 / 1024, store_line=1, store_latency=0.25, look=0.125,
    parts_ahead=1, blob=1 / 1024, cache=4, shared=8, image=1, pulls=4, days=1,
)  # fmt: skip
"""One download brings 1 MiB a second, all together 4, a request to the store 2; the blob has 1 MiB."""


@pytest.mark.parametrize(("count", "seconds"), [(1, 1), (4, 1), (8, 2), (64, 16)])
def test_replicas_alone_divide_the_line_to_the_upstream(count: int, seconds: float) -> None:
    assert replicas.burst_alone(SMALL, count) == Burst(seconds, count / 1024)


def test_a_single_replica_with_the_shared_tier_takes_as_long_as_alone() -> None:
    assert replicas.burst_shared(SMALL, 1) == Burst(1, 1 / 1024)


def test_a_follower_has_a_blob_of_one_part_after_it_was_fetched_written_seen_and_read() -> None:
    # Fetched at 1 s; written 0.25 + 0.5 s later; seen 0.125 s later; read 0.25 + 0.5 s later.
    assert replicas.burst_shared(SMALL, 2) == Burst(2.625, 1 / 1024)


def test_the_second_part_is_fetched_while_the_first_one_is_written_and_read() -> None:
    assert replicas.burst_shared(replace(SMALL, blob=2 / 1024), 2) == Burst(3.625, 2 / 1024)


def test_a_slow_store_delays_each_part_by_the_one_before_it() -> None:
    # Each part of 1 MiB is written in 0.25 + 4 s, the first one from 1 s on, and read in 4.25 s.
    slow = replace(SMALL, blob=2 / 1024, store_rate=1 / 4096)
    assert replicas.burst_shared(slow, 2) == Burst(1 + 2 * 4.25 + 0.125 + 4.25, 2 / 1024)
    # Two parts at the same time: the second one is fetched at 2 s.
    assert replicas.burst_shared(replace(slow, uploads=2, parts_ahead=2), 2) == Burst(2 + 4.25 + 0.125 + 4.25, 2 / 1024)


def test_followers_divide_the_line_of_the_store() -> None:
    # Nine followers on 2.25 MiB a second: each reads a part in 0.25 + 4 s.
    assert replicas.burst_shared(replace(SMALL, store_line=2.25 / 1024), 10).seconds == 1 + 0.75 + 0.125 + 4.25


def test_the_parts_are_those_of_the_service() -> None:
    found = list(replicas.parts(40 * MIB))
    assert [(stop - start) // MIB for start, stop in found] == [1, 1, 2, 4, 8, 16, 8]
    assert all(one[1] == other[0] for one, other in pairwise(found))


def test_the_cache_removes_the_least_recently_used_image() -> None:
    cache = Lru(2)
    asked = [(1, 0), (2, 0), (1, 0), (3, 0), (2, 0), (1, 0)]
    assert [cache.holds(image) for image in asked] == [False, False, True, False, False, False]


def test_shares_count_the_second_half_of_the_requests() -> None:
    misses = [[(0, (1, 0)), (2, (2, 0)), (3, (3, 0))], [(1, (1, 0)), (2, (2, 0))]]
    # Of four requests, three are misses; one of these is in the store, where the other replica has put it.
    assert replicas.shares(SMALL, misses) == (Shares(3 / 4), Shares(2 / 4, 1 / 4))


def test_a_full_store_loses_the_least_recently_used_image() -> None:
    misses = [[(0, (1, 0)), (1, (2, 0)), (2, (1, 0)), (3, (2, 0))]]
    assert replicas.shares(replace(SMALL, shared=1), misses)[1] == Shares(1)
    assert replicas.shares(replace(SMALL, shared=2), misses)[1] == Shares(0, 1)


def test_a_cache_that_holds_all_images_misses_each_of_them_once() -> None:
    p = replace(SMALL, images=5, cache=5, pulls=200, rebuilt=1e9)
    found = replicas.local_misses(p, 1)
    assert sorted(image for _, image in found) == sorted({image for _, image in found})
    assert len(found) == 5


def test_a_cache_without_room_misses_every_request() -> None:
    assert len(replicas.local_misses(replace(SMALL, images=5, cache=0, pulls=200), 1)) == 200


def test_every_image_is_rebuilt_once_in_its_time() -> None:
    p = replace(SMALL, images=3, pulls=10, days=2, rebuilt=1)
    found = list(replicas.versions(p, [1] * 20))
    assert len(set(found)) == 3  # the first build ends before the first day is over
    assert max(found.count(image) for image in found) == 10


@pytest.mark.parametrize(
    ("changes", "share", "expected"),
    [
        ({"warm_cpu": 0.5, "line": 100}, Shares(0), 16.0),  # 4 cores / 0.5, twice
        ({"warm_cpu": 0.5, "fetch_cpu": 2, "put_cpu": 2, "line": 100}, Shares(0.25), 16 / 3),  # 4 / (0.5 + 0.5 + 0.5)
        ({"warm_cpu": 0.5, "fetch_cpu": 1, "get_cpu": 1, "line": 100}, Shares(0, 0.25), 8.0),  # 4 / (0.5 + 0.25 * 2)
        ({"warm_cpu": 0.125, "line": 1}, Shares(0), 2.0),
        ({"warm_cpu": 0.125, "fetch_cpu": 0, "put_cpu": 0, "line": 1}, Shares(0.25), 1.6),  # the line also has uploads
        ({"upstream_rate": 0.25, "line": 100}, Shares(0.5), 0.5),
        ({"store_line": 0.25, "line": 100}, Shares(0, 0.5), 0.5),
    ],
)
def test_the_first_limit_gives_the_throughput(changes: dict[str, float], share: Shares, expected: float) -> None:
    p = replace(Parameters(cores=4, upstream_rate=100, store_line=100), **changes)
    assert replicas.throughput(p, 2, share, is_shared=True) == pytest.approx(expected)


def test_replicas_alone_write_nothing_to_a_store() -> None:
    p = Parameters(cores=4, upstream_rate=100, warm_cpu=0.5, fetch_cpu=2, put_cpu=2, line=100)
    assert replicas.throughput(p, 2, Shares(0.25), is_shared=False) == 8  # 2 * 4 / (0.5 + 0.5)


def test_costs_without_misses_are_those_of_the_machines_and_of_the_tier() -> None:
    p = Parameters(images=1, cache=10, shared=1000, image=256, rebuilt=1e9, days=2)
    found = replicas.costs(p, Prices(replicas=2, replica_hour=1, disk=0.5, stored=0.25, index_hour=0.5))
    assert found["machines"] == (1460, 1460)
    assert found["disks of the replicas"] == pytest.approx((2 * 10 * GIB / 1e9 * 0.5,) * 2)
    assert found["stored bytes"] == pytest.approx((0, 1000 * GIB / 1e9 * 0.25))
    assert found["Valkey"] == (0, 365)


def test_costs_of_misses_are_those_of_their_bytes_and_requests() -> None:
    # Neither cache has room, so every byte comes from the upstream and is written: a million GB, in parts and a record.
    p = Parameters(images=3, cache=0, shared=0, image=256, days=1)
    found = replicas.costs(p, Prices(replicas=2, gateway=0.5, put=1, get=100))
    assert found["bytes from upstreams"] == (500_000, 500_000)
    parts_of_image = 5 + (256 * 1024 - 16) // 16
    assert found["requests to the store"][1] == pytest.approx(1e15 / (256 * GIB) * (parts_of_image + 1) / 1000)


def test_a_parameter_is_replaced_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        replicas.main(["--set", "no_such=1"])
    assert "no such parameter: no_such" in capsys.readouterr().err
    assert replicas.changed(Parameters(), {"cores": "8", "gateway": "1"}) == Parameters(cores=8)
