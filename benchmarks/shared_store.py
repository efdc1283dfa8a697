"""A cold blob from a replica that writes it to a shared store, and from a mirror without a shared store.

No client waits for the store, so the first may be little slower than the second. The store runs on this machine, but
stands for one on another machine: it gets the processors only while nothing else needs them, as far as the kernel can
do that. Otherwise the measurement would be that of the store, which needs several times the processor time of the
mirror.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

from benchmarks.arena import Arena, blob_path
from benchmarks.downloads import download
from benchmarks.limited import RATE_IN_ALL, limited
from benchmarks.plan import blob_case
from benchmarks.results import OURS
from benchmarks.usage import cpu_seconds
from tests.e2e.support.seaweedfs import seaweedfs
from tests.e2e.support.service import SECRET
from tests.e2e.support.valkey import valkey

STORE = "shared store"
WITHOUT, WITH = f"{OURS}, no shared store", f"{OURS}, shared store"
LINES = {"fast line": 0, f"line of {RATE_IN_ALL // 10**6} MB/s": RATE_IN_ALL}
FAST_LINE, LIMITED_LINE = LINES
_LOWEST = 19


def blobs_to_a_store(arena: Arena) -> None:
    for _ in range(arena.plan.rounds):
        for line in LINES:
            for name in (WITHOUT, WITH):
                _measure(arena, line, name)


def line_case(size: int, line: str) -> str:
    return f"{blob_case(size, 1)}, {line}"


def _measure(arena: Arena, line: str, name: str) -> None:
    rate, size = LINES[line], arena.plan.big
    with (
        _shared_tier(arena) if name == WITH else nullcontext({}) as settings,
        limited(arena, "--in-all", str(rate)) if rate else nullcontext(arena.upstream) as upstream,
        arena.awake(OURS, arena.setup(upstream.url, settings=settings)) as server,
    ):
        arena.make_resident(2 * size)  # the store has the bytes, too
        before = cpu_seconds(server.process.pid)
        got = download(server, blob_path(arena.big))
        cost = cpu_seconds(server.process.pid) - before
    arena.results.add(
        STORE, line_case(size, line), name, rate=got.bytes / got.seconds / 1e6, cpu=cost / got.gib,
        first_byte=got.first_byte * 1000,
    )  # fmt: skip


@contextmanager
def _shared_tier(arena: Arena) -> Iterator[dict[str, str]]:
    """A new index and a new, empty store. The settings of a replica that uses them."""
    with (
        arena.room("index") as index_folder,
        arena.room("store") as store_folder,
        valkey(index_folder) as index,
        seaweedfs(store_folder) as store,
    ):
        _lower_priority(store.process.pid)
        yield {
            "SHARED_STORE": f"{store.url}/bench",
            "SHARED_INDEX": index.url,
            "SERVER_SECRET": SECRET,
            **store.environment,
        }


def _lower_priority(leader: int) -> None:
    """Of a process that leads a session. With autogroups (sched(7)), the kernel divides the processors among sessions,
    and the nice value of a process counts only within its session.
    """
    os.setpriority(os.PRIO_PGRP, leader, _LOWEST)
    with suppress(OSError):
        Path(f"/proc/{leader}/autogroup").write_text(str(_LOWEST))
