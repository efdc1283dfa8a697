"""Ranges of a cold blob: what the upstream sends when several clients read the same ranges, or a client few of them."""

import http.client
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

from benchmarks.arena import Arena, blob_path
from benchmarks.contenders import COLD_CONTENDERS, Server
from benchmarks.downloads import BadAnswerError
from benchmarks.plan import KIB, MIB, Plan, blob_case, size_text
from benchmarks.usage import rested_cpu_seconds, traffic
from tests.e2e.support.plain_http import connect

RANGES = "shared ranges"
SPOT = 64 * KIB
CLIENTS = 4

Range = tuple[int, int]  # the first byte, and the one after the last


def pieces_case(plan: Plan) -> str:
    return f"{blob_case(plan.ranged, CLIENTS)}, in ranges of {size_text(plan.piece)}"


def spots_case(plan: Plan, clients: int) -> str:
    return f"{blob_case(plan.small, clients)}, {plan.spots} ranges of {size_text(SPOT)}"


def pieces(size: int, piece: int) -> list[Range]:
    """The whole blob in ranges of this length."""
    return [(first, min(first + piece, size)) for first in range(0, size, piece)]


def spots(size: int, count: int) -> list[Range]:
    """Short ranges, evenly spread."""
    return [(number * size // count, number * size // count + SPOT) for number in range(count)]


def shared_ranges(arena: Arena) -> None:
    plan = arena.plan
    for _ in range(plan.rounds):
        for name in COLD_CONTENDERS:
            _measure(arena, name, pieces_case(plan), arena.ranged, pieces(plan.ranged, plan.piece), CLIENTS)
            for clients in (1, CLIENTS):
                _measure(arena, name, spots_case(plan, clients), arena.small, spots(plan.small, plan.spots), clients)


def _measure(arena: Arena, name: str, case: str, digest: str, ranges: Sequence[Range], clients: int) -> None:
    file = arena.file(digest)
    with arena.awake(name) as server, ThreadPoolExecutor(clients) as pool:
        arena.make_resident(file.stat().st_size)
        since = arena.upstream.mark()
        for done in [pool.submit(read_ranges, server, blob_path(digest), ranges, file) for _ in range(clients)]:
            done.result()
        rested_cpu_seconds(server.process.pid)
        sent = traffic(arena.upstream, since, digest)
        arena.results.add(RANGES, case, name, upstream=sent.bytes / MIB, gets=sent.gets)


def read_ranges(server: Server, path: str, ranges: Sequence[Range], file: Path) -> None:
    """One client with one connection. Raises BadAnswerError if it does not get the bytes of the file.

    A server may ignore a Range and send the whole blob with 200 (RFC 9110, section 14.2).
    """
    headers = dict(line.split(": ", 1) for line in server.headers())
    with closing(connect(server.url, server.tls, timeout=60)) as connection, file.open("rb") as content:
        for first, end in ranges:
            connection.request("GET", path, headers={**headers, "Range": f"bytes={first}-{end - 1}"})
            body = _body(connection.getresponse(), first, end)
            content.seek(first)
            if body != content.read(end - first):
                raise BadAnswerError(f"{server.name} sent wrong bytes for {first}-{end - 1} of {path}")


def _body(response: http.client.HTTPResponse, first: int, end: int) -> bytes:
    body = response.read()
    if response.status == http.HTTPStatus.OK:
        return body[first:end]
    if response.status != http.HTTPStatus.PARTIAL_CONTENT:
        raise BadAnswerError(f"status {response.status} for a Range: {body[:200]!r}")
    return body
