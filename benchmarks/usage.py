"""What a server cost: its processor time, and what it asked of the upstream."""

import re
import time
from contextlib import suppress
from dataclasses import dataclass
from os import sysconf
from pathlib import Path

from tests.e2e.support.docker_registry import Registry
from tests.e2e.support.processes import session_pids

TICKS = sysconf("SC_CLK_TCK")
# As tests.e2e.support.docker_registry.LINE, with the number of bytes that the upstream wrote.
_SENT = re.compile(r'"(?P<method>\S+) (?P<path>\S+) [^"]*" (?P<status>\d+) (?P<bytes>\d+) ')
_REST = 0.25
_PATIENCE = 120


def cpu_seconds(leader: int) -> float:
    """Of all processes of the leader's session: their own time, and that of children which have ended."""
    ticks = 0
    for pid in session_pids(leader):
        with suppress(OSError):  # ended since it was listed
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
            ticks += sum(int(field) for field in fields[11:15])  # utime, stime, cutime, cstime
    return ticks / TICKS


def rested_cpu_seconds(leader: int) -> float:
    """Once the server rests: docker-registry stores what it passed on after the client has gone."""
    end = time.monotonic() + _PATIENCE
    before = cpu_seconds(leader)
    while time.monotonic() < end:
        time.sleep(_REST)
        now = cpu_seconds(leader)
        if now - before < 0.1 * _REST:
            return now
        before = now
    raise TimeoutError(f"the server of process {leader} is still busy after {_PATIENCE} s without a client")


@dataclass(frozen=True)
class Traffic:
    """What the upstream's own log says of one path: answers to a GET for the whole, and bytes of all GETs."""

    whole_gets: int
    bytes: int


def traffic(upstream: Registry, since: int, part: str) -> Traffic:
    found = [line for line in map(_SENT.search, upstream.process.settled_lines(since)) if line]
    gets = [line for line in found if line["method"] == "GET" and part in line["path"]]
    # 206 is the answer to a Range; what was asked without one is answered by 200.
    return Traffic(sum(line["status"] == "200" for line in gets), sum(int(line["bytes"]) for line in gets))
