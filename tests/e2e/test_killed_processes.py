"""Processes of the service that are killed: the main process, and the helper that keeps the workers' states."""

import http.client
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from tests.e2e.support.cached_mirror import MIB, Cached, FaultyUpstream, Made, cached, faulty_upstream
from tests.e2e.support.plain_http import connect
from tests.e2e.support.processes import Process, free_port, port_open, session_pids, wait_until
from tests.e2e.support.service import Proxy, Serving, command, environment

PATIENCE = 30.0


@pytest.fixture(scope="module")
def upstream(workplace: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultyUpstream]:
    with faulty_upstream(workplace, tmp_path_factory.mktemp("killed")) as running:
        yield running


@pytest.fixture
def mirror(serve: Serving, upstream: FaultyUpstream, tmp_path: Path) -> Iterator[Cached]:
    upstream.control()
    with cached(serve, upstream, tmp_path / "cache") as running:
        yield running


def workers_of(proxy: Proxy) -> set[int]:
    with proxy.connection_to_each_worker() as connections:
        return {proxy.worker_of(connection) for connection in connections}


def helper_of(proxy: Proxy) -> int:
    """The only process of the service that is neither the main process nor a worker."""
    (helper,) = set(session_pids(proxy.process.pid)) - {proxy.process.pid} - workers_of(proxy)
    return helper


def kill_main(proxy: Proxy) -> None:
    os.kill(proxy.process.pid, signal.SIGKILL)
    proxy.process.wait(10)


def all_end(proxy: Proxy, seconds: float = PATIENCE) -> bool:
    return wait_until(lambda: session_pids(proxy.process.pid) == [], seconds)


def can_bind(port: int) -> bool:
    with suppress(OSError), socket.create_server(("127.0.0.1", port)):
        return True
    return False


