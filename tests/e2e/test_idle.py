"""An idle service uses little processor time."""

import re
import time
from pathlib import Path

from tests.e2e.support.processes import session_pids
from tests.e2e.support.service import Serving

SECONDS = 3.0
MOST_PER_SECOND = 12
"""How often the main process and the helper may wake. Each looks once a second whether it has something to do, and the
main process then asks the helper for the states of two workers: 2 to 6 times were measured. Sanic's own loop wakes them
30 and 20 times.
"""


def wakes(pid: int) -> int:
    """How often the threads of the process have waited, so that they had to be woken."""
    found = 0
    for thread in Path(f"/proc/{pid}/task").iterdir():
        found += int(re.search(r"^voluntary_ctxt_switches:\s+(\d+)", (thread / "status").read_text(), re.MULTILINE)[1])  # type: ignore[index]
    return found


def test_the_processes_that_serve_no_requests_are_rarely_awake(serve: Serving) -> None:
    with serve(UPSTREAM_REGISTRY="http://127.0.0.1:9", ready="/livez") as proxy:
        with proxy.connection_to_each_worker() as connections:
            workers = {proxy.worker_of(one) for one in connections}
        others = set(session_pids(proxy.process.pid)) - workers
        assert len(others) == 2, "the main process and Sanic's helper"
        time.sleep(1)  # the loop of the main process ends its first, short wait
        before = {pid: wakes(pid) for pid in others}
        time.sleep(SECONDS)
        found = {pid: (wakes(pid) - number) / SECONDS for pid, number in before.items()}
        assert max(found.values()) <= MOST_PER_SECOND, found
