"""One of two replicas is partitioned from the shared index: only its way to Valkey leads through a gate. The other
replica, the store and the upstream are not affected.
"""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path

import pytest

from tests.e2e.support.cached_mirror import MIB, NAME, Cached, FaultyUpstream, Made, faulty_upstream, settle
from tests.e2e.support.images import MANIFEST_TYPES, make_image
from tests.e2e.support.plain_http import send
from tests.e2e.support.processes import wait_until
from tests.e2e.support.replicas import Replicas, replicas
from tests.e2e.support.seaweedfs import SeaweedFS
from tests.e2e.support.service import Serving
from tests.e2e.support.tcp_gate import TcpGate, tcp_gate
from tests.e2e.support.timed_clients import TimedClient
from tests.e2e.support.valkey import Valkey

pytestmark = pytest.mark.real()

SIZE = 32 * MIB
RATE = 8 * MIB
"""Bytes per second of each answer of the upstream."""
CLIENTS = 3
"""Of each replica."""
SILENCE_SECONDS = 10.0
"""After this time without bytes of another replica, a replica goes to the upstream by itself."""
BELIEVED_SECONDS = 5.0
DELIVERY_SECONDS = 10.0
"""Every five seconds a replica asks the index, and it tries a failed index after five seconds."""
TOLERANCE = 2.0
"""For requests that this machine delays."""
FAULTS = {"refused": TcpGate.refuse, "silent": TcpGate.silence}
FAULTY = pytest.mark.parametrize("fault", FAULTS)


@dataclass
class Pair:
    """Two replicas. `apart` reaches the index through the gate, `other` directly."""

    apart: Cached
    other: Cached
    both: Replicas
    upstream: FaultyUpstream
    gate: TcpGate

    def limited(self, size: int = SIZE) -> Made:
        """A new blob, which the upstream sends slowly."""
        made = self.upstream.blob(size)
        self.upstream.control({"path": made.digest, "rate": RATE})
        return made

    def share(self) -> bool:
        """Wait until the two replicas fetch a new blob only once."""

        def is_shared() -> bool:
            made = self.upstream.blob(2 * MIB)
            return self.apart.gives(made) and self.other.gives(made) and len(self.gets(made)) == 1

        return wait_until(is_shared, 30, pause=1)

    def gets(self, made: Made) -> list[int]:
        """The bytes that the upstream has sent for each GET of this blob, without those that it sent nothing for."""
        return [entry["sent"] for entry in self.upstream.gets(made.path) if entry["sent"]]


@contextmanager
def partitionable(serve: Serving, tmp_path: Path, index: Valkey, store: SeaweedFS, **settings: str) -> Iterator[Pair]:
    with (
        faulty_upstream(tmp_path, tmp_path / "files") as upstream,
        tcp_gate(index.port) as gate,
        replicas(serve, tmp_path, upstream, index, store, count=0, **settings) as both,
    ):
        database = both.settings["SHARED_INDEX"].rpartition("/")[2]
        apart = both.start(SHARED_INDEX=f"redis://127.0.0.1:{gate.port}/{database}")
        yield Pair(apart, both.start(), both, upstream, gate)
        assert [replica.cache.wrong() for replica in both.running] == [[], []]


@pytest.fixture
def pair(serve: Serving, tmp_path: Path, index: Valkey, store: SeaweedFS) -> Iterator[Pair]:
    with partitionable(serve, tmp_path, index, store, DOWNLOAD_CONNECTIONS="1") as found:
        assert found.share()
        yield found


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2 * CLIENTS) as running:
        yield running


def at_most_two_gets_serve(pair: Pair, made: Made, clients: list[TimedClient]) -> None:
    assert [client.is_right() for client in clients] == [True] * len(clients)
    assert max(client.longest_wait() for client in clients) < SILENCE_SECONDS
    gets = pair.gets(made)
    assert len(gets) <= 2, gets
    assert sum(gets) <= 2 * SIZE


