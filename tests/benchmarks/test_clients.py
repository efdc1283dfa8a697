"""The clients of the benchmark count the received bytes and report an incomplete body."""

import hashlib
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

PROGRAM = Path(__file__).parents[2] / "benchmarks" / "clients.py"
BODY = bytes(range(256)) * 4096  # 1 MiB
AGENT = "X-Bench: yes"


class Giver(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if self.headers["X-Bench"] == "yes" else 400)
        self.send_header("Content-Length", str(len(BODY)))
        self.end_headers()
        self.wfile.write(BODY[:1000] if self.path == "/short" else BODY)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def port() -> Iterator[int]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Giver) as server:
        server.handle_error = lambda *_: None  # type: ignore[method-assign] # slow clients leave early
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


def argv(port: int, path: str, *options: str) -> list[str]:
    return [sys.executable, str(PROGRAM), "--port", str(port), "--path", path, "--header", AGENT, *options]


def ran(port: int, path: str, *options: str) -> dict[str, Any]:
    done = subprocess.run(argv(port, path, *options), stdout=subprocess.PIPE, check=True, timeout=30)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def test_each_client_counts_the_whole_body(port: int) -> None:
    found = ran(port, "/", "--clients", "5")
    assert [(one["status"], one["bytes"], one["whole"], one["error"]) for one in found["clients"]] == [
        (200, len(BODY), True, "")
    ] * 5
    assert found["bytes"] == 5 * len(BODY)
    assert 0 < found["clients"][0]["first_byte"] <= found["clients"][0]["seconds"] <= found["seconds"]


def test_the_first_client_reports_the_digest_of_the_received_body(port: int) -> None:
    found = ran(port, "/", "--clients", "2", "--hash")
    assert [one["digest"] for one in found["clients"]] == [f"sha256:{hashlib.sha256(BODY).hexdigest()}", None]


def test_a_body_that_ends_early_is_reported_as_incomplete(port: int) -> None:
    [one] = ran(port, "/short")["clients"]
    assert (one["bytes"], one["whole"], one["error"]) == (1000, False, "cut short")


def test_clients_stop_after_their_time_limit(port: int) -> None:
    [one] = ran(port, "/", "--rate", "1000", "--seconds", "0.8")["clients"]
    assert (one["whole"], one["error"]) == (False, "stopped")


@contextmanager
def slow(port: int, rate: int) -> Iterator[Callable[[], dict[str, Any]]]:
    with subprocess.Popen(
        argv(port, "/", "--clients", "20", "--rate", str(rate)), stdout=subprocess.PIPE, text=True
    ) as process:  # fmt: skip
        out = process.stdout
        assert out
        assert json.loads(out.readline()) == {"begun": 20}

        def end() -> dict[str, Any]:
            process.terminate()
            return dict(json.loads(out.read()))

        yield end


@pytest.mark.slow
def test_slow_clients_read_at_their_rate_and_report_it_when_they_are_stopped(port: int) -> None:
    with slow(port, 20_000) as end:
        time.sleep(2)
        found = end()
    rates = [one["bytes"] / (one["seconds"] - one["first_byte"]) for one in found["clients"]]
    assert 10_000 < min(rates) <= max(rates) < 40_000
