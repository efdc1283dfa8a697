"""Warm and cold blobs: throughput, processor time, and what the upstream had to send."""

from collections.abc import Sequence

from benchmarks.arena import Arena, blob_path
from benchmarks.contenders import CONTENDERS, Server
from benchmarks.downloads import BadAnswerError, Download, download, download_in_turn
from benchmarks.plan import MIB, Plan, blob_case
from benchmarks.results import OURS
from benchmarks.usage import Traffic, cpu_seconds, rested_cpu_seconds, traffic

WARM, COLD = "warm blobs", "cold blobs"
FLIPPED = "one bit flipped at the upstream"
_ENOUGH = 4  # bodies for one measurement; the time for fewer is too short to measure


def cases(plan: Plan) -> list[tuple[int, int]]:
    """Size and number of clients."""
    return [(plan.big, 1), (plan.big, 4), (plan.small, 50)]


def warm_blobs(arena: Arena, servers: Sequence[Server]) -> None:
    for _ in range(arena.plan.rounds):
        for size, clients in cases(arena.plan):
            for server in servers:
                times = -(-_ENOUGH // clients)
                got, cost, sent = _measure(arena, server, size, clients, times)
                arena.results.add(
                    WARM, blob_case(size, clients), server.name, throughput=got.gib_per_second, cpu=cost / got.gib,
                    upstream=sent.bytes / MIB,
                )  # fmt: skip


def cold_blobs(arena: Arena) -> None:
    """Start a new server with an empty cache for each measurement."""
    for number in range(arena.plan.rounds):
        for size, clients in cases(arena.plan):
            for name in CONTENDERS:
                with arena.awake(name) as server:
                    got, cost, sent = _measure(arena, server, size, clients)
                    arena.results.add(
                        COLD, blob_case(size, clients), name, throughput=got.gib_per_second, cpu=cost / got.gib,
                        first_byte=got.first_byte * 1000, upstream=sent.bytes / MIB, gets=sent.whole_gets,
                    )  # fmt: skip
                    if not number:
                        _prove(arena, server, size)
    _refuse_wrong(arena)


def _measure(
    arena: Arena, server: Server, size: int, clients: int, times: int = 1
) -> tuple[Download, float, Traffic]:  # fmt: skip
    digest, since = _digest(arena, size), arena.upstream.mark()
    before = cpu_seconds(server.process.pid)
    got = download_in_turn(server, blob_path(digest), clients, times)
    cost = rested_cpu_seconds(server.process.pid) - before
    return got, cost, traffic(arena.upstream, since, digest)


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
