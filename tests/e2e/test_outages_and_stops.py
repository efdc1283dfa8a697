"""The upstream fails or is unavailable, the service is stopped or loses a process, a client tries to push."""

import hashlib
import http.client
import os
import signal
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from tests.e2e.support.cached_mirror import faulty_upstream
from tests.e2e.support.docker_registry import Registry, docker_registry
from tests.e2e.support.images import Blob, digest_of
from tests.e2e.support.plain_http import fetch, send
from tests.e2e.support.processes import Process, free_port, port_open, session_pids, wait_until
from tests.e2e.support.push import push_blob
from tests.e2e.support.service import Serving, command, environment
from tests.e2e.support.upstreams import PUBLIC, Content

pytestmark = pytest.mark.real("docker-registry")

TAGS = f"/v2/{PUBLIC}/tags/list"
MIB = 1 << 20
# Much more than all socket buffers hold together, so that a slow reader slows down the upstream.
LARGE = 192 * MIB


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Blob]:
    """A folder of content with one large blob in the repository `e2e/large`."""
    folder = tmp_path_factory.mktemp("large")
    (folder / "content").mkdir()
    block = hashlib.shake_256(b"e2e").digest(MIB)
    content = b"".join(number.to_bytes(8, "big") + block[8:] for number in range(LARGE // MIB))
    blob = Blob(content, "application/octet-stream")
    with docker_registry(folder, folder / "content", "filling") as registry:
        push_blob(registry.url, "e2e/large", blob)
    return folder, blob


@pytest.fixture
def mortal(large: tuple[Path, Blob]) -> Iterator[Registry]:
    """A registry that the test may kill."""
    folder, _ = large
    with docker_registry(folder, folder / "content", "mortal") as registry:
        yield registry


def test_a_body_that_the_upstream_breaks_off_ends_early_for_the_client(serve: Serving, tmp_path: Path) -> None:
    with faulty_upstream(tmp_path, tmp_path / "files") as upstream, serve(UPSTREAM_REGISTRY=upstream.url) as proxy:
        blob = upstream.blob(8 * MIB)
        # The mirror cannot have the rest, however fast it is.
        upstream.control({"path": blob.digest, "hold_after": 2 * MIB})
        with proxy.open(blob.path) as response:
            assert (response.status, response.length) == (200, blob.size)
            assert len(response.read(MIB)) == MIB
            assert wait_until(lambda: upstream.state("holding") >= 1, 20)
            upstream.process.kill()
            with pytest.raises((http.client.IncompleteRead, ConnectionError)):
                response.read()
        assert proxy.get("/livez").status == 200


def test_the_service_recovers_each_time_the_upstream_becomes_available(
    serve: Serving, content: Content, tmp_path: Path
) -> None:
    port = free_port()
    with (
        serve(UPSTREAM_REGISTRY=f"http://127.0.0.1:{port}", ready="/livez") as proxy,
        proxy.connection_to_each_worker() as workers,
    ):
        with docker_registry(tmp_path, content.folder, "late", port=port) as late:
            # Each worker notices the state of the upstream separately, at its own next request.
            assert wait_until(lambda: asked(workers, TAGS) == {200}, 15, 0.3)
            assert wait_until(lambda: asked(workers, "/readyz") == {200}, 15, 0.3)
            late.process.kill()
        assert asked(workers, TAGS) == {502}
        assert asked(workers, "/v2/") == {401}, "the stored challenge is still known"
        assert asked(workers, "/livez") == {200}
        # Readiness is checked at most every few seconds.
        assert wait_until(lambda: asked(workers, "/readyz") == {503}, 15, 0.3)
        with docker_registry(tmp_path, content.folder, "back", port=port):
            assert wait_until(lambda: asked(workers, "/readyz") == {200}, 15, 0.3)
            assert asked(workers, TAGS) == {200}


def asked(workers: Iterable[http.client.HTTPConnection], path: str) -> set[int]:
    """The statuses of the answers of all workers. Each answer must be JSON."""
    answers = [send(worker, "GET", path) for worker in workers]
    assert all(answer.json() for answer in answers)
    return {answer.status for answer in answers}


def test_without_an_upstream_the_service_is_live_and_not_ready(serve: Serving) -> None:
    nowhere = f"http://127.0.0.1:{free_port()}"
    with serve(ready="/livez", UPSTREAM_REGISTRY=nowhere) as proxy:
        ready = proxy.get("/readyz")
        assert ready.status == 503
        assert ready.json()
        for path in (f"/v2/{PUBLIC}/manifests/1", f"/v2/{PUBLIC}/tags/list"):
            answer = proxy.get(path)
            assert answer.status in (502, 503), path
            assert answer.json()["errors"][0]["code"]
        assert proxy.get("/v2/").status in (502, 503)


def test_sigterm_lets_a_running_transfer_finish(serve: Serving, mortal: Registry, large: tuple[Path, Blob]) -> None:
    with (
        serve(**mortal.settings) as proxy,
        proxy.open(f"/v2/e2e/large/blobs/{large[1].digest}") as response,
    ):
        body = response.read(MIB)
        proxy.process.terminate()
        time.sleep(1)
        assert proxy.process.returncode is None, "the service must wait for the transfer"
        body += response.read()
        assert digest_of(body) == large[1].digest
        assert proxy.process.wait(10) == 0
        assert not port_open(proxy.port)


def test_sigterm_interrupts_a_transfer_when_the_grace_period_is_over(
    serve: Serving, mortal: Registry, large: tuple[Path, Blob]
) -> None:
    with (
        serve(**mortal.settings, SHUTDOWN_GRACE="2") as proxy,
        proxy.open(f"/v2/e2e/large/blobs/{large[1].digest}") as response,
    ):
        response.read(MIB)
        began = time.monotonic()
        proxy.process.terminate()
        proxy.process.wait(15)
        assert 1.5 < time.monotonic() - began < 10
        with pytest.raises((http.client.IncompleteRead, ConnectionError)):
            response.read()


def test_sigterm_stops_an_idle_service_at_once(serve: Serving, open_registry: Registry) -> None:
    with serve(**open_registry.settings) as proxy:
        assert proxy.get("/livez").status == 200
        began = time.monotonic()
        proxy.process.terminate()
        assert proxy.process.wait(10) == 0
        assert time.monotonic() - began < 5


def test_sigterm_stops_a_service_during_its_start(open_registry: Registry, tmp_path: Path) -> None:
    # Several at once, stopped at different moments of their start: between any two of its steps.
    started = [
        Process(command("serve"), tmp_path / f"log-{number}", environment(free_port(), open_registry.settings))
        for number in range(6)
    ]
    try:
        for process in started:
            time.sleep(0.7)
            process.terminate()
        assert wait_until(lambda: all(process.returncode is not None for process in started), 10, 0.1)
    finally:
        for process in started:
            process.kill()


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", f"/v2/{PUBLIC}/blobs/uploads/"),
        ("POST", f"/v2/{PUBLIC}/blobs/uploads/?mount=sha256:{'0' * 64}&from=library/x"),
        ("PUT", f"/v2/{PUBLIC}/manifests/1"),
        ("PATCH", f"/v2/{PUBLIC}/blobs/uploads/0"),
        ("DELETE", f"/v2/{PUBLIC}/manifests/1"),
        ("DELETE", f"/v2/{PUBLIC}/blobs/sha256:{'0' * 64}"),
    ],
)
def test_a_push_is_answered_405_before_authorization_is_checked(
    idle, open_registry: Registry, method: str, path: str
) -> None:
    since = open_registry.mark()
    answer = fetch(method, idle.url + path, {"Authorization": "Bearer abc"}, b"x" * 1000)
    assert (answer.status, answer.error_codes()) == (405, ["UNSUPPORTED"])
    assert {part.strip() for part in answer.headers["Allow"].split(",")} >= {"GET", "HEAD"}
    assert open_registry.content_requests(since) == []


@pytest.fixture(scope="module")
def idle(serve: Serving, open_registry: Registry) -> Iterator:
    with serve(**open_registry.settings) as proxy:
        yield proxy


def test_a_worker_that_is_killed_is_replaced(serve: Serving, mortal: Registry) -> None:
    with serve(**mortal.settings) as proxy:
        with proxy.connection_to_each_worker() as before:
            killed = {proxy.worker_of(connection) for connection in before}
            for worker in killed:
                os.kill(worker, signal.SIGKILL)
        with proxy.connection_to_each_worker() as after:
            assert not {proxy.worker_of(connection) for connection in after} & killed
        proxy.process.terminate()
        assert proxy.process.wait(10) == 0


def test_a_service_whose_helper_process_is_killed_exits_with_status_1(serve: Serving, mortal: Registry) -> None:
    with serve(**mortal.settings) as proxy:
        main = proxy.process.pid
        (helper,) = (pid for pid in session_pids(main) if pid != main and os.getpgid(pid) == main)
        os.kill(helper, signal.SIGKILL)
        assert proxy.process.wait(20) == 1
        assert session_pids(main) == []
