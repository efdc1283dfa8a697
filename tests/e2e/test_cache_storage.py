"""The storage of the cache: killed processes, a full disk, eviction and damaged files."""

import contextlib
import http.client
import os
import random
import re
import signal
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.e2e.support.cached_mirror import KIB, MIB, Cached, CacheFolder, FaultyUpstream, Made, cached, faulty_upstream
from tests.e2e.support.docker import run
from tests.e2e.support.images import OCI_MANIFEST, make_image
from tests.e2e.support.plain_http import send
from tests.e2e.support.processes import wait_until
from tests.e2e.support.service import Serving

pytestmark = pytest.mark.real()

SIZE = 4 * MIB


@pytest.fixture(scope="module")
def upstream(workplace: Path) -> Iterator[FaultyUpstream]:
    with faulty_upstream(workplace, workplace / "storage-upstream") as running_one:
        yield running_one


@pytest.fixture(scope="module")
def service(serve: Serving, upstream: FaultyUpstream, workplace: Path) -> Iterator[Cached]:
    with cached(serve, upstream, workplace / "storage-cache") as found:
        yield found
    assert found.cache.wrong() == []


@pytest.fixture(autouse=True)
def _faultless(upstream: FaultyUpstream) -> Iterator[None]:
    yield
    upstream.control()


