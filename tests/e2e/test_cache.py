"""The cache: content that was pulled once is served correctly without another request to the upstream."""

import socket
import ssl
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.e2e.support.cached_mirror import (
    KIB,
    MIB,
    NAME,
    Cached,
    FaultyUpstream,
    Made,
    cached,
    faulty_upstream,
    pull,
    settle,
)
from tests.e2e.support.certificates import PrivateAuthority
from tests.e2e.support.draining_clients import Drain
from tests.e2e.support.images import MANIFEST_TYPES, Image, make_image
from tests.e2e.support.plain_http import answers, connect, fetch, send
from tests.e2e.support.processes import Process, free_port, running, wait_until
from tests.e2e.support.service import Serving, command, environment

pytestmark = pytest.mark.real()

SIZE = 300 * KIB
BOTH = pytest.mark.parametrize("warm", [False, True], ids=["cold", "warm"])
ACCEPT = {"Accept": ", ".join(MANIFEST_TYPES)}
MANIFESTS = f"/v2/{NAME}/manifests"


@pytest.fixture(scope="module")
def upstream(workplace: Path) -> Iterator[FaultyUpstream]:
    with faulty_upstream(workplace, workplace / "cache-upstream") as running_one:
        yield running_one


@pytest.fixture(scope="module")
def service(serve: Serving, upstream: FaultyUpstream, workplace: Path) -> Iterator[Cached]:
    with cached(serve, upstream, workplace / "cache-of-service") as found:
        yield found
    assert found.cache.wrong() == []


@pytest.fixture(autouse=True)
def _faultless(upstream: FaultyUpstream) -> Iterator[None]:
    yield
    upstream.control()


def made(service: Cached, size: int = SIZE, *, warm: bool) -> Made:
    return service.warm(size) if warm else service.upstream.blob(size)


def whole_gets(upstream: FaultyUpstream, blob: Made, since: int = 0) -> int:
    """The number of complete fetches of the blob. Fails if the upstream sent other bytes of it."""
    gets = upstream.gets(blob.path, since)
    whole = [entry for entry in gets if entry["range"] is None and entry["status"] == 200]
    assert sum(entry["sent"] for entry in gets) == len(whole) * blob.size, gets
    return len(whole)


def test_a_second_pull_from_either_worker_is_answered_from_the_cache(service: Cached) -> None:
    image = make_image("warm", (100_000, 20_000))
    service.upstream.push(image, "warm")
    paths = {f"{MANIFESTS}/warm": image.manifest, f"{MANIFESTS}/{image.manifest.digest}": image.manifest}
    paths |= {f"/v2/{NAME}/blobs/{blob.digest}": blob for blob in image.blobs}
    for path, blob in paths.items():
        assert service.proxy.get(path, **ACCEPT).body == blob.content
    settle()
    since = service.upstream.mark()
    with service.proxy.connection_to_each_worker() as connections:
        for connection in connections:
            for path, blob in paths.items():
                answer = send(connection, "GET", path, ACCEPT)
                assert (answer.status, answer.body) == (200, blob.content)
                assert answer.headers["Docker-Content-Digest"] == blob.digest
                assert answer.headers["Content-Length"] == str(len(blob.content))
                if "/manifests/" in path:
                    assert answer.headers["Content-Type"] == blob.media_type
    assert service.upstream.content_requests(since) == []


@BOTH
def test_a_head_has_the_length_and_digest_of_the_blob_and_no_body(service: Cached, *, warm: bool) -> None:
    blob = made(service, warm=warm)
    since = service.upstream.mark()
    answer = service.proxy.request("HEAD", blob.path)
    assert (answer.status, answer.body) == (200, b"")
    assert answer.headers["Content-Length"] == str(blob.size)
    assert answer.headers["Docker-Content-Digest"] == blob.digest
    assert service.upstream.gets(blob.path, since) == []
    assert service.gives(blob)


PARTS = {
    "bytes=0-99": (0, 100),
    "bytes=0-": (0, SIZE),
    "bytes=1000-200000": (1000, 200001),
    f"bytes={SIZE - 10}-": (SIZE - 10, SIZE),
    f"bytes={SIZE - 10}-{SIZE + 10}": (SIZE - 10, SIZE),
    "bytes=-100": (SIZE - 100, SIZE),
}


@BOTH
@pytest.mark.parametrize("asked", PARTS)
def test_a_range_returns_exactly_the_requested_bytes(service: Cached, asked: str, *, warm: bool) -> None:
    blob = made(service, warm=warm)
    start, stop = PARTS[asked]
    since = service.upstream.mark()
    answer = service.proxy.get(blob.path, Range=asked)
    assert (answer.status, answer.body) == (206, blob.content[start:stop])
    assert answer.headers["Content-Range"] == f"bytes {start}-{stop - 1}/{SIZE}"
    assert answer.headers["Content-Length"] == str(stop - start)
    assert not (warm and service.upstream.content_requests(since))
    assert service.gives(blob)


