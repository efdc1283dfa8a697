"""Two replicas pull the same blob, while parts of what they share fail. Each replica is a service with processes and a
folder of its own; they share a real Valkey and a store.
"""

import os
import signal
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.support.cached_mirror import (
    MIB,
    Cached,
    FaultyUpstream,
    Made,
    Pulled,
    faulty_upstream,
    pull,
    settle,
)
from tests.e2e.support.processes import pause, resume, session_pids, wait_until
from tests.e2e.support.replicas import Replicas, tier_settings
from tests.e2e.support.service import Serving
from tests.e2e.support.timed_clients import TimedClient
from tests.e2e.support.valkey import Valkey, valkey

pytestmark = pytest.mark.real()

SIZE = 48 * MIB
RATE = 12 * MIB
"""Bytes per second of the whole upstream: one connection fills the line, so each test takes a few seconds."""
LARGE = 64 * MIB
"""A blob that a killed replica has almost received: to fetch it again would cost more than FETCHED_AGAIN."""
FETCHED_AGAIN = 32 * MIB
"""What a replica that continues the download of a killed one fetches again at most."""
LEASE_SECONDS = 4


@dataclass
class Shared(Replicas):
    """Two replicas, and what they share. `store`: the folder of the shared store."""

    index: Valkey
    store: Path

    def parts(self) -> list[Path]:
        return [file for file in (self.store / "parts").rglob("*") if file.is_file()]

    def record(self, made: Made) -> Path:
        encoded = made.digest.partition(":")[2]
        return self.store / "content" / "sha256" / encoded[:2] / encoded

    def has_record(self, made: Made) -> bool:
        """Wait until the store has the whole blob."""
        return wait_until(self.record(made).is_file, 20)

    def lists_parts(self) -> bool:
        """Whether the index has parts that are not in a record."""
        return bool(self.index.command("KEYS", "dip:*:parts:*"))


@contextmanager
def sharing(serve: Serving, tmp_path: Path, **settings: str) -> Iterator[Shared]:
    store = tmp_path / "store"
    store.mkdir()
    with (
        faulty_upstream(tmp_path, tmp_path / "files") as upstream,
        valkey(tmp_path) as index,
        ExitStack() as stack,
    ):
        settings |= tier_settings(store.as_uri(), index.url)
        shared = Shared(serve, tmp_path, upstream, settings, [], stack, index, store)
        for _ in range(2):
            shared.start()
        yield shared


@pytest.fixture
def shared(serve: Serving, tmp_path: Path) -> Iterator[Shared]:
    with sharing(serve, tmp_path, DOWNLOAD_CONNECTIONS="1") as found:
        yield found


@pytest.fixture
def blob(shared: Shared) -> Made:
    return limited(shared.upstream)


def limited(upstream: FaultyUpstream, size: int = SIZE, **rule: Any) -> Made:
    """A new blob, which the upstream sends slowly."""
    made = upstream.blob(size)
    upstream.control({"path": made.digest, "rate": RATE, **rule})
    return made


def are_right(made: Made, *clients: Future[Pulled]) -> bool:
    """Whether each client received the complete blob."""
    pulled = [client.result() for client in clients]
    return [(one.status, one.whole, one.body == made.content) for one in pulled] == [(200, True, True)] * len(clients)


def sent(upstream: FaultyUpstream, made: Made) -> int:
    """The bytes of this blob that the upstream has sent."""
    return sum(entry["sent"] for entry in upstream.gets(made.path))


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(64) as running:
        yield running


def pids_of(replica: Cached) -> list[int]:
    return session_pids(replica.proxy.process.pid)


def kill(replica: Cached) -> None:
    for pid in pids_of(replica):
        os.kill(pid, signal.SIGKILL)


def follows(shared: Shared, made: Made, pool: ThreadPoolExecutor) -> tuple[TimedClient, TimedClient]:
    """A client of the replica that fetches the blob, and a client of the one that follows it."""
    leading = TimedClient(shared[0], made, pool)
    assert leading.has(1)
    following = TimedClient(shared[1], made, pool)
    assert following.has(1)
    return leading, following


