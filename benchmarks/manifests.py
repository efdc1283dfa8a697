"""Warm manifests by tag and by digest, requested by wrk. An empty Sanic handler is measured for comparison."""

import re
import subprocess
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from benchmarks.arena import TAG_PATH, Arena
from benchmarks.contenders import Server, empty_sanic
from benchmarks.downloads import BadAnswerError
from tests.e2e.support.processes import program

MANIFESTS = "warm manifests"
BY_TAG, BY_DIGEST = "by tag", "by digest"
CONNECTIONS = 32
_TIMES = 3  # in each round: sometimes one worker of a server accepts all connections, because wrk opens them at once
_MILLISECONDS = {"us": 0.001, "ms": 1.0, "s": 1000.0, "m": 60000.0}


@dataclass(frozen=True)
class Load:
    requests: int
    rate: float
    p50: float  # milliseconds
    p99: float


def parse_wrk(output: str) -> Load:
    """Raises BadAnswerError if wrk reports an error or a status other than 2xx and 3xx."""
    if trouble := re.search(r"Non-2xx.*|Socket errors.*", output):
        raise BadAnswerError(trouble[0])
    requests = re.search(r"^ +(\d+) requests in ", output, re.MULTILINE)
    rate = re.search(r"Requests/sec: +([\d.]+)", output)
    parts = dict(re.findall(r"^ +(50|99)% +([\d.]+\w+) *$", output, re.MULTILINE))
    if not requests or not rate or len(parts) < 2:
        raise BadAnswerError(f"the output of wrk cannot be parsed: {output}")
    return Load(int(requests[1]), float(rate[1]), _milliseconds(parts["50"]), _milliseconds(parts["99"]))


def _milliseconds(text: str) -> float:
    number, unit = re.fullmatch(r"([\d.]+)(\w+)", text).groups()  # type: ignore[union-attr] # as found above
    return float(number) * _MILLISECONDS[unit]


def wrk(server: Server, path: str, seconds: int, connections: int = CONNECTIONS) -> Load:
    headers = [word for line in server.headers() for word in ("-H", line)]
    url = f"http://127.0.0.1:{server.port}{path}"
    argv = [program("wrk") or "wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", *headers, url]
    return parse_wrk(subprocess.run(argv, stdout=subprocess.PIPE, text=True, check=True, timeout=120).stdout)


def manifests(arena: Arena, servers: Sequence[Server]) -> None:
    size = len(arena.image.manifest.content)
    with ExitStack() as stack:
        quiet, logging = (
            stack.enter_context(empty_sanic(stack.enter_context(arena.room("sanic")), size, access_log=on))
            for on in (False, True)
        )
        for _ in range(_TIMES * arena.plan.rounds):
            for case, path, met in (
                (BY_TAG, TAG_PATH, [*servers, quiet, logging]),
                (BY_DIGEST, arena.digest_path, servers),
            ):
                for server in met:
                    _same_body(arena, server, path)
                    load = wrk(server, path, arena.plan.wrk_seconds)
                    arena.results.add(MANIFESTS, case, server.name, rate=load.rate, p50=load.p50, p99=load.p99)


def _same_body(arena: Arena, server: Server, path: str) -> None:
    body, right = server.get(path).body, arena.image.manifest.content
    if body != right and body != b"x" * len(right):
        raise BadAnswerError(f"{server.name} sent {body[:80]!r} for {path}")
