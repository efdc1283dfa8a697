"""The shared index fails over from one Valkey to another, which Sentinel promotes."""

import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.support.cached_mirror import MIB, FaultyUpstream, Made, Pulled, faulty_upstream, pull
from tests.e2e.support.processes import wait_until
from tests.e2e.support.replicas import Replicas, tier_settings
from tests.e2e.support.service import Serving
from tests.e2e.support.valkey import Valkey, sentinel, valkey

pytestmark = pytest.mark.real()

SIZE = 48 * MIB
SECONDS = 4
"""How long the upstream takes to send the blob."""


@dataclass
class Mirror:
    """Two replicas whose index is a primary with a replica, and a Sentinel."""

    replicas: Replicas
    upstream: FaultyUpstream
    primary: Valkey
    second: Valkey
    store: Path

    def download(self, made: Made, pool: ThreadPoolExecutor) -> list[Future[Pulled]]:
        """Pull the blob from both replicas."""
        return [pool.submit(pull, self.replicas[number].proxy.port, made.path) for number in range(2)]

    def shares(self) -> bool:
        """Whether one replica serves what the other one has fetched, without a request to the upstream."""
        made = self.upstream.blob(2 * MIB)
        encoded = made.digest.partition(":")[2]
        assert self.replicas[0].gives(made)
        return (
            wait_until((self.store / "content" / "sha256" / encoded[:2] / encoded).is_file, 2)
            and self.replicas[1].gives(made)
            and len(self.upstream.gets(made.path)) == 1
        )


@pytest.fixture
def mirror(serve: Serving, tmp_path: Path) -> Iterator[Mirror]:
    store = tmp_path / "store"
    store.mkdir()
    with (
        faulty_upstream(tmp_path, tmp_path / "files") as upstream,
        valkey(tmp_path) as primary,
        valkey(tmp_path) as second,
        ExitStack() as stack,
    ):
        second.follow(primary.port)
        port = stack.enter_context(sentinel(tmp_path, primary, "mirror"))
        settings = tier_settings(store.as_uri(), f"redis+sentinel://127.0.0.1:{port}/mirror")
        settings["DOWNLOAD_CONNECTIONS"] = "1"
        replicas = Replicas(serve, tmp_path, upstream, settings, [], stack)
        for _ in range(2):
            replicas.start()
        yield Mirror(replicas, upstream, primary, second, store)


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as running:
        yield running


@pytest.mark.parametrize("is_lease_lost", [False, True])
def test_no_client_notices_a_failover_and_the_replicas_share_again_after_it(
    mirror: Mirror,
    pool: ThreadPoolExecutor,
    is_lease_lost: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    """`is_lease_lost`: the new primary has nothing that was written after the download began."""
    assert mirror.shares()
    made = mirror.upstream.blob(SIZE)
    mirror.upstream.control({"path": made.digest, "rate": SIZE // SECONDS})
    if is_lease_lost:
        mirror.second.pause()
    clients = mirror.download(made, pool)
    assert wait_until(lambda: bool(mirror.upstream.gets(made.path)), 20)
    time.sleep(SECONDS / 4)  # the download is under way
    mirror.primary.kill()
    mirror.second.resume()
    pulled = [client.result(60) for client in clients]
    assert [one.body == made.content for one in pulled] == [True, True]
    assert len(mirror.upstream.gets(made.path)) <= 2, "at most one download for each replica"
    assert wait_until(mirror.shares, 30, pause=1)
    assert "role:master" in mirror.second.replication()