@BOTH
def test_a_range_beyond_the_end_is_answered_416(service: Cached, *, warm: bool) -> None:
    blob = made(service, warm=warm)
    answer = service.proxy.get(blob.path, Range=f"bytes={SIZE}-")
    assert (answer.status, answer.headers["Content-Range"]) == (416, f"bytes */{SIZE}")
    assert answer.error_codes()
    assert service.gives(blob)


@BOTH
def test_a_matching_if_none_match_is_answered_304(service: Cached, *, warm: bool) -> None:
    blob = made(service, warm=warm)
    since = service.upstream.mark()
    answer = service.proxy.get(blob.path, **{"If-None-Match": f'"{blob.digest}"'})
    assert (answer.status, answer.body) == (304, b"")
    assert [entry["sent"] for entry in service.upstream.gets(blob.path, since) if entry["sent"]] == []
    other = service.proxy.get(blob.path, **{"If-None-Match": f'"sha256:{"0" * 64}"'})
    assert (other.status, other.body) == (200, blob.content)


def test_fifty_clients_of_a_cold_blob_cost_the_upstream_one_get(service: Cached) -> None:
    blob = service.upstream.blob(64 * MIB)
    drains = [Drain(service.proxy.port, blob.path, digest=number % 10 == 0) for number in range(50)]
    for drain in drains:
        drain.start()
    for drain in drains:
        drain.join()
    assert {(drain.status, drain.expected, drain.received) for drain in drains} == {(200, blob.size, blob.size)}
    assert {drain.digest for drain in drains[::10]} == {blob.digest}
    assert whole_gets(service.upstream, blob) == 1


def test_two_workers_that_race_for_a_cold_blob_fetch_it_once(service: Cached) -> None:
    blob = service.upstream.blob(4 * MIB)
    service.upstream.control({"path": blob.digest, "delay": 0.5, "rate": 8 * MIB})
    with service.proxy.connection_to_each_worker() as connections, ThreadPoolExecutor() as pool:
        asked = [pool.submit(send, connection, "GET", blob.path) for connection in connections]
        assert [one.result().body == blob.content for one in asked] == [True, True]
    assert whole_gets(service.upstream, blob) == 1


def test_a_cached_tag_is_served_for_its_ttl_and_then_checked_by_one_head(
    serve: Serving, upstream: FaultyUpstream, tmp_path: Path
) -> None:
    first, second = make_image("first", (1000,)), make_image("second", (1000,))
    upstream.push(second, "moving")
    upstream.push(first, "moving")
    path = f"{MANIFESTS}/moving"

    def answered_with(service: Cached, image: Image) -> list[tuple[str, str, int]]:
        """Check that both workers answer with this image. Returns the requests that they sent upstream for it."""
        since = upstream.mark()
        with service.proxy.connection_to_each_worker() as connections:
            for connection in connections:
                assert send(connection, "GET", path, ACCEPT).body == image.manifest.content
                settle()
        return [(one.method, one.path, one.status) for one in upstream.content_requests(since)]

    with cached(serve, upstream, tmp_path / "cache", TAG_TTL="3") as service:
        assert service.proxy.get(path, **ACCEPT).body == first.manifest.content
        settle()
        assert answered_with(service, first) == []
        time.sleep(3.2)
        assert answered_with(service, first) == [("HEAD", path, 200)]
        upstream.tag(moving=second.manifest.digest)
        assert answered_with(service, first) == [], "the tag was checked less than TAG_TTL ago"
        time.sleep(3.2)
        asked = answered_with(service, second)
    assert asked[0] == ("HEAD", path, 200)
    assert [method for method, *_ in asked] == ["HEAD", "GET"]


@pytest.mark.parametrize("size", [SIZE, 0])
@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_blobs_of_each_digest_algorithm_and_empty_blobs_are_cached(service: Cached, algorithm: str, size: int) -> None:
    blob = service.upstream.blob(size, algorithm)
    assert service.gives(blob)
    assert service.cache.holds(blob)
    since = service.upstream.mark()
    assert service.gives(blob)
    head = service.proxy.request("HEAD", blob.path)
    assert (head.status, head.headers["Content-Length"]) == (200, str(size))
    if size == 0:
        assert service.proxy.get(blob.path, Range="bytes=0-").status == 416
    assert service.upstream.content_requests(since) == []


def test_a_range_of_a_cold_blob_is_served_at_once_and_the_blob_is_cached_after_several_ranges(service: Cached) -> None:
    blob = service.upstream.blob(4 * MIB)
    # The complete blob takes four seconds; a range takes almost no time.
    service.upstream.control({"path": blob.digest, "ranged": False, "rate": MIB})
    began = time.monotonic()
    answer = service.proxy.get(blob.path, Range=f"bytes={blob.size - 1000}-")
    assert time.monotonic() - began < 2
    assert (answer.status, answer.body) == (206, blob.content[-1000:])
    assert not service.cache.holds(blob, 1)  # one small range does not start a fill
    for start in (0, MIB, 2 * MIB):
        stop = start + MIB // 4
        with service.proxy.connection_to_each_worker() as connections:
            for one in connections:  # each worker counts for itself
                part = send(one, "GET", blob.path, {"Range": f"bytes={start}-{stop - 1}"})
                assert (part.status, part.body) == (206, blob.content[start:stop])
    assert service.cache.holds(blob, 30)
    since = service.upstream.mark()
    assert service.gives(blob)
    assert service.upstream.content_requests(since) == []


