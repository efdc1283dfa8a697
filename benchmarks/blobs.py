"""Warm and cold blobs: throughput, processor time, and what the upstream had to send."""

import hashlib
import itertools
import os
import statistics
import time
from collections.abc import Sequence

from benchmarks.arena import Arena, blob_path
from benchmarks.contenders import COLD_CONTENDERS, Server, Setup
from benchmarks.downloads import BadAnswerError, Download, download, download_in_turn
from benchmarks.plan import GIB, MIB, Plan, blob_case
from benchmarks.results import HASHLIB, OURS
from benchmarks.usage import Traffic, cpu_seconds, rested_cpu_seconds, traffic
from tests.e2e.support.docker_registry import Registry

WARM, COLD = "warm blobs", "cold blobs"
WARM_TLS, COLD_TLS = "warm blobs over TLS", "cold blobs over TLS"
FLIPPED = "one bit flipped at the upstream"
HASHED = "one pass of SHA-256"
LAYERS = "layers of an image, one after another, 1 client"
_TIMES = 3  # in each round, for what takes a second or less: the machine is slower for moments
_ENOUGH = 4  # bodies for one measurement; the time for fewer is too short to measure


def cases(plan: Plan) -> list[tuple[int, int]]:
    """Size and number of clients."""
    return [(plan.big, 1), (plan.big, 4), (plan.small, 50)]


def warm_blobs(arena: Arena) -> None:
    _measure_warm(arena, WARM, arena.setup(), cases(arena.plan), times=_TIMES)


def warm_blobs_over_tls(arena: Arena) -> None:
    """The servers use TLS to their clients."""
    _measure_warm(arena, WARM_TLS, arena.setup(serves_tls=True), cases(arena.plan)[:2])


def _measure_warm(arena: Arena, scenario: str, setup: Setup, met: Sequence[tuple[int, int]], times: int = 1) -> None:
    """Fill the servers anew in each round, and in another order, so that neither the order nor the place of the files
    in memory decides about a whole run.
    """
    digests = list({_digest(arena, size): None for size, _ in met})
    for number in range(arena.plan.rounds):
        with arena.filled(digests, setup, first=number) as servers:
            for (size, clients), server in itertools.product(list(met) * times, servers):
                bodies = -(-_ENOUGH // clients)
                got, cost, sent = _measure(arena, arena.upstream, server, size, clients, bodies)
                arena.results.add(
                    scenario, blob_case(size, clients), server.name, throughput=got.gib_per_second, cpu=cost / got.gib,
                    upstream=sent.bytes / MIB,
                )  # fmt: skip


def cold_blobs(arena: Arena) -> None:
    _measure_cold(arena, COLD, arena.upstream, cases(arena.plan))
    for _ in range(_TIMES * arena.plan.rounds):
        for name in COLD_CONTENDERS:
            _measure_first_bytes(arena, name)
    _refuse_wrong(arena)


def cold_blobs_over_tls(arena: Arena) -> None:
    """The upstream uses TLS. The clients do not."""
    _measure_cold(arena, COLD_TLS, arena.tls_upstream, cases(arena.plan)[:2])


def _measure_cold(arena: Arena, scenario: str, upstream: Registry, met: Sequence[tuple[int, int]]) -> None:
    """Start a new server with an empty cache for each measurement."""
    for number in range(arena.plan.rounds):
        arena.results.add(scenario, HASHED, HASHLIB, cpu=_hash_seconds(arena.plan.big) / (arena.plan.big / GIB))
        for size, clients in met:
            times = _TIMES if clients == 1 else 1
            for again, name in itertools.product(range(times), COLD_CONTENDERS):
                with arena.awake(name, arena.setup(upstream.url)) as server:
                    arena.make_resident(size)
                    got, cost, sent = _measure(arena, upstream, server, size, clients)
                    arena.results.add(
                        scenario, blob_case(size, clients), name, throughput=got.gib_per_second, cpu=cost / got.gib,
                        first_byte=got.first_byte * 1000, upstream=sent.bytes / MIB, gets=sent.whole_gets,
                    )  # fmt: skip
                    if not number and not again:
                        _prove(arena, server, size)


def _measure_first_bytes(arena: Arena, name: str) -> None:
    """Add the median of the layers: the time until the first byte is short and varies."""
    found = []
    with arena.awake(name) as server:
        arena.make_resident(arena.plan.layer * len(arena.image.layers))
        for layer in arena.image.layers:
            found.append(download(server, blob_path(layer.digest)).first_byte)
            rested_cpu_seconds(server.process.pid)
    arena.results.add(COLD, LAYERS, name, first_byte=statistics.median(found) * 1000)


def _measure(
    arena: Arena, upstream: Registry, server: Server, size: int, clients: int, times: int = 1
) -> tuple[Download, float, Traffic]:  # fmt: skip
    digest, since = _digest(arena, size), upstream.mark()
    before = cpu_seconds(server.process.pid)
    got = download_in_turn(server, blob_path(digest), clients, times)
    cost = rested_cpu_seconds(server.process.pid) - before
    return got, cost, traffic(upstream, since, digest)


def _hash_seconds(size: int) -> float:
    """The CPU seconds that SHA-256 takes for this many bytes in pieces of 1 MiB."""
    piece, digest = os.urandom(MIB), hashlib.sha256()
    began = time.process_time()
    for _ in range(size // MIB):
        digest.update(piece)
    return time.process_time() - began


def _prove(arena: Arena, server: Server, size: int) -> None:
    """Check the digest of the cached blob. This is done after the measurement, because hashing takes a core."""
    digest = _digest(arena, size)
    download(server, blob_path(digest), digest=digest)


def _refuse_wrong(arena: Arena) -> None:
    """Check in the same run that the service verifies digests: it must not deliver a wrong blob completely."""
    digest = arena.small
    with arena.flipped(digest), arena.awake(OURS) as server:
        try:
            download(server, blob_path(digest))
        except BadAnswerError:
            refused = 1.0
        else:
            refused = 0.0
        arena.results.add(COLD, FLIPPED, OURS, refused=refused)


def _digest(arena: Arena, size: int) -> str:
    return arena.big if size == arena.plan.big else arena.small