def held_half_way(service: Cached, blob: Made) -> None:
    service.upstream.control({"path": blob.digest, "hold_after": blob.size // 2})


def test_a_fill_continues_when_the_client_that_started_it_disconnects(service: Cached) -> None:
    blob = service.upstream.blob(SIZE)
    held_half_way(service, blob)
    with service.proxy.open(blob.path) as response:
        assert response.read(MIB) == blob.content[:MIB]
        assert service.upstream.holds()
    time.sleep(0.5)  # until the mirror notices that the client has disconnected
    service.upstream.control()
    assert service.cache.holds(blob)
    assert [entry["sent"] for entry in service.upstream.gets(blob.path)] == [SIZE]
    assert service.gives(blob)


def test_a_service_killed_during_a_fill_leaves_no_partial_content(
    serve: Serving, upstream: FaultyUpstream, tmp_path: Path
) -> None:
    blob, other = upstream.blob(SIZE), upstream.blob(SIZE)
    folder = CacheFolder(tmp_path / "cache")
    upstream.control({"hold_after": SIZE // 2, "path": "/blobs/"})
    with cached(serve, upstream, folder.path) as service, ThreadPoolExecutor() as pool:
        broken = [pool.submit(service.pull, one) for one in (blob, other)]
        assert upstream.holds(2)
        assert wait_until(lambda: folder.partial_bytes() >= 2 * MIB, 10)
        service.proxy.process.kill()
        assert not any(one.result().whole for one in broken)
    upstream.control()
    assert not folder.file(blob.digest).exists()
    with cached(serve, upstream, folder.path) as service:
        assert service.gives(blob)
        assert service.cache.holds(blob)
        # No client asked for the other blob again.
        assert wait_until(lambda: folder.abandoned() == [], 10), folder.abandoned()
        assert folder.wrong() == []
        assert service.gives(other)


def test_another_worker_takes_over_the_fill_of_a_killed_worker(service: Cached) -> None:
    blob = service.upstream.blob(SIZE)
    held_half_way(service, blob)
    with service.proxy.connection_to_each_worker() as (first, second):
        victim = service.proxy.worker_of(first)
        first.request("GET", blob.path)
        assert service.upstream.holds()
        second.request("GET", blob.path)
        following = second.getresponse()
        body = following.read(1000)
        os.kill(victim, signal.SIGKILL)
        service.upstream.control()
        assert body + following.read() == blob.content
    assert service.cache.holds(blob)
    assert service.gives(blob)


def test_a_new_worker_resumes_the_partial_blob_of_a_killed_worker(service: Cached) -> None:
    blob = service.upstream.blob(SIZE)
    held_half_way(service, blob)
    with service.proxy.connection_to_each_worker() as (first, second):
        victims = {service.proxy.worker_of(first), service.proxy.worker_of(second)}
        first.request("GET", blob.path)
        assert service.upstream.holds()
        assert wait_until(lambda: service.cache.partial_bytes() >= SIZE // 4, 10)
        for victim in victims:
            os.kill(victim, signal.SIGKILL)
    service.upstream.control()
    with service.proxy.connection_to_each_worker() as connections:
        assert not {service.proxy.worker_of(one) for one in connections} & victims
    time.sleep(0.5)  # until the new workers have cleaned up
    assert service.gives(blob)
    assert [bool(entry["range"]) for entry in service.upstream.gets(blob.path)] == [False, True]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)])
    if mounted.status:
        pytest.skip(f"only root may mount: {mounted.output}")
    yield folder
    run(["umount", "--lazy", str(folder)]).ok()


@pytest.mark.parametrize("fault", [{}, {"chunked": True}], ids=["known size", "unknown size"])
@pytest.mark.parametrize("bound", ["20GiB", "80%"])
def test_a_full_disk_does_not_affect_clients(
    serve: Serving, upstream: FaultyUpstream, small_disk: Path, *, fault: dict[str, object], bound: str
) -> None:
    large = upstream.blob(16 * MIB)
    upstream.control({"path": large.digest, **fault})
    with cached(serve, upstream, small_disk / "cache", CACHE_SIZE=bound) as service:
        small = service.warm(MIB)
        with ThreadPoolExecutor() as pool:
            assert list(pool.map(service.gives, [large] * 3)) == [True] * 3
        assert service.gives(small)
        assert not service.cache.file(large.digest).exists()
        if bound == "20GiB":
            assert service.counted("storage_full_total") > 0
            assert any(re.search("full|room|space", line) for line in service.complaints())
        assert wait_until(lambda: service.cache.partial_bytes() == 0, 10), (
            "the partial file that did not fit is deleted"
        )
        assert service.gives(service.warm(MIB)), "a blob that fits is cached as usual"


@contextlib.contextmanager
def slow_reader(port: int, path: str) -> Iterator[http.client.HTTPResponse]:
    """A response with a small socket buffer, so that the service must still read the rest from the file."""
    narrow = socket.socket()
    narrow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * KIB)
    narrow.settimeout(30)
    narrow.connect(("127.0.0.1", port))
    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.sock = narrow
    connection.request("GET", path)
    with contextlib.closing(connection), connection.getresponse() as response:
        yield response


def test_eviction_interrupts_no_reader_and_keeps_the_size_limit(
    serve: Serving, upstream: FaultyUpstream, tmp_path: Path
) -> None:
    bound = 32 * MIB
    with cached(serve, upstream, tmp_path / "cache", CACHE_SIZE=str(bound)) as service:
        first = service.warm(12 * MIB)
        with slow_reader(service.proxy.port, first.path) as response:
            body = response.read(64 * KIB)
            for _ in range(4):
                assert service.gives(service.upstream.blob(6 * MIB))
                body += response.read(64 * KIB)
            assert wait_until(lambda: not service.cache.file(first.digest).exists(), 15), (
                "the least recently used blob is evicted"
            )
            assert wait_until(lambda: service.cache.content_size() + service.cache.partial_bytes() <= bound, 15)
            body += response.read()
        assert body == first.content
        assert service.counted("evictions_total") > 0
        since = upstream.mark()
        assert service.gives(first)
        assert len(upstream.gets(first.path, since)) == 1
        assert wait_until(lambda: service.cache.content_size() + service.cache.partial_bytes() <= bound, 15)
        assert service.cache.content_size() > bound // 2


def test_a_blob_larger_than_the_cache_is_served(serve: Serving, upstream: FaultyUpstream, tmp_path: Path) -> None:
    with cached(serve, upstream, tmp_path / "cache", CACHE_SIZE="4MiB") as service:
        large = upstream.blob(10 * MIB)
        assert service.gives(large)
        assert service.gives(large)
        assert wait_until(lambda: service.cache.content_size() + service.cache.partial_bytes() <= 4 * MIB, 15)
        assert service.gives(service.warm(MIB))


DAMAGES = {
    "gone": lambda file: file.unlink(),
    "empty": lambda file: os.truncate(file, 0),
    "half": lambda file: os.truncate(file, file.stat().st_size // 2),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_blobs_are_detected_and_fetched_again(service: Cached, damage: str) -> None:
    blob = service.warm(SIZE)
    DAMAGES[damage](service.cache.file(blob.digest))
    with ThreadPoolExecutor() as pool:
        pulled = list(pool.map(lambda _: service.pull(blob), range(4)))
    # The request that detects the damage may end early, but no client gets an incomplete body as a complete one.
    assert all((one.status, one.body) == (200, blob.content) for one in pulled if one.whole)
    if damage == "gone":
        assert all(one.whole for one in pulled)
    assert service.gives(blob)
    assert service.cache.holds(blob)


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_manifests_are_detected_and_fetched_again(service: Cached, damage: str) -> None:
    image = make_image(damage, (100,))
    service.upstream.push(image, damage)
    path = f"/v2/e2e/cached/manifests/{damage}"
    assert service.proxy.get(path, Accept=OCI_MANIFEST).body == image.manifest.content
    file = service.cache.file(image.manifest.digest)
    assert wait_until(file.is_file, 10)
    DAMAGES[damage](file)
    # The worker with the manifest in memory does not read the file; the other worker does.
    with service.proxy.connection_to_each_worker() as connections:
        for connection in connections:
            answer = send(connection, "GET", path, {"Accept": OCI_MANIFEST})
            assert (answer.status, answer.body) == (200, image.manifest.content)
    assert wait_until(lambda: file.is_file() and file.read_bytes() == image.manifest.content, 10)


def overwrite(file: Path) -> None:
    file.write_bytes(random.randbytes(100_000))  # noqa: S311 - damage, not a secret


def tear(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[200::7] = bytes(len(content[200::7]))
    file.write_bytes(content[: len(content) * 3 // 4])


@pytest.mark.parametrize("damage", [overwrite, tear])
def test_a_corrupt_index_does_not_stop_the_start(
    serve: Serving, upstream: FaultyUpstream, tmp_path: Path, damage
) -> None:
    with cached(serve, upstream, tmp_path / "cache") as service:
        blob = service.warm(MIB)
    index = tmp_path / "cache" / "index.sqlite3"
    for journal in (index.with_name(index.name + "-wal"), index.with_name(index.name + "-shm")):
        journal.unlink(missing_ok=True)
    damage(index)
    with cached(serve, upstream, tmp_path / "cache") as service:
        assert service.gives(blob)
        assert service.gives(service.warm(MIB))
        since = upstream.mark()
        assert service.gives(blob)
        assert service.gives(blob)
        assert upstream.gets(blob.path, since) == []
