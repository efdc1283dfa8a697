"""Runs clients.py against a server and checks that every client received the whole body."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.contenders import Server
from benchmarks.plan import GIB

_PROGRAM = Path(__file__).with_name("clients.py")


class BadAnswerError(Exception):
    """A server did not send the expected content, so its measurement is not valid."""


@dataclass(frozen=True)
class Download:
    seconds: float
    bytes: int
    clients: list[dict[str, Any]]

    @property
    def gib(self) -> float:
        return self.bytes / GIB

    @property
    def gib_per_second(self) -> float:
        return self.gib / self.seconds

    @property
    def first_byte(self) -> float:
        return float(self.clients[0]["first_byte"])


def download_in_turn(server: Server, path: str, clients: int, times: int) -> Download:
    """Several downloads, one after another, added up: the time of one short transfer depends on the scheduler."""
    found = [download(server, path, clients) for _ in range(times)]
    all_clients = [client for one in found for client in one.clients]
    return Download(sum(one.seconds for one in found), sum(one.bytes for one in found), all_clients)


def download(
    server: Server, path: str, clients: int = 1, *, digest: str = "", seconds: float | None = None
) -> Download:
    """Raises BadAnswerError if a client did not get the whole body, or if the first client's digest is not `digest`.

    After `seconds` the clients stop, and an incomplete body is no error.
    """
    options = ["--clients", str(clients)]
    options += ["--hash"] if digest else []
    options += ["--seconds", str(seconds)] if seconds is not None else []
    done = subprocess.run(_argv(server, path, options), stdout=subprocess.PIPE, check=True, timeout=900)
    found = Download(**json.loads(done.stdout))
    for client in found.clients:
        was_cut = seconds is not None and client["error"] == "stopped" and client["status"] in {0, 200}
        if not was_cut and not (client["status"] == 200 and client["whole"]):
            last = server.process.tail(1)[:300]
            raise BadAnswerError(f"a client of {server.name} got {client} for {path}; the log ends with {last!r}")
    if digest and found.clients[0]["digest"] != digest:
        raise BadAnswerError(f"{server.name} sent content with the digest {found.clients[0]['digest']} for {path}")
    return found


@dataclass
class Drip:
    """Slow clients while they run. The values are set when they have been stopped."""

    slowest: float = 0.0  # bytes a second of the slowest client
    lost: int = 0
    problems: set[str] = field(default_factory=set)


@contextmanager
def dripping(server: Server, path: str, clients: int, rate: int) -> Iterator[Drip]:
    """Run slow clients during the block, which begins when each of them has received its first byte."""
    argv = _argv(server, path, ["--clients", str(clients), "--rate", str(rate), "--seconds", "300"])
    drip = Drip()
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        out = process.stdout
        assert out
        try:
            if not out.readline().startswith('{"begun"'):
                raise BadAnswerError(f"{server.name} did not serve {clients} slow clients")
            yield drip
        finally:
            process.terminate()
            last = out.read().strip()
        if last:
            found = json.loads(last)["clients"]
            drip.slowest = min(client["bytes"] / (client["seconds"] - (client["first_byte"] or 0)) for client in found)
            drip.problems = {client["error"] for client in found if client["error"] != "stopped"}
            drip.lost = sum(client["error"] != "stopped" for client in found)


def _argv(server: Server, path: str, options: list[str]) -> list[str]:
    headers = [word for line in server.headers() for word in ("--header", line)]
    trust = ["--ca", str(server.ca)] if server.ca else []
    return [sys.executable, str(_PROGRAM), "--port", str(server.port), "--path", path, *trust, *headers, *options]
