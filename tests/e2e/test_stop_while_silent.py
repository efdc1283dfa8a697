"""Stopping the service while its upstream is silent logs no traceback, whichever requests are waiting."""

import os
import re
import signal
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from tests.e2e.support.cached_mirror import FaultyUpstream, faulty_upstream
from tests.e2e.support.processes import Process, free_port, port_open, running, session_pids, wait_until
from tests.e2e.support.service import Serving, command, environment
from tests.e2e.support.upstreams import basic

SILENT = {"silent": True}
BLOB, OTHER_BLOB = f"sha256:{'a' * 64}", f"sha256:{'b' * 64}"
TOKEN = "/v2/auth?service=docker-image-proxy&scope=repository:e2e/cached:pull"
TARGETS = [
    "/v2/",
    "/readyz",
    "/v2/_catalog",
    "/v1/search?q=a",
    TOKEN,
    *(
        f"/v2/e2e/cached/{rest}"
        for rest in (
            "manifests/1", "manifests/2", f"manifests/{BLOB}", f"blobs/{BLOB}", f"blobs/{OTHER_BLOB}", "tags/list",
            f"referrers/{BLOB}",
        )
    ),
]  # fmt: skip
HEADERS = ["", "Authorization: Bearer foreign\r\n", "Range: bytes=0-0\r\n", f"Authorization: {basic('a', 'b')}\r\n"]


@pytest.fixture
def upstream(workplace: Path, tmp_path: Path) -> Iterator[FaultyUpstream]:
    with faulty_upstream(workplace, tmp_path / "files") as running_upstream:
        yield running_upstream


def ask_everything(stack: ExitStack, port: int) -> None:
    """Send each kind of request twice, so that some requests wait for others, and keep the connections open."""
    for target in TARGETS * 2:
        for method in ("GET", "HEAD"):
            for header in HEADERS:
                client = stack.enter_context(closing(socket.create_connection(("127.0.0.1", port), timeout=30)))
                client.sendall(f"{method} {target} HTTP/1.1\r\nHost: mirror.test\r\n{header}\r\n".encode())


def troubles(process: Process) -> list[str]:
    """The log lines with a traceback, or with a warning of Python about lost tasks and exceptions."""
    words = re.compile(r"Traceback|exc_info|exception was never retrieved|was destroyed|never awaited|Unhandled|Error:")
    return [
        line for line in process.settled_lines() if words.search(line) and '"docker_image_proxy.access"' not in line
    ]


@pytest.mark.parametrize("grace", ["0", "1"])
@pytest.mark.parametrize("is_known", [True, False], ids=["after its first answer", "never heard of"])
@pytest.mark.parametrize("is_reloaded", [True, False], ids=["during a reload", "as it is"])
def test_a_stop_while_the_upstream_is_silent_logs_no_traceback(
    *, grace: str, is_known: bool, is_reloaded: bool, upstream: FaultyUpstream, tmp_path: Path
) -> None:
    upstream.control(*([] if is_known else [SILENT]))
    port = free_port()
    settings = {"UPSTREAM_REGISTRY": upstream.url, "SHUTDOWN_GRACE": grace, "UPSTREAM_TIMEOUT": "60"}
    process = Process(
        command("serve"), tmp_path / "log", environment(port, {**settings, "CACHE_DIR": str(tmp_path / "c")})
    )
    with ExitStack() as stack, running(process, lambda: port_open(port), 30):
        if is_known:
            assert wait_until(lambda: "trust row" in process.log.read_text(), 30)
            upstream.control(SILENT)
        ask_everything(stack, port)
        time.sleep(1)
        if is_reloaded:
            mark = process.mark()
            os.kill(process.pid, signal.SIGHUP)
            wait_until(lambda: process.mark() > mark, 2)
        process.terminate()
        assert process.wait(60) == 0
        assert troubles(process) == []


ODD_SERVICE = """
import asyncio, sys, time
import sanic.server.runners as runners
from entrypoints.cli import main
from entrypoints.http.runtime import Runtimes

set_up = runners._setup_system_signals

def set_up_later(*arguments):
    time.sleep(2)
    set_up(*arguments)

async def never_close(runtimes):
    await asyncio.Event().wait()

if "slow start" in sys.argv:
    runners._setup_system_signals = set_up_later
if "endless close" in sys.argv:
    Runtimes.close = never_close
sys.exit(main(["serve"]))
"""


@pytest.mark.parametrize("seconds", [0.5, 1, 1.5, 2.5])
def test_a_stop_while_the_workers_start_stops_them(seconds: float, upstream: FaultyUpstream, tmp_path: Path) -> None:
    """This includes the time before the workers install their signal handlers, which the test makes longer."""
    upstream.control(SILENT)
    port = free_port()
    settings = {"UPSTREAM_REGISTRY": upstream.url, "SHUTDOWN_GRACE": "0", "UPSTREAM_TIMEOUT": "60"}
    process = Process([sys.executable, "-c", ODD_SERVICE, "slow start"], tmp_path / "log", environment(port, settings))
    with running(process, lambda: port_open(port), 30):
        time.sleep(seconds)
        process.terminate()
        assert process.wait(60) == 0
        assert process.settled_lines() == []


def test_workers_that_do_not_end_are_killed(upstream: FaultyUpstream, tmp_path: Path) -> None:
    upstream.control()
    port = free_port()
    settings = {"UPSTREAM_REGISTRY": upstream.url, "SHUTDOWN_GRACE": "0"}
    process = Process(
        [sys.executable, "-c", ODD_SERVICE, "endless close"], tmp_path / "log", environment(port, settings)
    )
    with running(process, lambda: port_open(port), 30):
        assert wait_until(lambda: "trust row" in process.log.read_text(), 30)
        process.terminate()
        assert process.wait(60) == 0
        assert session_pids(process.pid) == []
        errors = [line for line in process.settled_lines() if '"ERROR"' in line]
        assert ["did not end within SHUTDOWN_GRACE and 10 seconds" in line for line in errors] == [True]


@pytest.mark.parametrize("grace", ["0", "1"])
def test_a_stop_while_bodies_are_stalled_logs_no_traceback(
    grace: str, serve: Serving, upstream: FaultyUpstream
) -> None:
    upstream.control()
    made = [upstream.blob() for _ in range(3)]
    with (
        serve(UPSTREAM_REGISTRY=upstream.url, SHUTDOWN_GRACE=grace, UPSTREAM_TIMEOUT="60") as proxy,
        ExitStack() as stack,
    ):
        upstream.control({"methods": ["GET"], "path": ".*blobs.*", "hold_after": 1000})
        for blob in made * 2:
            client = stack.enter_context(closing(socket.create_connection(("127.0.0.1", proxy.port), timeout=30)))
            client.sendall(f"GET {blob.path} HTTP/1.1\r\nHost: mirror.test\r\n\r\n".encode())
        time.sleep(1)
        proxy.process.terminate()
        assert proxy.process.wait(60) == 0
        assert troubles(proxy.process) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopping_the_warm_command_while_the_upstream_is_silent_shows_no_traceback(
    number: int, upstream: FaultyUpstream, tmp_path: Path
) -> None:
    upstream.control(SILENT)
    environ = environment(free_port(), {"UPSTREAM_REGISTRY": upstream.url, "CACHE_DIR": str(tmp_path / "cache")})
    process = Process(command("warm", "e2e/cached:1"), tmp_path / "log", environ)
    try:
        assert upstream.holds(1)
        os.kill(process.pid, number)
        assert process.wait(30) != 0
        assert "Traceback" not in process.log.read_text()
    finally:
        process.kill()
