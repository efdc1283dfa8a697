"""Several connections for one blob: how many there are, how much the upstream sends, and ranges of a cold blob."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from itertools import pairwise
from pathlib import Path

import pytest

from tests.e2e.support.cached_mirror import KIB, MIB, Cached, FaultyUpstream, Made, cached, faulty_upstream, pull_over
from tests.e2e.support.draining_clients import Drain
from tests.e2e.support.processes import wait_until
from tests.e2e.support.service import Serving
from tests.e2e.support.several_connections import RATE, SIZE, are_right, parts, pulling, sent

pytestmark = pytest.mark.real()


@pytest.fixture(scope="module")
def upstream(workplace: Path) -> Iterator[FaultyUpstream]:
    with faulty_upstream(workplace, workplace / "several-upstream") as running_one:
        yield running_one


@pytest.fixture(scope="module")
def service(serve: Serving, upstream: FaultyUpstream, workplace: Path) -> Iterator[Cached]:
    with cached(serve, upstream, workplace / "several-cache") as found:
        yield found
    assert found.cache.wrong() == []


@pytest.fixture(scope="module")
def single(serve: Serving, upstream: FaultyUpstream, workplace: Path) -> Iterator[Cached]:
    """A service that waits for a silent upstream for longer than the clients of the tests wait."""
    settings = {"DOWNLOAD_CONNECTIONS": "1", "UPSTREAM_TIMEOUT": "60", "DELIVERY_IDLE": "180"}
    with cached(serve, upstream, workplace / "single-cache", **settings) as found:
        yield found
    assert found.cache.wrong() == []


@pytest.fixture
def blob(upstream: FaultyUpstream) -> Iterator[Made]:
    """A blob of which each connection brings 4 MiB a second."""
    made = upstream.blob(SIZE)
    upstream.control({"path": "/blobs/", "rate": RATE})
    yield made
    upstream.control()


def test_twenty_clients_on_both_workers_cost_one_blob(service: Cached, upstream: FaultyUpstream) -> None:
    blob = upstream.blob(3 * SIZE)
    upstream.control({"path": blob.digest, "rate": 2 * RATE})
    clients = [Drain(service.proxy.port, blob.path, digest=True) for _ in range(20)]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    assert {client.digest for client in clients} == {blob.digest}
    assert parts(upstream, blob), "there were several connections"
    assert sent(upstream, blob) <= 1.02 * blob.size
    assert service.cache.holds(blob)


def test_one_connection_makes_one_request(single: Cached, blob: Made) -> None:
    with pulling(single, blob) as clients:
        assert are_right(clients, blob)
    assert [(entry["range"], entry["sent"]) for entry in single.upstream.gets(blob.path)] == [(None, SIZE)]


def test_the_maximum_of_connections_to_the_upstream_is_kept(serve: Serving, tmp_path: Path) -> None:
    """Each worker may use two of the four connections. It would use more for a blob that is so slow."""
    with (
        faulty_upstream(tmp_path, tmp_path / "files") as upstream,
        cached(serve, upstream, tmp_path / "cache", UPSTREAM_MAX_CONNECTIONS="4") as service,
        service.proxy.connection_to_each_worker() as connections,
        ThreadPoolExecutor() as pool,
    ):
        blobs = [upstream.blob(SIZE) for _ in connections]
        upstream.control({"path": "/blobs/", "rate": RATE // 2})
        clients = [pool.submit(pull_over, *each) for each in zip(connections, [one.path for one in blobs], strict=True)]
        for client, blob in zip(clients, blobs, strict=True):
            assert are_right([client], blob)
            assert parts(upstream, blob), "there were several connections"
        assert upstream.state("most") <= 4


# --- ranges ---


def ranges(blob: Made, count: int) -> list[str]:
    edges = [blob.size * number // count for number in range(count + 1)]
    return [f"bytes={start}-{stop - 1}" for start, stop in pairwise(edges)]


def get_ranges(connection: HTTPConnection, blob: Made, wanted: list[str]) -> bytes:
    """The bytes of these ranges, requested one after the other."""
    pulled = [pull_over(connection, blob.path, {"Range": each}) for each in wanted]
    assert {one.status for one in pulled} == {206}
    return b"".join(one.body for one in pulled)


@pytest.mark.parametrize("rate", [None, RATE], ids=["fast", "slow"])
def test_four_clients_that_get_the_blob_in_ranges_cost_one_blob(
    service: Cached, upstream: FaultyUpstream, rate: int | None
) -> None:
    blob = upstream.blob(SIZE)
    upstream.control({"path": blob.digest, "rate": rate})
    wanted = ranges(blob, 12)
    with (
        service.proxy.connection_to_each_worker() as some,
        service.proxy.connection_to_each_worker() as others,
        ThreadPoolExecutor() as pool,
    ):
        clients = [pool.submit(get_ranges, one, blob, wanted) for one in (*some, *others)]
        assert [client.result() == blob.content for client in clients] == [True] * 4
    assert sent(upstream, blob) <= 1.1 * SIZE


def test_a_range_that_another_client_has_requested_is_not_fetched_again(service: Cached, blob: Made) -> None:
    wanted = [ranges(blob, 12)[5]]
    content = blob.content[SIZE * 5 // 12 : SIZE * 6 // 12]
    with service.proxy.connection_to_each_worker() as connections, ThreadPoolExecutor() as pool:
        together = [pool.submit(get_ranges, one, blob, wanted) for one in connections]
        assert [client.result() == content for client in together] == [True] * 2
        encoded = blob.digest.partition(":")[2]
        assert wait_until(lambda: any(encoded in name for name in service.cache.abandoned()), 20), "it has ended"
        assert [get_ranges(one, blob, wanted) == content for one in connections] == [True] * 2
    assert sent(service.upstream, blob) == len(content)


def test_a_range_far_ahead_of_a_running_download_does_not_wait_for_it(single: Cached, blob: Made) -> None:
    """The download waits until the ranges have arrived. Each of them gets a connection of its own."""
    single.upstream.control({"path": blob.digest, "ranged": False, "hold_after": MIB})
    with single.proxy.connection_to_each_worker() as connections, pulling(single, blob) as clients:
        assert single.upstream.holds()
        for number, connection in enumerate(connections):
            first = SIZE - MIB + number * 64 * KIB
            body = get_ranges(connection, blob, [f"bytes={first}-{first + 16 * KIB - 1}"])
            assert body == blob.content[first : first + 16 * KIB]
        assert single.upstream.holds()
        single.upstream.control()
        assert are_right(clients, blob)
