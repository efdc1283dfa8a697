"""Warm blobs and manifests from one replica, and from four replicas on the same machine under the same load.

The replicas share a Valkey and a SeaweedFS. The load is divided among the replicas, so that a difference is what a
replica costs besides the bytes and requests that it serves. The number of workers is the same in all: a worker needs
less for a request the more connections it has, because it handles several at once, and that is no effect of replicas.
"""

import re
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from itertools import cycle, islice
from typing import TypeVar

from benchmarks.arena import TAG_PATH, Arena, blob_path
from benchmarks.contenders import Server
from benchmarks.downloads import download, download_in_turn
from benchmarks.manifests import CONNECTIONS, wrk
from benchmarks.plan import GIB, blob_case
from benchmarks.results import OURS
from benchmarks.usage import cpu_seconds, rested_cpu_seconds
from tests.e2e.support.plain_http import fetch
from tests.e2e.support.seaweedfs import SeaweedFS, seaweedfs
from tests.e2e.support.service import SECRET
from tests.e2e.support.valkey import Valkey, valkey

REPLICAS = "replicas"
COUNTS = {f"{OURS}, one replica": 1, f"{OURS}, four replicas": 4}
ONE, FOUR = COUNTS
MANIFESTS = f"manifest by tag, {CONNECTIONS} connections"
WORKERS = 4
"""Of all replicas together."""
CLIENTS = 4
_TIMES = 8
"""Downloads of each client, one after another: together enough bytes for a CPU time that can be compared."""
_MEASUREMENTS = 5
"""In each round: the CPU time for the same work varies by a fifth, and the bound is a tenth."""
_WARM_UP_SECONDS = 1
_UPLOAD_SECONDS = 1.0
"""More than one part of a blob needs."""
_ASKED = re.compile(
    r'^docker_image_proxy_shared_store_requests_total\{operation="(?:get|put)".*\} ([0-9.e+]+)$', re.MULTILINE
)

T = TypeVar("T")


@dataclass
class Usage:
    """CPU seconds, and how often facts were read from the index and content from the store."""

    replicas: float = 0.0
    index: float = 0.0
    index_reads: int = 0
    store_requests: float = 0.0


@dataclass(frozen=True)
class Cluster:
    """Replicas that share an index and a store."""

    name: str
    replicas: Sequence[Server]
    index: Valkey

    def load(self, work: Callable[[Server], T]) -> list[T]:
        """The results of the work of all clients, who are divided among the replicas and work at the same time. They
        are the same for each number of replicas, also in the tokens that they request.
        """
        with ThreadPoolExecutor(CLIENTS) as pool:
            return list(pool.map(work, islice(cycle(self.replicas), CLIENTS)))

    @contextmanager
    def measured(self) -> Iterator[Usage]:
        """What the block uses. The values are set at its end."""
        used = Usage()
        pids = [one.process.pid for one in self.replicas]
        asked, reads = self._store_requests(), _reads(self.index)
        index, replicas = cpu_seconds(self.index.process.pid), sum(map(cpu_seconds, pids))
        yield used
        used.replicas = sum(map(cpu_seconds, pids)) - replicas
        used.index = cpu_seconds(self.index.process.pid) - index
        used.index_reads, used.store_requests = _reads(self.index) - reads, self._store_requests() - asked

    def finish_uploads(self) -> None:
        """Wait until the replicas write nothing more to the store."""
        asked = -1.0
        while asked != (asked := self._store_requests()):
            time.sleep(_UPLOAD_SECONDS)

    def _store_requests(self) -> float:
        return sum(sum(map(float, _ASKED.findall(_metrics(one)))) for one in self.replicas)


def warm_replicas(arena: Arena) -> None:
    """Each measurement has replicas of its own: those that wait would use some time, and after a minute one of them
    looks after the store.
    """
    with (
        arena.room("index") as index_folder,
        arena.room("store") as store_folder,
        valkey(index_folder) as index,
        seaweedfs(store_folder) as store,
    ):
        for number in range(_MEASUREMENTS * arena.plan.rounds):
            # In turn the first and the second, because the machine becomes slower and faster during a run.
            for name in COUNTS if number % 2 else reversed(COUNTS):
                with cluster(arena, name, index, store) as replicas:
                    _measure_blobs(arena, replicas)
                    _measure_manifests(arena, replicas)


@contextmanager
def cluster(arena: Arena, name: str, index: Valkey, store: SeaweedFS) -> Iterator[Cluster]:
    """Running replicas with the small blob and the manifest in their folders. Their digests are verified."""
    settings = {
        "SHARED_STORE": f"{store.url}/bench",
        "SHARED_INDEX": index.url,
        "SERVER_SECRET": SECRET,
        "WORKERS": str(WORKERS // COUNTS[name]),
        **store.environment,
    }
    path = blob_path(arena.small)
    with ExitStack() as stack:
        setup = arena.setup(settings=settings)
        # In a watched run: the page shows one replica, so an operator has one open; each replica is scraped.
        setups = [replace(setup, is_page_open=not number) for number in range(COUNTS[name])]
        replicas = [stack.enter_context(arena.awake(OURS, one)) for one in setups]
        for replica in replicas:
            download(replica, path)
            rested_cpu_seconds(replica.process.pid)
            download(replica, path, digest=arena.small)
        found = Cluster(name, replicas, index)
        found.finish_uploads()
        yield found


def _measure_blobs(arena: Arena, cluster: Cluster) -> None:
    path = blob_path(arena.small)
    with cluster.measured() as used:
        found = cluster.load(lambda replica: download_in_turn(replica, path, 1, _TIMES))
    gib = sum(one.bytes for one in found) / GIB
    arena.results.add(
        REPLICAS, blob_case(arena.plan.small, CLIENTS), cluster.name, cpu=used.replicas / gib,
        throughput=sum(one.gib_per_second for one in found), index_cpu=used.index, index=used.index_reads,
        store=used.store_requests,
    )  # fmt: skip


def _measure_manifests(arena: Arena, cluster: Cluster) -> None:
    connections, seconds = CONNECTIONS // CLIENTS, arena.plan.wrk_seconds
    cluster.load(lambda replica: wrk(replica, TAG_PATH, _WARM_UP_SECONDS, connections))
    with cluster.measured() as used:
        loads = cluster.load(lambda replica: wrk(replica, TAG_PATH, seconds, connections))
    requests = sum(load.requests for load in loads)
    arena.results.add(
        REPLICAS, MANIFESTS, cluster.name, request_cpu=used.replicas / requests * 1e6,
        rate=sum(load.rate for load in loads), index_cpu=used.index, index=used.index_reads,
        store=used.store_requests,
    )  # fmt: skip


def _metrics(replica: Server) -> str:
    """The metrics of the replica. The counters are those of all its workers."""
    return fetch("GET", f"{replica.url}/metrics").body.decode()


def _reads(index: Valkey) -> int:
    """The commands that read what replicas know. Scripts call some of them."""
    calls = index.calls()
    return calls["mget"] + calls["hget"] + calls["get"]
