"""Reports what the worker is doing to the metrics and to the page, once a second."""

import asyncio
import math
import resource
from collections import Counter, deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from application.ports.activity import Activity
from application.ports.telemetry import WorkerState
from entrypoints.http.runtime import Runtimes

_PAUSE_SECONDS = 1.0
_REMEMBERED = 15
"""Delays of the event loop: as many seconds as a Prometheus usually takes between two scrapes."""
_OPEN_FILES = Path("/proc/self/fd")


async def report_worker_state(runtimes: Runtimes, connections: Callable[[], int]) -> None:
    """Report until the task is cancelled. It then ends normally, because Sanic logs a warning for a cancelled task."""
    loop = asyncio.get_running_loop()
    lags: deque[float] = deque([0.0], _REMEMBERED)
    with suppress(asyncio.CancelledError):
        while True:
            state = current_state(runtimes, connections(), max(lags))
            runtimes.current.container.worker_states().report(state)
            if runtimes.current.settings.page != "off":
                runtimes.current.container.activity_table().report(current_activity(runtimes))
            due = loop.time() + _PAUSE_SECONDS
            await asyncio.sleep(_PAUSE_SECONDS)
            lags.append(max(0.0, loop.time() - due))


def current_state(runtimes: Runtimes, connections: int, lag: float) -> WorkerState:
    """What the worker does for requests of the current settings and of those before a reload."""
    downloads = readers = requests = 0
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    upstream_requests: Counter[str] = Counter()
    for runtime in runtimes.open:
        running, reading = runtime.container.downloads().counts()
        downloads, readers, requests = downloads + running, readers + reading, requests + runtime.requests
        upstream_requests.update(runtime.container.upstream_requests().running())
    return WorkerState(
        downloads,
        readers,
        requests,
        connections,
        upstream_requests,
        lag,
        open_files(),
        math.inf if limit == resource.RLIM_INFINITY else limit,
    )


def current_activity(runtimes: Runtimes) -> Activity:
    """The running downloads, also those that began before a reload, and the troubles with upstreams."""
    downloads = [state for runtime in runtimes.open for state in runtime.container.downloads().states()]
    return Activity(downloads, tuple(runtimes.current.container.find_troubles()()))


def open_files() -> int:
    """The file descriptors of this process; 0 where the system has no /proc."""
    try:
        return sum(1 for _ in _OPEN_FILES.iterdir()) - 1  # one is of the listing itself
    except OSError:
        return 0
