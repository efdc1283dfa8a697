"""Programs that tests start: with the output in a log file, a check of readiness, and an end by process id."""

import contextlib
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

# dockerd and similar programs are in sbin folders, which the PATH of an ordinary user does not contain.
SEARCH_PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/local/sbin", "/usr/sbin", "/sbin"])

# Ports below the kernel's range for outgoing connections, so that no client uses a port before the test does.
_PORTS = random.SystemRandom().sample(range(20000, 32000), 12000)


class NotReadyError(Exception):
    """A process ended early or did not answer in time. The message contains the end of its log."""


def program(name: str) -> str | None:
    return shutil.which(name, path=SEARCH_PATH)


def free_port() -> int:
    while True:
        port = _PORTS.pop()
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def wait_until(condition: Callable[[], bool], seconds: float, pause: float = 0.02) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(pause)
    return condition()


def port_open(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


class Process:
    """One program with its log file."""

    def __init__(self, argv: Sequence[str], log: Path, env: Mapping[str, str] | None = None) -> None:
        self.name = Path(argv[0]).name
        self.log = log
        with log.open("ab") as out:
            # The process starts a session, so that descendants that outlive it can be found and killed.
            self._popen = subprocess.Popen(
                [program(argv[0]) or argv[0], *argv[1:]], stdin=subprocess.DEVNULL, stdout=out,
                stderr=subprocess.STDOUT, env=env, start_new_session=True,
            )  # fmt: skip
        self.pid = self._popen.pid

    def wait_ready(self, ready: Callable[[], bool], seconds: float = 20) -> None:
        if wait_until(lambda: self.returncode is not None or ready(), seconds) and self.returncode is None:
            return
        state = "is not ready" if self.returncode is None else f"ended with {self.returncode}"
        self.stop(grace=1)
        raise NotReadyError(f"{self.name} {state}; its log ends:\n{self.tail()}")

    @property
    def returncode(self) -> int | None:
        return self._popen.poll()

    def wait(self, seconds: float) -> int:
        return self._popen.wait(seconds)

    def terminate(self) -> None:
        self._popen.send_signal(signal.SIGTERM)

    def stop(self, grace: float = 10) -> None:
        if self.returncode is None:
            self.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._popen.wait(grace)
        self.kill()

    def kill(self) -> None:
        """Kill the process and all its descendants."""
        for pid in session_pids(self.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._popen.wait(10)

    def tail(self, lines: int = 25) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def log_lines(self, since: int = 0) -> list[str]:
        return self.log.read_bytes()[since:].decode(errors="replace").splitlines()

    def settled_lines(self, since: int = 0) -> list[str]:
        """The lines of the log, after it stops growing: the access log is written after the answer."""
        size = -1
        while size != (size := self.mark()):
            time.sleep(0.15)
        return self.log_lines(since)

    def cpu_seconds(self) -> float:
        """The processor time of the process and its live children. Unlike a duration, it does not depend on what else
        the machine does.
        """
        return sum(cpu_seconds(pid) for pid in session_pids(self.pid))

    def mark(self) -> int:
        """The current end of the log, for `log_lines(since=...)`."""
        return self.log.stat().st_size


@contextlib.contextmanager
def running(process: Process, ready: Callable[[], bool], seconds: float = 20) -> Iterator[Process]:
    try:
        process.wait_ready(ready, seconds)
        yield process
    finally:
        process.stop()


def pause(*pids: int) -> None:
    """Stop the processes with SIGSTOP and wait until the kernel has stopped each of their threads. Without the wait, a
    process could still answer a request. `resume` lets them continue.
    """
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    if not wait_until(lambda: all(map(_is_paused, pids)), 10, 0.002):
        raise TimeoutError(f"not all of the processes {pids} have stopped")


def resume(*pids: int) -> None:
    for pid in pids:
        os.kill(pid, signal.SIGCONT)


def _is_paused(pid: int) -> bool:
    try:
        stats = [thread.read_text() for thread in Path(f"/proc/{pid}/task").glob("*/stat")]
    except OSError:  # a thread has ended meanwhile
        return False
    return all(stat.rpartition(") ")[2].startswith("T") for stat in stats)


def cpu_seconds(pid: int) -> float:
    """The processor time of one process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def session_pids(leader: int) -> list[int]:
    """All live processes of the session: the leader and its descendants."""
    pids = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            fields = re.sub(r"^.*\) ", "", (entry / "stat").read_text(), flags=re.DOTALL).split()
            if int(fields[3]) == leader and fields[0] != "Z":
                pids.append(int(entry.name))
    return sorted(pids)
