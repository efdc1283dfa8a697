"""A client cannot hold connections without using them."""

import contextlib
import hashlib
import resource
import ssl
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.e2e.support.certificates import PrivateAuthority
from tests.e2e.support.docker_registry import Registry, docker_registry
from tests.e2e.support.images import Blob
from tests.e2e.support.plain_http import answers
from tests.e2e.support.processes import Process, cpu_seconds, free_port, running, session_pids, wait_until
from tests.e2e.support.push import push_blob
from tests.e2e.support.raw_connections import Raw, raw, several, still_open
from tests.e2e.support.service import Proxy, Serving, command, environment
from tests.e2e.support.upstreams import PUBLIC

NOWHERE = {"UPSTREAM_REGISTRY": "http://127.0.0.1:9", "ready": "/livez"}
LIVEZ = b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n"
UNFINISHED = b"GET /livez HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nx"
MIB = 1 << 20
SLACK = 20
"""Seconds to wait after the timeout of 2 seconds, for a machine under load."""


@pytest.fixture(scope="module")
def quick(serve: Serving) -> Iterator[Proxy]:
    """A service with a request timeout of two seconds."""
    with serve(REQUEST_TIMEOUT="2", **NOWHERE) as proxy:
        yield proxy


@pytest.mark.parametrize(
    "packet",
    [
        b"",
        b"G",
        b"GET /livez HTTP/1.1\r\nHost: a\r\n",
        UNFINISHED,
        b"GET /livez HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nx",
        b"GET /livez HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nContent-Length: 5\r\n\r\nx",
        b"POST /v2/auth HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nx",
        b"POST /v2/auth HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n",
        LIVEZ + UNFINISHED,
        LIVEZ + b"G",
    ],
    ids=str,
)
def test_the_service_closes_a_connection_with_an_unfinished_request(quick: Proxy, packet: bytes) -> None:
    with raw(quick.port) as connection:
        connection.send(packet)
        assert connection.is_ended(SLACK)


@pytest.mark.parametrize("packet", [UNFINISHED, b"GET /livez HTTP/1.1\r\n"], ids=["body", "head"])
def test_a_request_that_is_not_complete_in_time_is_answered_408(quick: Proxy, packet: bytes) -> None:
    with raw(quick.port) as connection:
        connection.send(packet)
        assert connection.error() == (408, "UNAVAILABLE")
        assert connection.is_ended(SLACK)


@pytest.mark.parametrize("before", [b"", LIVEZ], ids=["first", "second"])
def test_headers_sent_byte_by_byte_do_not_extend_the_timeout(quick: Proxy, before: bytes) -> None:
    with raw(quick.port) as connection:
        connection.send(before + b"GET /livez HTTP/1.1\r\nHost: a\r\nX: ")
        assert connection.send_slowly(b"x", 0.3, SLACK)


