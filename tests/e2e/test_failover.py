"""An upstream with two addresses, of which the first is killed or sends wrong bytes."""

import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.support.cached_mirror import KIB, MIB, Cached, CacheFolder, FaultyUpstream, cached, faulty_upstream
from tests.e2e.support.docker import Docker
from tests.e2e.support.docker_registry import Registry, docker_registry
from tests.e2e.support.plain_http import fetch
from tests.e2e.support.processes import Process, free_port, running, wait_until
from tests.e2e.support.pull_checks import assert_all_fetched, pull_whole
from tests.e2e.support.service import Serving
from tests.e2e.support.upstreams import PRIVATE, PUBLIC, SERVERS, Content

pytestmark = pytest.mark.real()

SIZE = 4 * MIB


@dataclass
class Mortal:
    """A registry behind a relay that passes on only the first bytes of each answer."""

    registry: Registry
    gate: Process
    url: str

    def kill(self) -> None:
        """Kill the registry and the relay, because the relay still has bytes of the registry."""
        self.registry.process.kill()
        self.gate.kill()


@contextmanager
def mortal_registry(folder: Path, content: Content, size: int) -> Iterator[Mortal]:
    port = free_port()
    with docker_registry(folder, content.folder, "mortal") as registry:
        argv = [
            sys.executable,
            str(SERVERS / "holding_relay.py"),
            str(port),
            str(registry.port),
            str(size),
            str(folder / "never"),
        ]
        gate = Process(argv, folder / "gate.log")
        with running(gate, lambda: b"listening" in gate.log.read_bytes()):
            yield Mortal(registry, gate, f"http://127.0.0.1:{port}")


@pytest.mark.real("docker-registry", "dockerd")
def test_docker_does_not_notice_that_the_first_address_is_killed_during_a_pull(
    docker: Docker, serve: Serving, content: Content, open_registry: Registry, tmp_path: Path
) -> None:
    image, cache = content.images[PUBLIC], CacheFolder(tmp_path / "cache")
    since = open_registry.mark()
    with (
        mortal_registry(tmp_path, content, 200 * KIB) as first,
        serve(UPSTREAM_REGISTRY=first.url, UPSTREAM_FALLBACKS=open_registry.url, CACHE_DIR=str(cache.path)) as proxy,
        ThreadPoolExecutor() as pool,
    ):
        pulling = pool.submit(docker.pull, f"{proxy.host}/{PUBLIC}:1")
        assert wait_until(lambda: cache.partial_bytes() >= 200 * KIB, 30), "no layer is partly downloaded"
        assert open_registry.content_requests(since) == [], "the second address is not asked while the first one works"
        first.kill()
        pulled = pulling.result().ok()
        assert "retry" not in pulled.output.lower()
        assert docker.diff_ids(f"{proxy.host}/{PUBLIC}:1") == list(image.diff_ids)
        resumed = [request for request in open_registry.content_requests(since) if request.status == 206]
        assert {request.path.rpartition("/")[2] for request in resumed} & {layer.digest for layer in image.layers}
        page = fetch("GET", f"{proxy.url}/metrics").body.decode()
        assert "docker_image_proxy_endpoint_failures_total 0" not in page
        # A new image is pulled without the first address, too.
        since = open_registry.mark()
        pull_whole(docker, content, PRIVATE, proxy.host)
        assert_all_fetched(open_registry.content_requests(since), PRIVATE, content.images[PRIVATE])
        assert fetch("GET", f"{proxy.url}/readyz").status == 200
    assert cache.wrong() == []


@dataclass
class Two:
    """A mirror of an upstream with two addresses, which serve the same files."""

    service: Cached
    second: FaultyUpstream


@pytest.fixture
def two(serve: Serving, tmp_path: Path) -> Iterator[Two]:
    files = tmp_path / "files"
    with (
        faulty_upstream(tmp_path, files) as first,
        faulty_upstream(tmp_path, files) as second,
        cached(serve, first, tmp_path / "cache", FILL_RETRIES="1", UPSTREAM_FALLBACKS=second.url) as service,
    ):
        yield Two(service, second)
    assert service.cache.wrong() == []


def test_a_body_that_breaks_off_is_resumed_at_the_next_address(two: Two) -> None:
    blob = two.service.upstream.blob(SIZE)
    two.service.upstream.control({"path": blob.digest, "cut_after": 2 * MIB})
    assert two.service.gives(blob)
    assert two.service.cache.holds(blob)
    (began,), (rest,) = two.service.upstream.gets(blob.path), two.second.gets(blob.path)
    assert began["range"] is None
    assert int(rest["range"].removeprefix("bytes=").removesuffix("-")) > MIB


@pytest.mark.parametrize("fault", [{"flip_at": 3 * MIB}, {"flip_at": -1}, {"ignore_range": True, "flip_at": MIB}])
def test_a_correct_start_and_a_wrong_rest_of_another_address_are_never_a_complete_body(
    two: Two, fault: dict[str, object]
) -> None:
    blob = two.service.upstream.blob(SIZE)
    two.service.upstream.control({"path": blob.digest, "cut_after": 2 * MIB})
    two.second.control({"path": blob.digest, **fault})
    pulled = two.service.pull(blob)
    assert not (pulled.whole and pulled.status == 200)
    assert not two.service.cache.file(blob.digest).exists()
    two.service.upstream.control()
    two.second.control()
    # A download that started again in between may still get the wrong content.
    assert wait_until(lambda: two.service.gives(blob), 10)


def test_the_next_address_is_asked_if_one_refuses_and_an_error_is_returned_if_both_refuse(two: Two) -> None:
    blob, other = two.service.upstream.blob(), two.service.upstream.blob()
    two.service.upstream.control({"status": 503, "methods": ["GET", "HEAD"]})
    assert two.service.gives(blob)
    two.second.control({"status": 429, "retry_after": "7", "methods": ["GET", "HEAD"]})
    answer = two.service.proxy.get(other.path)
    assert (answer.status, answer.headers["Retry-After"]) == (429, "7")
    assert two.service.gives(blob), "the cached blob is still served"
