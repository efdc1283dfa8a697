"""The shared store of two replicas is refused, silent, slow or away while they pull. No client notices it."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.e2e.support.cached_mirror import MIB, FaultyUpstream, Made, faulty_upstream, pull
from tests.e2e.support.processes import wait_until
from tests.e2e.support.replicas import Replicas, replicas
from tests.e2e.support.seaweedfs import SeaweedFS
from tests.e2e.support.service import Serving
from tests.e2e.support.tcp_gate import TcpGate, tcp_gate
from tests.e2e.support.valkey import Valkey

pytestmark = pytest.mark.real()

SIZE = 24 * MIB
RATE = 6 * MIB
"""Bytes per second of the upstream."""
FAULTS = {
    "refused": TcpGate.refuse,
    "silent": TcpGate.silence,
    "slow": lambda gate: gate.limit(200_000),
}


@pytest.fixture
def gate(store: SeaweedFS) -> Iterator[TcpGate]:
    with tcp_gate(store.port) as opened:
        yield opened


@pytest.fixture
def upstream(tmp_path: Path) -> Iterator[FaultyUpstream]:
    with faulty_upstream(tmp_path, tmp_path / "files") as running_one:
        yield running_one


@pytest.fixture
def pair(
    serve: Serving, tmp_path: Path, upstream: FaultyUpstream, index: Valkey, store: SeaweedFS, gate: TcpGate
) -> Iterator[Replicas]:
    settings = {**store.environment_through(gate.port), "DOWNLOAD_CONNECTIONS": "1"}
    with replicas(serve, tmp_path, upstream, index, store, **settings) as found:
        yield found
    assert [replica.cache.wrong() for replica in found.running] == [[], []]


def limited(upstream: FaultyUpstream, size: int = SIZE) -> Made:
    """A new blob, which the upstream sends slowly."""
    made = upstream.blob(size)
    upstream.control({"path": made.digest, "rate": RATE})
    return made


def pulled_by_both(pair: Replicas, made: Made) -> bool:
    """Whether clients of both replicas receive the blob at the same time."""
    with ThreadPoolExecutor() as pool:
        clients = [pool.submit(pull, one.proxy.port, made.path) for one in pair.running for _ in range(3)]
    return all((one.result().status, one.result().body) == (200, made.content) for one in clients)


@pytest.mark.parametrize("fault", FAULTS)
def test_clients_do_not_notice_a_fault_of_the_store_during_a_pull(
    pair: Replicas, upstream: FaultyUpstream, gate: TcpGate, fault: str
) -> None:
    made = limited(upstream)
    with ThreadPoolExecutor() as pool:
        clients = [pool.submit(pair[number].gives, made) for number in (0, 1)]
        assert upstream.sends(1)
        FAULTS[fault](gate)
        assert [client.result() for client in clients] == [True, True]
    assert len(upstream.gets(made.path)) <= 2, "at most one download for each replica"


@pytest.mark.parametrize("fault", FAULTS)
def test_a_store_with_a_fault_costs_clients_little(
    pair: Replicas, upstream: FaultyUpstream, gate: TcpGate, fault: str
) -> None:
    """After the first request that has met the fault, none waits for the store."""
    FAULTS[fault](gate)
    assert pulled_by_both(pair, limited(upstream, MIB))
    made = limited(upstream)
    assert pulled_by_both(pair, made)
    assert len(upstream.gets(made.path)) <= 2


def test_the_store_is_used_again_when_it_is_back(pair: Replicas, upstream: FaultyUpstream, gate: TcpGate) -> None:
    gate.refuse()
    assert pulled_by_both(pair, limited(upstream, MIB))
    gate.open()

    def is_shared() -> bool:
        made = limited(upstream, 2 * MIB)
        assert pair[0].gives(made)
        assert pair[1].gives(made)
        return len(upstream.gets(made.path)) == 1

    assert wait_until(is_shared, 40, pause=1)
