"""The processor time of a server and its traffic with the upstream."""

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
    """The time of all processes in the session of `leader`, including child processes that have ended."""
    ticks = 0
    for pid in session_pids(leader):
        with suppress(OSError):  # the process has ended since it was listed
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
            ticks += sum(int(field) for field in fields[11:15])  # utime, stime, cutime, cstime
    return ticks / TICKS


def rested_cpu_seconds(leader: int) -> float:
    """The time when the server has become idle. docker-registry still stores a blob after the client has left."""
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
    """Requests for one path in the upstream's log: the number of GETs, of those without a Range, and their bytes."""

    gets: int
    whole_gets: int
    bytes: int  # of all GETs


def traffic(upstream: Registry, since: int, part: str) -> Traffic:
    found = [line for line in map(_SENT.search, upstream.process.settled_lines(since)) if line]
    gets = [line for line in found if line["method"] == "GET" and part in line["path"]]
    # Requests with a Range are answered with 206, those without a Range with 200.
    whole = sum(line["status"] == "200" for line in gets)
    return Traffic(len(gets), whole, sum(int(line["bytes"]) for line in gets))
