"""Cold blobs from an upstream whose rate is limited: that of each connection, or that of all connections together."""

import json
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.arena import Arena, blob_path
from benchmarks.contenders import COLD_CONTENDERS, Server
from benchmarks.downloads import Download, download
from benchmarks.plan import MIB, blob_case
from benchmarks.results import DIRECT, OURS
from tests.e2e.support.plain_http import answers
from tests.e2e.support.processes import Process, free_port, running

EACH, IN_ALL = "limited connections", "limited line"
ONE_CONNECTION = f"{OURS}, DOWNLOAD_CONNECTIONS=1"
RATE_EACH, RATE_IN_ALL = 5_000_000, 100_000_000  # bytes a second
MANY = 50  # clients
_PROGRAM = Path(__file__).with_name("limited_relay.py")
_END = 1.0  # seconds before the last byte
_IN_USE = 16 << 10  # bytes in one line of the relay; a connection with fewer has only sent a manifest or a ping


@dataclass(frozen=True)
class Usage:
    bytes: int
    most: int  # connections that sent at the same time
    at_end: int  # the same, during the last second


@dataclass(frozen=True)
class Line:
    """A relay in front of the upstream, which limits the rate and counts the bytes that it has passed on."""

    process: Process
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def usage(self, since: int = 0) -> Usage:
        """What was sent since the mark of the relay's log."""
        return usage_of(self.process.settled_lines(since))


def usage_of(lines: Sequence[str]) -> Usage:
    """The usage in the lines that the relay has printed."""
    slots = [json.loads(line) for line in lines if line.startswith("{")]
    last = slots[-1]["at"] if slots else 0.0
    in_use = [(slot["at"], sum(count >= _IN_USE for count in slot["sent"].values())) for slot in slots]
    return Usage(
        sum(sum(slot["sent"].values()) for slot in slots),
        max((number for _, number in in_use), default=0),
        max((number for at, number in in_use if at > last - _END), default=0),
    )


@contextmanager
def limited(arena: Arena, *limit: str) -> Iterator[Line]:
    """`limit` are the options of the relay."""
    port = free_port()
    argv = [sys.executable, str(_PROGRAM), str(port), str(arena.upstream.port), *limit]
    with arena.room("line") as folder:
        process = Process(argv, folder / "relay.log")
        with running(process, lambda: answers(f"http://127.0.0.1:{port}/v2/")):
            yield Line(process, port)


def limited_connections(arena: Arena) -> None:
    """The servers are measured at the same time, because each of them only waits for its connections."""
    plan = arena.plan
    limit = ("--each", str(RATE_EACH))
    for _ in range(plan.rounds):
        with ExitStack() as stack:
            arena.make_resident(len(COLD_CONTENDERS) * plan.small)
            servers, lines = [], []
            for name in COLD_CONTENDERS:
                lines.append(stack.enter_context(limited(arena, *limit)))
                servers.append(stack.enter_context(arena.awake(name, arena.setup(lines[-1].url))))
            lines.append(stack.enter_context(limited(arena, *limit)))
            servers.append(Server(DIRECT, arena.upstream.process, lines[-1].port))
            with ThreadPoolExecutor(len(servers)) as pool:
                found = list(pool.map(lambda server: download(server, blob_path(arena.small)), servers))
            for server, line, got in zip(servers, lines, found, strict=True):
                _add(arena, EACH, blob_case(plan.small, 1), server.name, got, line.usage())
        arena.make_resident(plan.small)
        with limited(arena, *limit) as line, arena.awake(OURS, arena.setup(line.url)) as server:
            got = download(server, blob_path(arena.small), MANY)
            _add(arena, EACH, blob_case(plan.small, MANY), OURS, got, line.usage())


def limited_line(arena: Arena) -> None:
    """Compare the service with its default settings and with one connection per blob."""
    plan = arena.plan
    variants: dict[str, dict[str, str]] = {OURS: {}, ONE_CONNECTION: {"DOWNLOAD_CONNECTIONS": "1"}}
    for _ in range(plan.rounds):
        for name, settings in variants.items():
            with (
                limited(arena, "--in-all", str(RATE_IN_ALL)) as line,
                arena.awake(OURS, arena.setup(line.url, settings=settings)) as server,
            ):
                arena.make_resident(plan.big)
                since = line.process.mark()
                got = download(server, blob_path(arena.big))
                _add(arena, IN_ALL, blob_case(plan.big, 1), name, got, line.usage(since))


def _add(arena: Arena, scenario: str, case: str, name: str, got: Download, usage: Usage) -> None:
    arena.results.add(
        scenario, case, name, rate=got.bytes / got.seconds / 1e6, upstream=usage.bytes / MIB, most=usage.most,
        at_end=usage.at_end,
    )  # fmt: skip