@pytest.mark.parametrize("connections", ["1", "4"])
def test_fifty_clients_of_two_replicas_cost_the_upstream_one_blob(
    serve: Serving, tmp_path: Path, pool: ThreadPoolExecutor, connections: str
) -> None:
    with sharing(serve, tmp_path, DOWNLOAD_CONNECTIONS=connections) as shared:
        made = limited(shared.upstream, rate=RATE // int(connections))
        clients = [pool.submit(pull, one.proxy.port, made.path) for one in shared.running for _ in range(25)]
        assert are_right(made, *clients)
        assert sent(shared.upstream, made) <= 1.02 * SIZE
        assert all(one.cache.holds(made) for one in shared.running)


def test_a_client_of_the_other_replica_receives_bytes_while_the_first_one_fetches_them(
    shared: Shared, blob: Made, pool: ThreadPoolExecutor
) -> None:
    leading, following = follows(shared, blob, pool)
    assert leading.received < SIZE // 2
    assert leading.is_right()
    assert following.is_right()
    assert following.arrivals[-1][0] - leading.arrivals[-1][0] < 0.5 * SIZE / RATE
    assert sent(shared.upstream, blob) == SIZE


def test_a_blob_that_one_replica_has_fetched_is_not_fetched_by_another(shared: Shared, blob: Made) -> None:
    first, second = shared.running
    assert first.gives(blob)
    assert shared.has_record(blob)
    assert second.gives(blob)
    assert second.cache.holds(blob)
    assert sent(shared.upstream, blob) == SIZE


def test_a_client_hardly_notices_that_the_leading_replica_is_killed(shared: Shared, pool: ThreadPoolExecutor) -> None:
    blob = limited(shared.upstream, LARGE)
    leading, following = follows(shared, blob, pool)
    assert following.has(LARGE - FETCHED_AGAIN // 2)
    kill(shared[0])
    assert following.is_right()
    assert following.longest_wait() < LEASE_SECONDS + 1
    assert sent(shared.upstream, blob) <= LARGE + FETCHED_AGAIN
    assert leading.is_cut()


def test_a_new_replica_continues_what_a_killed_one_has_published(shared: Shared, pool: ThreadPoolExecutor) -> None:
    blob = limited(shared.upstream, LARGE)
    leading = TimedClient(shared[0], blob, pool)
    assert leading.has(LARGE - FETCHED_AGAIN // 2)
    kill(shared[0])
    assert leading.is_cut()
    newest = shared.start()
    assert newest.gives(blob)
    assert sent(shared.upstream, blob) <= LARGE + FETCHED_AGAIN
    assert shared.has_record(blob)


def test_a_replica_that_was_stopped_beyond_its_lease_publishes_nothing_more(
    shared: Shared, blob: Made, pool: ThreadPoolExecutor
) -> None:
    leading, following = follows(shared, blob, pool)
    pause(*pids_of(shared[0]))
    before = set(shared.parts())
    assert following.is_right()
    assert shared.has_record(blob)
    after, record = set(shared.parts()), shared.record(blob).read_bytes()
    resume(*pids_of(shared[0]))
    assert leading.is_right()
    assert shared[0].cache.holds(blob)
    settle()
    assert shared.record(blob).read_bytes() == record
    assert not shared.lists_parts()
    leases = {file.parent.name for file in after - before}
    assert len(leases) == 1, "the parts of the replica that took over"
    assert {file.parent.name for file in set(shared.parts()) - after} <= leases | {next(iter(before)).parent.name}
    assert shared.start().gives(blob)
    assert sent(shared.upstream, blob) <= 2 * SIZE


@pytest.mark.parametrize("fault", ["kill", "flush", "pause"])
def test_no_client_notices_that_the_shared_index_fails(
    shared: Shared, blob: Made, pool: ThreadPoolExecutor, fault: str
) -> None:
    leading, following = follows(shared, blob, pool)
    getattr(shared.index, fault)()
    try:
        assert leading.is_right()
        assert following.is_right()
        assert max(leading.longest_wait(), following.longest_wait()) < LEASE_SECONDS
        gets = shared.upstream.gets(blob.path)
        assert len(gets) <= 2, "at most one download for each replica"
        made = limited(shared.upstream)
        assert shared[0].gives(made)
        assert shared[1].gives(made)
    finally:
        if fault == "pause":
            shared.index.resume()


def test_the_index_is_used_again_when_it_is_back(shared: Shared) -> None:
    first, second = shared.running
    shared.index.kill()
    alone = limited(shared.upstream, 2 * MIB)
    assert first.gives(alone)
    shared.index.restart()

    def is_shared() -> bool:
        made = limited(shared.upstream, 2 * MIB)
        assert first.gives(made)
        return shared.has_record(made) and second.gives(made) and sent(shared.upstream, made) == made.size

    assert wait_until(is_shared, 30, pause=1)


def test_no_client_notices_that_the_shared_store_fails(shared: Shared, blob: Made, pool: ThreadPoolExecutor) -> None:
    leading, following = follows(shared, blob, pool)
    shared.store.rename(shared.folder / "away")
    shared.store.write_text("a file in its place")
    assert leading.is_right()
    assert following.is_right()
    assert len(shared.upstream.gets(blob.path)) <= 2
    made = limited(shared.upstream, 2 * MIB)
    assert all(one.gives(made) for one in shared.running)


def test_a_flipped_bit_in_a_stored_part_reaches_no_client(shared: Shared, blob: Made) -> None:
    first, second = shared.running
    assert first.gives(blob)
    assert shared.has_record(blob)
    part = max(shared.parts(), key=lambda file: int(file.name))
    content = bytearray(part.read_bytes())
    content[len(content) // 2] ^= 1
    part.write_bytes(content)
    assert second.gives(blob)
    assert sent(shared.upstream, blob) < 2 * SIZE
    assert shared.has_record(blob)
    before = sent(shared.upstream, blob)
    assert shared.start().gives(blob), "the parts were replaced"
    assert sent(shared.upstream, blob) == before
