"""What many clients cost: the server's memory, and the one client that is in a hurry."""

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
_FAST = 16  # downloads of the fast client, one after another: fewer are over before the scheduler has settled
_SETTLING = 3.0  # seconds until the slow clients' buffers are full and only their pace is left


def peak_memory(arena: Arena) -> None:
    """One round, each with a fresh server: a peak is no average, and 100 clients take their time."""
    plan = arena.plan
    path, who = blob_path(arena.big), blob_case(plan.big, plan.crowd)
    for name in CONTENDERS:
        seconds = None if name == OURS else plan.peer_seconds
        with arena.awake(name) as server:
            leader = server.process.pid
            for state in (COLD, WARM):
                with PssSampler(leader) as sampler:
                    got = download(server, path, plan.crowd, seconds=seconds)
                _doubt_mapped_files(arena, server)
                arena.results.add(
                    MEMORY, f"{who}, {state}", name, peak=sampler.peak / MIB, throughput=got.gib_per_second
                )
                rested_cpu_seconds(leader)
                # Those who had to leave early left a blob that may not be whole yet.
                download(server, path, digest=arena.big)


def _doubt_mapped_files(arena: Arena, server: Server) -> None:
    """Files in memory count as memory of a process only if it maps them. Reports the processes that do."""
    mapped = 0
    for pid in session_pids(server.process.pid):
        with suppress(OSError):
            for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
                span = re.match(r"([0-9a-f]+)-([0-9a-f]+) ", line)
                if span and str(arena.folder) in line:
                    mapped += int(span[2], 16) - int(span[1], 16)
    if mapped > MIB:
        arena.results.note(f"{server.name} had {mapped / MIB:.0f} MiB of its files mapped; its memory counts them.")


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
