"""Many clients: the memory that the server needs for them, and the speed of a fast client beside slow ones."""

import re
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from benchmarks.arena import Arena, blob_path
from benchmarks.contenders import CONTENDERS, Server
from benchmarks.downloads import download, download_in_turn, dripping
from benchmarks.plan import KIB, MIB, blob_case
from benchmarks.results import OURS
from benchmarks.usage import rested_cpu_seconds
from tests.e2e.support.memory_use import PssSampler
from tests.e2e.support.processes import session_pids

MEMORY, SLOW = "peak memory", "slow clients"
COLD, WARM = "cold", "warm"
ALONE, BESIDE = "alone", "beside the slow ones"
_FAST = 16  # downloads of the fast client, one after another; the time for fewer varies too much
_SETTLING = 3.0  # seconds until the buffers of the slow clients are full, so that they receive at their own rate


def peak_memory(arena: Arena) -> None:
    """Measure one round with a new server each, because 100 clients take long and a peak needs no average."""
    plan = arena.plan
    path, who = blob_path(arena.big), blob_case(plan.big, plan.crowd)
    for name in CONTENDERS:
        seconds = None if name == OURS else plan.peer_seconds
        with arena.awake(name) as server:
            arena.make_resident(plan.big)
            leader = server.process.pid
            for state in (COLD, WARM):
                with PssSampler(leader) as sampler:
                    got = download(server, path, plan.crowd, seconds=seconds)
                _doubt_mapped_files(arena, server)
                arena.results.add(
                    MEMORY, f"{who}, {state}", name, peak=sampler.peak / MIB, throughput=got.gib_per_second
                )
                rested_cpu_seconds(leader)
                # If the clients were stopped early, the server may not have the whole blob yet.
                download(server, path, digest=arena.big)


def _doubt_mapped_files(arena: Arena, server: Server) -> None:
    """Add a note if a server maps files of its cache, because the measured memory then includes these files."""
    mapped = 0
    for pid in session_pids(server.process.pid):
        with suppress(OSError):
            for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
                span = re.match(r"([0-9a-f]+)-([0-9a-f]+) ", line)
                if span and str(arena.folder) in line:
                    mapped += int(span[2], 16) - int(span[1], 16)
    if mapped > MIB:
        arena.results.note(f"The memory of {server.name} includes {mapped / MIB:.0f} MiB of mapped files.")


def slow_clients(arena: Arena, servers: Sequence[Server]) -> None:
    plan, path = arena.plan, blob_path(arena.big)
    for _ in range(plan.rounds):
        for server in servers:
            alone = download_in_turn(server, path, 1, _FAST).gib_per_second
            with dripping(server, path, plan.slow_clients, plan.slow_rate) as drip:
                time.sleep(_SETTLING)
                beside = download_in_turn(server, path, 1, _FAST).gib_per_second
            arena.results.add(SLOW, ALONE, server.name, throughput=alone)
            arena.results.add(
                SLOW, BESIDE, server.name, throughput=beside, cost=100 * (1 - beside / alone),
                slowest=drip.slowest / KIB,
            )  # fmt: skip
            if drip.problems:
                arena.results.note(f"{server.name} lost {drip.lost} slow clients: {', '.join(sorted(drip.problems))}.")
