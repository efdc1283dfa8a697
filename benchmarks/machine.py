"""The machine and the versions with which the results were measured."""

import importlib.metadata
import os
import platform
import re
import resource
import subprocess
import time
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.network import congestion_control
from benchmarks.results import DISTRIBUTION
from entrypoints.version import NAME, VERSION
from tests.e2e.support.processes import program


class Neighbours:
    """What other processes on the machine used during the run. If it is much, the results are not valid."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._before = self._foreign()
        self._cut = self._cut_by_kernel()

    def cut(self) -> int:
        """The number of connections that the kernel has reset since the start because sockets used too much memory."""
        return self._cut_by_kernel() - self._cut

    def share(self) -> float:
        """The share of all processor time since the start. It includes what the host took from a virtual machine."""
        passed = (time.monotonic() - self._began) * (os.cpu_count() or 1)
        return max(0, self._foreign() - self._before) / passed

    @staticmethod
    def _cut_by_kernel() -> int:
        lines = [line.split() for line in Path("/proc/net/netstat").read_text().splitlines()]
        names, numbers = (line for line in lines if line[0] == "TcpExt:")
        return int(dict(zip(names, numbers, strict=True)).get("TCPAbortOnMemory", 0))

    @staticmethod
    def _foreign() -> float:
        # user, nice, system, idle, iowait, irq, softirq, steal
        fields = [int(field) for field in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
        busy = (sum(fields) - fields[3] - fields[4]) / os.sysconf("SC_CLK_TCK")
        usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        return busy - sum(usage.ru_utime + usage.ru_stime for usage in usages)


def metadata(neighbours: Neighbours, distribution: Path | None = None) -> dict[str, str]:
    """`distribution` is the program of distribution v3, if it was measured."""
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "processor": f"{_cpu()}, {os.cpu_count()} cores",
        "memory": f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / (1 << 30):.0f} GiB",
        "other processes": f"used {100 * neighbours.share():.0f} % of the processor time during the run",
        "system": f"{_system()}, Linux {platform.release()}",
        "congestion control": congestion_control(),
        "Python": platform.python_version(),
        NAME: f"{VERSION}{_commit()}",
        "Sanic, aiohttp": ", ".join(importlib.metadata.version(name) for name in ("sanic", "aiohttp")),
        "docker-registry": _version("docker-registry", "--version"),
        **({DISTRIBUTION: _version(str(distribution), "--version")} if distribution else {}),
        "nginx": _version("nginx", "-v"),
        "wrk": _version("wrk", "-v"),
        "docker": _version("dockerd", "--version"),
    }


def _cpu() -> str:
    found = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return found[1].strip() if found else platform.machine()


def _system() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except OSError:
        return "unknown"


def _version(name: str, option: str) -> str:
    path = program(name)
    if path is None:
        return "not installed"
    # wrk ends with status 1 after it has printed its version.
    done = subprocess.run([path, option], capture_output=True, text=True, check=False, timeout=20)
    found = re.search(r"\d+\.\d[\w.+~-]*", done.stdout + done.stderr)
    return found[0] if found else "unknown"


def _commit() -> str:
    """The commit, or "" if this is no checkout. A plus sign means that files differ from the commit."""
    git = program("git")
    if git is None:
        return ""
    argv = [git, "describe", "--always", "--dirty=+", "--abbrev=10", "--exclude=*"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=20)
    return f", commit {done.stdout.strip()}" if done.returncode == 0 else ""