@BOTH
def test_several_blobs_over_one_connection_are_correct(service: Cached, *, warm: bool) -> None:
    blobs = [made(service, size, warm=warm) for size in (MIB, 10, 3 * MIB)]
    connection = connect(service.proxy.url)
    connection.connect()
    kept = connection.sock
    for blob in (*blobs, blobs[0]):
        assert send(connection, "GET", blob.path).body == blob.content
        assert send(connection, "HEAD", blob.path).headers["Content-Length"] == str(blob.size)
    assert connection.sock is kept
    connection.close()


@BOTH
def test_pipelined_requests_are_answered_in_their_order(service: Cached, *, warm: bool) -> None:
    blobs = [made(service, size, warm=warm) for size in (2 * MIB, 20, MIB)]
    lines = [f"GET {blob.path} HTTP/1.1\r\nHost: {service.proxy.host}\r\n" for blob in (*blobs, blobs[0])]
    received = b""
    with socket.create_connection(("127.0.0.1", service.proxy.port), timeout=30) as connection:
        connection.sendall("\r\n".join([*lines[:-1], lines[-1] + "Connection: close\r\n", ""]).encode())
        while piece := connection.recv(MIB):
            received += piece
    for blob in (*blobs, blobs[0]):
        head, _, received = received.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200"), head
        assert received[: blob.size] == blob.content
        received = received[blob.size :]
    assert received == b""


@contextmanager
def over_tls(folder: Path, keys: PrivateAuthority, settings: dict[str, str]) -> Iterator[tuple[str, ssl.SSLContext]]:
    port = free_port()
    tls = {"TLS_CERT": str(keys.server.certificate), "TLS_KEY": str(keys.server.key)}
    process = Process(command("serve"), folder / "tls.log", environment(port, settings | tls))
    trusting = ssl.create_default_context(cafile=str(keys.certificate))
    url = f"https://127.0.0.1:{port}"
    with running(process, lambda: answers(f"{url}/readyz", tls=trusting), 30):
        yield url, trusting


def test_blobs_over_tls_are_correct(upstream: FaultyUpstream, authority: PrivateAuthority, tmp_path: Path) -> None:
    blob = upstream.blob(5 * MIB)
    with over_tls(tmp_path, authority, upstream.settings) as (url, tls):
        for _ in range(4):
            assert fetch("GET", url + blob.path, tls=tls).body == blob.content
        part = fetch("GET", url + blob.path, {"Range": "bytes=5-3000000"}, tls=tls)
        assert (part.status, part.body) == (206, blob.content[5:3000001])
        assert fetch("HEAD", url + blob.path, tls=tls).headers["Content-Length"] == str(blob.size)
    assert whole_gets(upstream, blob) == 1


def test_without_a_cache_each_pull_goes_upstream(serve: Serving, upstream: FaultyUpstream) -> None:
    blob = upstream.blob(2 * MIB)
    with serve(UPSTREAM_REGISTRY=upstream.url, CACHE_DIR="off") as proxy:
        assert [proxy.get(blob.path).body == blob.content for _ in range(2)] == [True, True]
        assert proxy.get(blob.path, Range="bytes=-10").body == blob.content[-10:]
        assert proxy.get(f"{blob.path[:-64]}{'0' * 64}").status == 404
        upstream.control({"path": blob.digest, "flip_at": 0})
        wrong = pull(proxy.port, blob.path)
        # The mirror answers 502 if it had received everything before it passed the first byte on.
        assert wrong.status == 502 or not wrong.whole
    whole = [entry for entry in upstream.gets(blob.path) if entry["range"] is None]
    assert len(whole) == 3


def test_cached_content_survives_a_restart(serve: Serving, upstream: FaultyUpstream, tmp_path: Path) -> None:
    image = make_image("restarted", (50_000,))
    upstream.push(image, "restarted")
    paths = [f"{MANIFESTS}/restarted", *(f"/v2/{NAME}/blobs/{blob.digest}" for blob in image.blobs)]
    bodies = []
    for _ in range(2):
        with cached(serve, upstream, tmp_path / "cache") as service:
            since = upstream.mark()
            bodies.append([service.proxy.get(path, **ACCEPT).body for path in paths])
            assert wait_until(lambda: service.cache.file(image.layers[0].digest).is_file(), 10)
    assert bodies == [[blob.content for blob in (image.manifest, *image.blobs)]] * 2
    assert [one for one in upstream.content_requests(since) if one.method == "GET"] == []
