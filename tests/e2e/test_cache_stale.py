"""While the upstream is unavailable, public content is served with a warning. What the upstream refuses is refused."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.support.cached_mirror import NAME, Cached, FaultyUpstream, cached, faulty_upstream, settle
from tests.e2e.support.certificates import KeyPair
from tests.e2e.support.docker import Docker
from tests.e2e.support.images import MANIFEST_TYPES, Image, make_image
from tests.e2e.support.plain_http import UpstreamResponse
from tests.e2e.support.pull_checks import pull_whole
from tests.e2e.support.service import SECRET, Proxy, Serving
from tests.e2e.support.upstreams import PRIVATE, PUBLIC, Content, basic, token_upstream

pytestmark = pytest.mark.real("docker-registry")

ACCEPT = {"Accept": ", ".join(MANIFEST_TYPES)}
BRIEF = {"TAG_TTL": "1", "GRANT_TTL": "1", "STALE_TTL": "600", "SERVER_SECRET": SECRET}
EITHER = ["GET", "HEAD"]
GONE = (401, 403, 404, 502, 503, 504)


def bearer(proxy: Proxy, name: str, account: str | None = None) -> str:
    return f"Bearer {proxy.token(f'repository:{name}:pull', account)}"


def assert_stale(answer: UpstreamResponse, content: bytes) -> None:
    assert (answer.status, answer.body) == (200, content)
    assert answer.headers["Warning"].startswith("299 "), answer.headers["Warning"]


@pytest.mark.real("dockerd")
def test_docker_pulls_cached_public_content_after_a_restart_without_the_upstream(
    docker: Docker, mirror: Serving, content: Content, signer: KeyPair, tmp_path: Path
) -> None:
    image = content.images[PUBLIC]
    with token_upstream(tmp_path, content, signer) as upstream:
        settings = {**upstream.settings, **BRIEF, "CACHE_DIR": str(tmp_path / "cache"), "ready": "/livez"}
        with mirror(**settings) as proxy:
            pull_whole(docker, content, PUBLIC)
            fresh = proxy.get(f"/v2/{PUBLIC}/manifests/1", bearer(proxy, PUBLIC), **ACCEPT)
            assert (fresh.status, "Warning" in fresh.headers) == (200, False)
            docker.forget_images()
            proxy.process.stop()
    with mirror(**settings) as proxy:
        assert proxy.get("/v2/").status == 401
        pull_whole(docker, content, PUBLIC)
        anonymous = bearer(proxy, PUBLIC)
        for reference in ("1", image.manifest.digest):
            manifest = proxy.get(f"/v2/{PUBLIC}/manifests/{reference}", anonymous, **ACCEPT)
            assert_stale(manifest, image.manifest.content)
        blob = proxy.get(f"/v2/{PUBLIC}/blobs/{image.layers[0].digest}", anonymous)
        assert (blob.status, blob.body) == (200, image.layers[0].content)
        unknown = proxy.get(f"/v2/{PUBLIC}/manifests/2", anonymous, **ACCEPT)
        assert unknown.status in (502, 503, 504)


def test_without_the_upstream_private_content_is_refused_when_its_grant_expires(
    serve: Serving, content: Content, signer: KeyPair, tmp_path: Path
) -> None:
    image, cache = content.images[PRIVATE], str(tmp_path / "cache")
    layer = image.layers[0]
    paths = [
        f"/v2/{PRIVATE}/manifests/1", f"/v2/{PRIVATE}/manifests/{image.manifest.digest}",
        f"/v2/{PRIVATE}/blobs/{layer.digest}",
    ]  # fmt: skip
    with token_upstream(tmp_path, content, signer) as upstream:
        settings: dict[str, Any] = {**upstream.settings, **BRIEF, "GRANT_TTL": "4", "CACHE_DIR": cache}
        with serve(**settings) as proxy:
            alice, bob, anonymous = (bearer(proxy, PRIVATE, account) for account in ("alice", "bob", None))
            assert [proxy.get(path, alice, **ACCEPT).status for path in paths] == [200] * 3
            granted = time.monotonic()
            settle()
            upstream.registry.process.kill()
            upstream.server.kill()
            assert proxy.get(paths[2], alice).body == layer.content, "the grant is less than GRANT_TTL old"
            assert time.monotonic() - granted < 4
            for stranger in (bob, anonymous, None):
                assert {proxy.get(path, stranger, **ACCEPT).status for path in paths} <= set(GONE)
            time.sleep(max(0.0, granted + 4.2 - time.monotonic()))
            assert {proxy.get(path, alice, **ACCEPT).status for path in paths} <= set(GONE)
    with serve(**settings, ready="/livez") as proxy:
        for caller in (alice, bob, anonymous, None):
            answers = [proxy.get(path, caller, **ACCEPT) for path in paths]
            assert {answer.status for answer in answers} <= set(GONE)
            assert not any(layer.content[:20] in answer.body for answer in answers)
        # The mirror cannot identify callers now, and it stores nothing for anonymous callers.
        for account in (basic("alice"), None):
            token = proxy.ask_token(f"repository:{PRIVATE}:pull", account)
            late = f"Bearer {token.json()['token']}" if token.status == 200 else None
            assert {proxy.get(path, late, **ACCEPT).status for path in paths} <= set(GONE), account


@pytest.fixture(scope="module")
def upstream(workplace: Path) -> Iterator[FaultyUpstream]:
    with faulty_upstream(workplace, workplace / "stale-upstream") as running_one:
        yield running_one


@pytest.fixture(scope="module")
def service(serve: Serving, upstream: FaultyUpstream, workplace: Path) -> Iterator[Cached]:
    # One worker, because each worker remembers separately for a while that the upstream has failed.
    with cached(serve, upstream, workplace / "stale-cache", **BRIEF, WORKERS="1") as found:
        yield found


@pytest.fixture
def known(service: Cached, request: pytest.FixtureRequest) -> Iterator[tuple[str, Image]]:
    """The path and the image of a cached tag whose TTL is over. Each test has its own repository."""
    image = make_image(request.node.name, (1000,))
    service.upstream.push(image, "1")
    name = f"e2e/stale-{image.manifest.digest[7:19]}"
    path = f"/v2/{name}/manifests/1"
    assert service.proxy.get(path, **ACCEPT).body == image.manifest.content
    for blob in image.blobs:
        assert service.proxy.get(f"/v2/{name}/blobs/{blob.digest}").body == blob.content
    time.sleep(1.2)
    yield path, image
    service.upstream.control()


@pytest.mark.parametrize("status", [429, 500, 503])
def test_cached_content_is_served_stale_while_the_upstream_answers_with_errors(
    service: Cached, known: tuple[str, Image], status: int
) -> None:
    path, image = known
    before = service.counted("stale_answers_total", workers=1)
    service.upstream.control({"status": status, "retry_after": "1", "methods": EITHER})
    assert_stale(service.proxy.get(path, **ACCEPT), image.manifest.content)
    by_digest = path.replace("/1", f"/{image.manifest.digest}")
    assert service.proxy.get(by_digest, **ACCEPT).body == image.manifest.content
    layer = image.layers[0]
    blob = service.proxy.get(f"{path.removesuffix('manifests/1')}blobs/{layer.digest}")
    assert (blob.status, blob.body) == (200, layer.content)
    head = service.proxy.request("HEAD", path, **ACCEPT)
    assert (head.status, head.headers["Docker-Content-Digest"]) == (200, image.manifest.digest)
    assert service.counted("stale_answers_total", workers=1) > before
    time.sleep(1.1)  # the mirror respects a 429 for one second, which would also delay the next test


def test_a_tag_that_the_upstream_deleted_is_answered_404_and_forgotten(
    service: Cached, known: tuple[str, Image]
) -> None:
    path, _ = known
    service.upstream.tag(another="sha256:" + "0" * 64)
    answer = service.proxy.get(path, **ACCEPT)
    assert answer.status == 404
    assert answer.error_codes()
    assert "Warning" not in answer.headers
    # The cached tag is removed, so it is not served during an outage either.
    service.upstream.control({"status": 500, "methods": EITHER})
    assert service.proxy.get(path, **ACCEPT).status != 200


@pytest.mark.parametrize("status", [401, 403])
def test_cached_content_that_the_upstream_refuses_to_anonymous_callers_is_refused_at_once(
    service: Cached, known: tuple[str, Image], status: int
) -> None:
    path, image = known
    service.upstream.control({"status": status, "methods": EITHER, "path": "/e2e/"})
    assert service.proxy.get(path, **ACCEPT).status == status
    service.upstream.control({"status": 500, "methods": EITHER})
    for target in (path, path.replace("/1", f"/{image.manifest.digest}")):
        assert service.proxy.get(target, **ACCEPT).status in GONE


def test_stale_content_is_refused_after_stale_ttl(serve: Serving, upstream: FaultyUpstream, tmp_path: Path) -> None:
    image = make_image("ends", (1000,))
    upstream.push(image, "1")
    path = f"/v2/{NAME}/manifests/1"
    with cached(serve, upstream, tmp_path / "cache", **{**BRIEF, "STALE_TTL": "4"}) as service:
        assert service.proxy.get(path, **ACCEPT).status == 200
        upstream.control({"status": 500, "methods": EITHER})
        time.sleep(1.2)
        assert_stale(service.proxy.get(path, **ACCEPT), image.manifest.content)
        time.sleep(3)
        answer = service.proxy.get(path, **ACCEPT)
    upstream.control()
    assert answer.status == 502
    assert answer.error_codes()