@pytest.mark.parametrize(
    ("framing", "piece"),
    [(b"Content-Length: 60000\r\n\r\n", b"x"), (b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n")],
    ids=["length", "chunks"],
)
def test_a_body_sent_byte_by_byte_does_not_extend_the_timeout(quick: Proxy, framing: bytes, piece: bytes) -> None:
    with raw(quick.port) as connection:
        connection.send(b"POST /v2/auth HTTP/1.1\r\nHost: a\r\n" + framing)
        assert connection.send_slowly(piece, 0.3, SLACK)


def test_an_idle_connection_is_kept_longer_than_the_request_timeout(quick: Proxy) -> None:
    with raw(quick.port) as connection:
        for _ in range(2):
            connection.send(LIVEZ)
            assert connection.answer()[0] == 200
            assert not connection.is_ended(3.5)


def test_an_unfinished_tls_handshake_times_out(authority: PrivateAuthority, tmp_path: Path) -> None:
    trusting = ssl.create_default_context(cafile=str(authority.certificate))
    hello, sent = ssl.MemoryBIO(), ssl.MemoryBIO()
    beginning = trusting.wrap_bio(hello, sent, server_hostname="127.0.0.1")
    with pytest.raises(ssl.SSLWantReadError):
        beginning.do_handshake()
    packet = sent.read()
    port = free_port()
    settings = {"TLS_CERT": str(authority.server.certificate), "TLS_KEY": str(authority.server.key)}
    settings |= {"REQUEST_TIMEOUT": "2", "UPSTREAM_REGISTRY": "http://127.0.0.1:9"}
    process = Process(command("serve"), tmp_path / "tls.log", environment(port, settings))
    with ExitStack() as stack:
        stack.enter_context(running(process, lambda: answers(f"https://127.0.0.1:{port}/livez", tls=trusting), 30))
        silent, slow, half = (stack.enter_context(raw(port)) for _ in range(3))
        half.send(packet[: len(packet) // 2])
        assert slow.send_slowly(packet[:60], 0.3, SLACK)
        assert silent.is_ended(SLACK)
        assert half.is_ended(SLACK)
        late = stack.enter_context(raw(port, trusting))
        late.send(b"GET /livez HTTP/1.1\r\nHost: a\r\nX: ")
        assert late.send_slowly(b"x", 0.3, SLACK)
        kept = stack.enter_context(raw(port, trusting))
        for _ in range(2):
            kept.send(LIVEZ)
            assert kept.answer()[0] == 200
        assert "Traceback" not in process.tail(1000)


@pytest.mark.parametrize(
    ("status", "packet"),
    [
        (404, b"POST /nowhere HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\nx"),
        (404, b"POST /nowhere HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nx"),
        (404, b"POST /nowhere HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n"),
        (405, b"PUT /v2/a/manifests/1 HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\nx"),
        (413, b"POST /v2/auth HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\nx"),
        (413, b"POST /v2/auth HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nfffff\r\nx"),
        (417, b"POST /v2/auth HTTP/1.1\r\nHost: a\r\nExpect: more\r\nContent-Length: 5\r\n\r\nx"),
    ],
)
def test_an_error_before_the_body_was_read_closes_the_connection(quick: Proxy, status: int, packet: bytes) -> None:
    with raw(quick.port) as connection:
        connection.send(packet)
        found, headers, _ = connection.answer()
        assert (found, headers["connection"]) == (status, "close")
        assert connection.is_ended(SLACK)


def test_the_client_gets_the_error_response_while_it_still_sends_the_body(quick: Proxy) -> None:
    with raw(quick.port) as connection:
        connection.send(b"POST /v2/auth HTTP/1.1\r\nHost: a\r\nContent-Length: 8000000\r\n\r\n" + b"x" * 8_000_000)
        assert connection.error() == (413, "SIZE_INVALID")


@pytest.mark.parametrize("protocol", [b"websocket", b"h2c", b"TLS/1.0"])
def test_upgrade_is_ignored(quick: Proxy, protocol: bytes) -> None:
    with raw(quick.port) as connection:
        for _ in range(2):
            connection.send(
                b"GET /livez HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: %b\r\n"
                b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n" % protocol
            )
            status, headers, body = connection.answer()
            assert (status, headers["connection"], body) == (200, "keep-alive", b'{"status":"live"}')


def test_the_service_disconnects_a_client_that_does_not_read(serve: Serving) -> None:
    settings = {"DELIVERY_IDLE": "1", "UPSTREAM_TIMEOUT": "0.5", "WORKERS": "1", "LOG_LEVEL": "error"}
    with serve(**settings, **NOWHERE) as proxy, raw(proxy.port) as connection:
        connection.socket.settimeout(2)
        with contextlib.suppress(TimeoutError, ConnectionError):
            while True:  # until the buffers of both sides are full
                connection.socket.sendall(b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n" * 1000)
        assert wait_until(lambda: established(proxy) == 0, 40, 0.3)


def established(proxy: Proxy) -> int:
    """The number of open connections on the side of the service."""
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(fields[1].endswith(f":{proxy.port:04X}") and fields[3] in {"01", "08"} for fields in lines)


def logged(proxy: Proxy, words: str) -> list[str]:
    return [line for line in proxy.process.settled_lines() if words in line]


def test_waiting_connections_are_limited_per_client_address(serve: Serving) -> None:
    settings = {"MAX_WAITING_PER_ADDRESS": "10", "REQUEST_TIMEOUT": "300", "WORKERS": "1"}
    with serve(**settings, **NOWHERE) as proxy, ExitStack() as stack:
        idle = stack.enter_context(several(proxy.port, 30, LIVEZ))
        assert [connection.answer()[0] for connection in idle] == [200] * 30
        heads = stack.enter_context(several(proxy.port, 20, b"GET /livez HTTP/1.1\r\n"))
        bodies = stack.enter_context(several(proxy.port, 20, UNFINISHED))
        assert wait_until(lambda: still_open(heads) + still_open(bodies) <= 10, SLACK, 0.3)
        time.sleep(2)
        assert still_open(heads) + still_open(bodies) == 10, "no more connections are closed than needed"
        for connection in idle:  # connections between two requests do not count
            connection.send(LIVEZ)
        assert [connection.answer()[0] for connection in idle] == [200] * 30
        assert logged(proxy, "MAX_WAITING_PER_ADDRESS=10")


def test_trusted_proxies_are_exempt_from_the_connection_limit(serve: Serving) -> None:
    settings = {"MAX_WAITING_PER_ADDRESS": "5", "REQUEST_TIMEOUT": "300", "TRUSTED_PROXIES": "127.0.0.0/8"}
    with serve(**settings, **NOWHERE) as proxy, several(proxy.port, 50, b"GET /livez HTTP/1.1\r\n") as connections:
        time.sleep(5)
        assert still_open(connections) == 50


@pytest.mark.real("docker-registry")
def test_connections_that_receive_content_do_not_count_as_waiting(serve: Serving, tmp_path: Path) -> None:
    (tmp_path / "content").mkdir()
    blob = Blob(hashlib.shake_256(b"slow").digest(16 * MIB), "application/octet-stream")
    with docker_registry(tmp_path, tmp_path / "content", "slow") as registry, ExitStack() as stack:
        push_blob(registry.url, "e2e/slow", blob)
        settings = {**registry.settings, "UPSTREAM_IDENTITY": "anonymous", "WORKERS": "1"}
        proxy = stack.enter_context(serve(MAX_WAITING_PER_ADDRESS="3", REQUEST_TIMEOUT="300", **settings))
        assert proxy.get(f"/v2/e2e/slow/blobs/{blob.digest}").body == blob.content
        request = f"GET /v2/e2e/slow/blobs/{blob.digest} HTTP/1.1\r\nHost: {proxy.host}\r\n\r\n".encode()
        receiving = stack.enter_context(several(proxy.port, 12, request))
        waiting = stack.enter_context(several(proxy.port, 6, b"GET"))
        assert wait_until(lambda: still_open(waiting) <= 3, SLACK, 0.3)
        time.sleep(2)
        # Read all at the same time: the kernel resumes a stalled connection only seconds later.
        with ThreadPoolExecutor(len(receiving)) as readers:
            bodies = [body for _, _, body in readers.map(Raw.answer, receiving)]
        assert [body == blob.content for body in bodies] == [True] * 12


def test_the_connections_of_a_worker_are_limited(serve: Serving) -> None:
    settings = {"MAX_CONNECTIONS": "20", "WORKERS": "1", "REQUEST_TIMEOUT": "300"}
    with serve(**settings, **NOWHERE) as proxy:
        with several(proxy.port, 30, LIVEZ) as idle:
            # Each connection is answered; the longest idle connections are closed.
            assert [connection.answer()[0] for connection in idle] == [200] * 30
            assert wait_until(lambda: established(proxy) <= 20, 10)
            assert still_open(idle[-10:]) == 10
        with several(proxy.port, 40, b"GET") as waiting, raw(proxy.port) as connection:
            connection.send(LIVEZ)
            assert connection.answer()[0] == 200
            assert still_open(waiting) <= 20
        assert logged(proxy, "MAX_CONNECTIONS")


@pytest.mark.real("docker-registry")
@pytest.mark.parametrize("packet", [b"", UNFINISHED], ids=["silent", "body"])
def test_the_service_answers_while_a_thousand_connections_are_held_open(
    serve: Serving, open_registry: Registry, packet: bytes
) -> None:
    settings = {**open_registry.settings, "UPSTREAM_IDENTITY": "anonymous", "WORKERS": "1"}
    settings |= {"MAX_WAITING_PER_ADDRESS": "5000", "REQUEST_TIMEOUT": "300"}
    with serve(descriptors=256, **settings) as proxy:
        path = f"/v2/{PUBLIC}/manifests/1"
        warm = proxy.get(path)
        assert warm.status == 200
        with several(proxy.port, 1000, packet) as held:
            assert proxy.get("/livez").status == 200
            again = proxy.get(path)
            assert (again.status, again.body) == (200, warm.body)
            assert still_open(held) == 1000


@pytest.mark.real("docker-registry")
def test_an_address_that_holds_a_thousand_connections_open_is_still_answered(
    serve: Serving, open_registry: Registry
) -> None:
    settings = {**open_registry.settings, "UPSTREAM_IDENTITY": "anonymous"}
    with serve(descriptors=256, **settings) as proxy:
        path = f"/v2/{PUBLIC}/manifests/1"
        assert proxy.get(path).status == 200
        with several(proxy.port, 1000, UNFINISHED):
            for _ in range(10):
                assert proxy.get("/livez").status == 200
                assert proxy.get(path).status == 200


def test_the_soft_limit_of_file_descriptors_is_raised_to_the_hard_limit(serve: Serving) -> None:
    with serve(descriptors=200, **NOWHERE) as proxy:
        for pid in session_pids(proxy.process.pid):
            soft, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
            assert soft == hard > 200


def test_the_service_logs_that_it_has_no_file_descriptors_left_and_recovers(serve: Serving) -> None:
    with serve(WORKERS="1", **NOWHERE) as proxy, proxy.connection_to_each_worker(1) as (idle,):
        worker = proxy.worker_of(idle)
        _, hard = resource.prlimit(worker, resource.RLIMIT_NOFILE)
        resource.prlimit(worker, resource.RLIMIT_NOFILE, (5, hard))
        with several(proxy.port, 20, LIVEZ) as late:
            assert wait_until(lambda: bool(logged(proxy, "cannot accept connections")), SLACK, 0.3)
            before = cpu_seconds(worker)
            time.sleep(4)
            assert cpu_seconds(worker) - before < 2, "the worker pauses between two attempts"
            assert len(logged(proxy, "cannot accept connections")) == 1, "it is logged at most once a minute"
            resource.prlimit(worker, resource.RLIMIT_NOFILE, (hard, hard))
            assert [connection.answer()[0] for connection in late] == [200] * 20