class Slow:
    """A pull that is still running, because the upstream sends the rest of the blob only on request."""

    def __init__(self, mirror: Cached) -> None:
        self.mirror, self.made = mirror, mirror.upstream.blob(2 * MIB)
        mirror.upstream.control({"path": f".*{self.made.digest}", "hold_after": MIB})
        self.connection = connect(mirror.proxy.url, timeout=PATIENCE)
        self.connection.request("GET", self.made.path)
        self.response = self.connection.getresponse()
        self.begun = self.response.read(MIB // 2)

    def finish(self) -> bool:
        """Let the upstream send the rest. Returns whether the complete blob arrived."""
        self.mirror.upstream.control()
        with closing(self.connection), self.response:
            return self.begun + self.response.read() == self.made.content

    def is_cut(self) -> bool:
        with closing(self.connection), self.response:
            try:
                self.response.read()
            except (http.client.IncompleteRead, ConnectionError):
                return True
            return False


def test_all_processes_end_after_the_main_process_is_killed(mirror: Cached) -> None:
    assert len(session_pids(mirror.proxy.process.pid)) == 4, "main, helper, two workers"
    kill_main(mirror.proxy)
    assert all_end(mirror.proxy)


def test_a_service_started_after_the_main_process_was_killed_gets_the_port(
    serve: Serving, upstream: FaultyUpstream, tmp_path: Path
) -> None:
    upstream.control()
    settings = {"UPSTREAM_REGISTRY": upstream.url, "CACHE_DIR": str(tmp_path / "cache")}
    with serve(**settings) as first:
        kill_main(first)
        with serve(port=first.port, **settings) as second:
            assert not workers_of(second) & set(session_pids(first.process.pid))


def test_the_port_is_free_while_transfers_of_the_killed_service_finish(mirror: Cached) -> None:
    pull = Slow(mirror)
    kill_main(mirror.proxy)
    assert wait_until(lambda: can_bind(mirror.proxy.port), PATIENCE)
    assert pull.finish()
    assert all_end(mirror.proxy)


def test_transfers_are_interrupted_when_the_grace_period_is_over(
    serve: Serving, upstream: FaultyUpstream, tmp_path: Path
) -> None:
    upstream.control()
    with cached(serve, upstream, tmp_path / "cache", SHUTDOWN_GRACE="1") as mirror:
        pull = Slow(mirror)
        kill_main(mirror.proxy)
        assert all_end(mirror.proxy)
        assert pull.is_cut()


def test_sigterm_stops_workers_without_a_main_process(mirror: Cached) -> None:
    workers = workers_of(mirror.proxy)
    kill_main(mirror.proxy)
    for worker in workers:
        with suppress(ProcessLookupError):  # the worker has already ended
            os.kill(worker, signal.SIGTERM)
    assert all_end(mirror.proxy)


def test_workers_with_a_main_process_ignore_sigterm(mirror: Cached) -> None:
    workers = workers_of(mirror.proxy)
    for worker in workers:
        os.kill(worker, signal.SIGTERM)
    time.sleep(1)
    assert workers_of(mirror.proxy) == workers


def starting(folder: Path, upstream: FaultyUpstream, children: int) -> tuple[Process, int]:
    """A service that has just forked this number of children, and its port. The first child is the helper."""
    upstream.control()
    port = free_port()
    process = Process(command("serve"), folder / "log", environment(port, {"UPSTREAM_REGISTRY": upstream.url}))
    assert wait_until(lambda: len(session_pids(process.pid)) > children, PATIENCE, 0.001)
    return process, port


@pytest.mark.parametrize("children", [1, 2, 3])
def test_a_main_process_killed_during_the_start_leaves_no_process(
    children: int, upstream: FaultyUpstream, tmp_path: Path
) -> None:
    process, port = starting(tmp_path, upstream, children)
    try:
        os.kill(process.pid, signal.SIGKILL)
        process.wait(10)
        assert wait_until(lambda: session_pids(process.pid) == [], PATIENCE)
        assert wait_until(lambda: can_bind(port), PATIENCE)
    finally:
        process.kill()


def ends_with_one_line(mirror: Cached) -> None:
    main = mirror.proxy.process
    assert main.wait(PATIENCE) == 1
    assert all_end(mirror.proxy)
    assert "Traceback" not in main.log.read_text()
    (line,) = mirror.complaints()
    assert "the helper process" in line
    assert "the service exits with status 1 so that it is restarted" in line


def test_a_service_without_its_helper_exits_with_status_1_and_one_log_line(mirror: Cached) -> None:
    os.kill(helper_of(mirror.proxy), signal.SIGKILL)
    ends_with_one_line(mirror)


def test_a_service_without_its_helper_lets_transfers_finish(mirror: Cached) -> None:
    pull = Slow(mirror)
    os.kill(helper_of(mirror.proxy), signal.SIGKILL)
    assert wait_until(lambda: not port_open(mirror.proxy.port), PATIENCE)
    assert pull.finish()
    ends_with_one_line(mirror)


def test_a_service_without_its_helper_exits_within_the_grace_period(
    serve: Serving, upstream: FaultyUpstream, tmp_path: Path
) -> None:
    upstream.control()
    with cached(serve, upstream, tmp_path / "cache", SHUTDOWN_GRACE="1") as mirror:
        pull = Slow(mirror)
        os.kill(helper_of(mirror.proxy), signal.SIGKILL)
        ends_with_one_line(mirror)
        assert pull.is_cut()


def kill_helper(main: Process) -> None:
    os.kill(min(set(session_pids(main.pid)) - {main.pid}), signal.SIGKILL)


@pytest.mark.parametrize("children", [1, 2, 3])
def test_a_helper_killed_during_the_start_leaves_no_process(
    children: int, upstream: FaultyUpstream, tmp_path: Path
) -> None:
    process, _ = starting(tmp_path, upstream, children)
    try:
        kill_helper(process)
        assert process.wait(PATIENCE) == 1
        assert wait_until(lambda: session_pids(process.pid) == [], PATIENCE)
        assert "Traceback" not in process.log.read_text()
    finally:
        process.kill()


HELPER_ENDS_AT_ONCE = """
import os, signal, sys
from multiprocessing.managers import BaseManager
from docker_image_proxy.__main__ import main

BaseManager._run_server = lambda *arguments: os.kill(os.getpid(), signal.SIGKILL)
sys.argv = ["docker-image-proxy", "serve"]
sys.exit(main())
"""


def test_a_helper_killed_before_it_has_told_its_address_is_one_line(upstream: FaultyUpstream, tmp_path: Path) -> None:
    process = Process(
        [sys.executable, "-c", HELPER_ENDS_AT_ONCE],
        tmp_path / "log",
        environment(free_port(), {"UPSTREAM_REGISTRY": upstream.url}),
    )
    try:
        assert process.wait(PATIENCE) == 1
        (line,) = process.log.read_text().splitlines()
        assert "the helper process, which keeps the workers' states, ended during the start" in line
        assert wait_until(lambda: session_pids(process.pid) == [], PATIENCE)
    finally:
        process.kill()


def test_a_helper_killed_during_a_stop_leaves_no_process(mirror: Cached) -> None:
    helper = helper_of(mirror.proxy)
    mirror.proxy.process.terminate()
    os.kill(helper, signal.SIGKILL)
    assert mirror.proxy.process.wait(PATIENCE) in {0, 1}
    assert all_end(mirror.proxy)
    assert "Traceback" not in mirror.proxy.process.log.read_text()


@pytest.mark.parametrize("killed", ["worker", "helper", "main"])
def test_a_restarted_service_serves_after_each_process_was_killed(
    killed: str, serve: Serving, upstream: FaultyUpstream, tmp_path: Path
) -> None:
    """The test restarts the service when it has ended, as a service manager does."""
    upstream.control()
    settings = {"UPSTREAM_REGISTRY": upstream.url, "CACHE_DIR": str(tmp_path / "cache")}
    with serve(**settings) as first:
        made: Made = upstream.blob()
        victims = {"worker": min(workers_of(first)), "helper": helper_of(first), "main": first.process.pid}
        os.kill(victims[killed], signal.SIGKILL)
        if killed == "worker":
            assert wait_until(lambda: victims["worker"] not in workers_of(first), PATIENCE)
            assert first.get(made.path).body == made.content
            return
        assert first.process.wait(PATIENCE) != 0
        assert all_end(first)  # a worker that is about to end would take connections of the second service
        with serve(port=first.port, **settings) as second:
            assert second.get(made.path).body == made.content
