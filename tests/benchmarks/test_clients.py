"""The clients of the benchmark count the received bytes and report an incomplete body, also with TLS."""

import hashlib
import json
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.support.certificates import PrivateAuthority, make_authority
from tests.entrypoints.plain_server import answering

PROGRAM = Path(__file__).parents[2] / "benchmarks" / "clients.py"
BODY = bytes(range(256)) * 4096  # 1 MiB
AGENT = "X-Bench: yes"


class Giver(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if self.headers["X-Bench"] == "yes" else 400)
        self.send_header("Content-Length", str(len(BODY)))
        self.end_headers()
        missing = int(self.path.removeprefix("/short/")) if self.path.startswith("/short/") else 0
        self.wfile.write(BODY[: len(BODY) - missing])

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def giving(tls: ssl.SSLContext | None = None) -> Iterator[int]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Giver) as server:
        server.handle_error = lambda *_: None  # type: ignore[method-assign] # slow clients leave early
        if tls:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        with answering(server):
            yield server.server_address[1]


@pytest.fixture
def port() -> Iterator[int]:
    with giving() as port:
        yield port


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> PrivateAuthority:
    return make_authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def tls_port(authority: PrivateAuthority) -> Iterator[int]:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(authority.server.certificate, authority.server.key)
    with giving(context) as port:
        yield port


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
    [one] = ran(port, f"/short/{len(BODY) - 1000}")["clients"]
    assert (one["bytes"], one["whole"], one["error"]) == (1000, False, "cut short")


def test_each_client_counts_the_whole_body_over_tls_without_decrypting_it(
    tls_port: int, authority: PrivateAuthority
) -> None:
    found = ran(tls_port, "/", "--clients", "3", "--ca", str(authority.certificate))
    assert [(one["status"], one["bytes"], one["whole"], one["error"]) for one in found["clients"]] == [
        (200, len(BODY), True, "")
    ] * 3
    assert found["bytes"] == 3 * len(BODY)


def test_a_digest_is_that_of_the_decrypted_body(tls_port: int, authority: PrivateAuthority) -> None:
    [one] = ran(tls_port, "/", "--hash", "--ca", str(authority.certificate))["clients"]
    assert (one["digest"], one["whole"]) == (f"sha256:{hashlib.sha256(BODY).hexdigest()}", True)


@pytest.mark.parametrize("missing", [1, 1000, len(BODY) - 1])
def test_a_body_that_ends_early_over_tls_is_reported_as_incomplete(
    tls_port: int, authority: PrivateAuthority, missing: int
) -> None:
    [one] = ran(tls_port, f"/short/{missing}", "--ca", str(authority.certificate))["clients"]
    assert (one["whole"], one["error"]) == (False, "cut short")


def test_a_certificate_of_another_authority_is_refused(tls_port: int, tmp_path: Path) -> None:
    other = make_authority(tmp_path).certificate
    with pytest.raises(subprocess.CalledProcessError):
        ran(tls_port, "/", "--ca", str(other))


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
