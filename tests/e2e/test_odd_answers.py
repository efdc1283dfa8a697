"""What the mirror answers and asks if its upstream sends answers that a registry would not send."""

import http.client
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

from tests.e2e.support.cached_mirror import NAME, Cached, FaultyUpstream, cached, faulty_upstream
from tests.e2e.support.images import MANIFEST_TYPES, Image, make_image
from tests.e2e.support.plain_http import UpstreamResponse, connect, send
from tests.e2e.support.processes import program
from tests.e2e.support.service import Proxy, Serving

CLIENTS = 50
PAGE = "<!DOCTYPE html><html><body>Please log in to this network</body></html>"
TYPES = {"Accept": ", ".join(MANIFEST_TYPES)}
MANIFEST = f"/v2/{NAME}/manifests/"


@pytest.fixture
def upstream(tmp_path: Path) -> Iterator[FaultyUpstream]:
    with faulty_upstream(tmp_path, tmp_path / "files") as running_one:
        yield running_one


@pytest.fixture
def service(serve: Serving, upstream: FaultyUpstream, tmp_path: Path) -> Iterator[Cached]:
    """A mirror that asks the upstream again for each request by tag."""
    with cached(serve, upstream, tmp_path / "cache", WORKERS="1", TAG_TTL="0", GRANT_TTL="0") as found:
        yield found
        assert found.cache.wrong() == []
        assert not [line for line in found.proxy.process.log_lines() if "Traceback" in line]


def stored(service: Cached) -> int:
    return sum(1 for file in (service.cache.path / "content").rglob("*") if file.is_file())


def pushed(upstream: FaultyUpstream, tag: str) -> Image:
    image = make_image(f"odd-{tag}", [1000])
    upstream.push(image, tag)
    return image


def asked(proxy: Proxy, method: str, path: str) -> UpstreamResponse:
    return proxy.request(method, path, **TYPES)


# --- a web page ---


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_web_page_instead_of_a_manifest_is_answered_502_and_not_cached(service: Cached, method: str) -> None:
    image = pushed(service.upstream, "new")
    service.upstream.control({"path": "/manifests/", "methods": ["GET", "HEAD"], "page": PAGE})
    for reference in ("new", image.manifest.digest):
        answer = asked(service.proxy, method, MANIFEST + reference)
        assert answer.status == 502
        assert b"html" not in answer.body
    assert stored(service) == 0
    service.upstream.control()
    assert asked(service.proxy, "GET", MANIFEST + "new").body == image.manifest.content


def test_the_cached_manifest_is_served_if_the_upstream_sends_a_web_page(service: Cached) -> None:
    image = pushed(service.upstream, "known")
    assert asked(service.proxy, "GET", MANIFEST + "known").status == 200
    before = stored(service)
    for fault in ({"page": PAGE}, {"status": 503}):
        service.upstream.control({"path": "/manifests/", "methods": ["GET", "HEAD"], **fault})
        answer = asked(service.proxy, "GET", MANIFEST + "known")
        assert (answer.status, answer.body) == (200, image.manifest.content)
        assert "Warning" in answer.headers
        assert asked(service.proxy, "HEAD", MANIFEST + "known").headers["Content-Length"] == str(
            len(image.manifest.content)
        )
    assert stored(service) == before


@pytest.mark.parametrize("path", [f"/v2/{NAME}/tags/list", "/v2/_catalog"])
def test_a_web_page_instead_of_a_list_is_answered_502(service: Cached, path: str) -> None:
    service.upstream.control({"path": path, "page": PAGE})
    assert service.proxy.get(path).status == 502


def test_a_web_page_instead_of_referrers_is_answered_404(service: Cached) -> None:
    image = pushed(service.upstream, "subject")
    service.upstream.control({"path": "/referrers/", "page": PAGE})
    assert service.proxy.get(f"/v2/{NAME}/referrers/{image.manifest.digest}").status == 404


def test_a_web_page_instead_of_a_blob_is_answered_502_and_not_cached(service: Cached) -> None:
    blob = service.upstream.blob(1000)
    service.upstream.control({"path": "/blobs/", "methods": ["GET", "HEAD"], "page": PAGE})
    assert {service.proxy.request(method, blob.path).status for method in ("GET", "HEAD")} == {502}
    assert stored(service) == 0
    service.upstream.control()
    assert service.gives(blob)


# --- HEAD ---

BAD_HEADS = [{"says_length": 0}, {"drop": True}]


@pytest.mark.parametrize("fault", BAD_HEADS, ids=["length 0", "closed"])
def test_an_invalid_answer_to_a_head_is_followed_by_a_get(service: Cached, fault: dict[str, object]) -> None:
    image, blob = pushed(service.upstream, "head"), service.upstream.blob(5_000_000)
    service.upstream.control({"methods": ["HEAD"], **fault})
    for path, size in ((MANIFEST + "head", len(image.manifest.content)), (blob.path, blob.size)):
        answer = asked(service.proxy, "HEAD", path)
        assert (answer.status, answer.headers["Content-Length"]) == (200, str(size))
    assert sum(entry["sent"] for entry in service.upstream.gets(blob.path)) < blob.size / 2


@pytest.mark.parametrize("fault", BAD_HEADS, ids=["length 0", "closed"])
def test_a_head_for_cached_content_has_the_correct_length(service: Cached, fault: dict[str, object]) -> None:
    image, blob = pushed(service.upstream, "head"), service.warm(5000)
    assert asked(service.proxy, "GET", MANIFEST + "head").status == 200
    service.upstream.control({"methods": ["HEAD"], **fault})
    for path, size in ((MANIFEST + "head", len(image.manifest.content)), (blob.path, blob.size)):
        answer = asked(service.proxy, "HEAD", path)
        assert (answer.status, answer.headers["Content-Length"]) == (200, str(size))


@pytest.mark.skipif(program("skopeo") is None, reason="skopeo is not installed")
def test_skopeo_copies_an_image_from_an_upstream_that_answers_no_head(service: Cached, tmp_path: Path) -> None:
    image = pushed(service.upstream, "skopeo")
    service.upstream.control({"methods": ["HEAD"], "drop": True})
    source, target = f"docker://{service.proxy.host}/{NAME}:skopeo", f"dir:{tmp_path / 'copied'}"
    command = ["skopeo", "copy", "--quiet", "--src-tls-verify=false", "--insecure-policy", source, target]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "copied" / "manifest.json").read_bytes() == image.manifest.content


# --- many clients ---


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_many_clients_that_ask_for_a_new_tag_cost_one_get(service: Cached, method: str) -> None:
    """With HEAD each client asks for the tag and then gets the manifest by digest, as docker and containerd do."""
    image = pushed(service.upstream, "crowd")
    service.upstream.control({"methods": ["GET", "HEAD"], "path": "/manifests/", "delay": 0.2})
    together = Barrier(CLIENTS)

    def client(_: int) -> bytes:
        connection: http.client.HTTPConnection = connect(service.proxy.url, timeout=60)
        try:
            send(connection, "GET", "/livez")
            together.wait(60)
            answer = send(connection, method, MANIFEST + "crowd", TYPES)
            if method == "HEAD":
                answer = send(connection, "GET", MANIFEST + answer.headers["Docker-Content-Digest"], TYPES)
            assert answer.status == 200
            return answer.body
        finally:
            connection.close()

    with ThreadPoolExecutor(CLIENTS) as pool:
        assert set(pool.map(client, range(CLIENTS))) == {image.manifest.content}
    gets = [entry for entry in service.upstream.log() if entry["method"] == "GET" and "/manifests/" in entry["path"]]
    assert len(gets) == 1