@FAULTY
def test_a_blob_that_a_partitioned_replica_and_another_one_pull_costs_two_downloads_at_most(
    pair: Pair, pool: ThreadPoolExecutor, fault: str
) -> None:
    FAULTS[fault](pair.gate)
    made = pair.limited()
    clients = [TimedClient(replica, made, pool) for replica in (pair.apart, pair.other) for _ in range(CLIENTS)]
    at_most_two_gets_serve(pair, made, clients)
    pair.gate.open()
    assert pair.share()


@FAULTY
@pytest.mark.parametrize("leader", ["apart", "other"])
def test_a_partition_during_a_download_costs_a_second_one_at_most(
    pair: Pair, pool: ThreadPoolExecutor, leader: str, fault: str
) -> None:
    """The replica that is partitioned leads the download, or follows it."""
    leading, following = (pair.apart, pair.other) if leader == "apart" else (pair.other, pair.apart)
    made = pair.limited()
    clients = [TimedClient(leading, made, pool)]
    assert clients[0].has(1)
    clients += [TimedClient(following, made, pool) for _ in range(CLIENTS)]
    assert all(client.has(SIZE // 4) for client in clients)
    assert len(pair.gets(made)) == 0, "the only download is not over"
    FAULTS[fault](pair.gate)
    clients += [TimedClient(leading, made, pool) for _ in range(CLIENTS - 1)]
    at_most_two_gets_serve(pair, made, clients)
    pair.gate.open()
    assert pair.share()


@FAULTY
def test_a_partitioned_replica_reads_from_the_store_what_the_other_has_fetched(pair: Pair, fault: str) -> None:
    FAULTS[fault](pair.gate)
    made = pair.upstream.blob(SIZE)
    assert pair.other.gives(made)
    assert pair.both.stores(made.digest)
    assert pair.apart.gives(made)
    assert pair.gets(made) == [SIZE]


@pytest.mark.parametrize("caller", [None, "Bearer the-owners-token"])
def test_a_refusal_that_a_partitioned_replica_met_holds_at_the_other_when_the_partition_ends(
    serve: Serving, tmp_path: Path, index: Valkey, store: SeaweedFS, caller: str | None
) -> None:
    headers = {"Accept": ", ".join(MANIFEST_TYPES)} | ({"Authorization": caller} if caller else {})
    image, unknown = make_image("image", (5000,)), make_image("unknown", (5000,))
    paths = [f"/v2/{NAME}/manifests/{reference}" for reference in ("1", image.manifest.digest)]
    paths += [f"/v2/{NAME}/blobs/{blob.digest}" for blob in image.blobs]

    def statuses(connections: list[HTTPConnection]) -> set[int]:
        return {send(each, "GET", path, headers).status for each in connections for path in paths}

    times = {"TAG_TTL": "600", "GRANT_TTL": "600", "STALE_TTL": "600"}
    with (
        partitionable(serve, tmp_path, index, store, **times) as pair,
        pair.apart.proxy.connection_to_each_worker() as apart,
        pair.other.proxy.connection_to_each_worker() as other,
    ):
        pair.upstream.push(image, "1")
        assert statuses([*apart, *other]) == {200}
        settle()
        pair.gate.silence()
        pair.upstream.control({"status": 401, "methods": ["GET", "HEAD"], "path": f"/{NAME}/"})
        # The replica asks the upstream, because it does not know this blob.
        assert send(apart[0], "GET", f"/v2/{NAME}/blobs/{unknown.layers[0].digest}", headers).status == 401
        until = time.monotonic() + BELIEVED_SECONDS + TOLERANCE
        while time.monotonic() < until:
            assert statuses(other) == {200}, "the partition keeps the refusal from the other replica"
            time.sleep(0.5)
        pair.gate.open()
        # No client uses the replica that met the refusal.
        assert wait_until(lambda: statuses(other) == {401}, DELIVERY_SECONDS + BELIEVED_SECONDS + TOLERANCE, pause=0.5)
        assert statuses(apart) == {401}
