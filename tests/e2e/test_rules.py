"""Access rules with real clients: a forbidden manifest is answered DENIED, and no byte of content is sent."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.support.clients import Skopeo
from tests.e2e.support.docker import Docker
from tests.e2e.support.docker_registry import Registry
from tests.e2e.support.service import Proxy, Serving, serving
from tests.e2e.support.upstreams import ACCOUNTS, BOBS, PRIVATE, PUBLIC, SINGLE, Content, account_entry, basic

pytestmark = pytest.mark.real("docker-registry")
ANY = "application/vnd.docker.distribution.manifest.v2+json, application/vnd.oci.image.manifest.v1+json"


@pytest.fixture(scope="module")
def config(workplace: Path, open_registry: Registry) -> Path:
    """Each account may pull public images, only alice may pull private ones, and no account may pull `bobs/**`."""
    file = workplace / "rules.toml"
    file.write_text(
        f"""
        accounts = ["{account_entry("alice")}", "{account_entry("bob")}"]

        [[rules]]
        allow = ["private/**"]
        accounts = ["alice"]

        [[rules]]
        deny = ["private/**", "docker.io/bobs/**"]

        [[rules]]
        allow = ["**"]

        [[upstreams]]
        name = "docker.io"
        url = "{open_registry.url}"
        identity = "anonymous"
        """
    )
    return file


@pytest.fixture(scope="module")
def proxy(config: Path) -> Iterator[Proxy]:
    with serving(config.parent, CONFIG=str(config)) as started:
        yield started


def login(name: str) -> tuple[str, str]:
    return "--src-creds", f"{name}:{ACCOUNTS[name]}"


@pytest.mark.real("skopeo")
def test_skopeo_pulls_only_what_the_rules_allow_its_account(
    skopeo: Skopeo, proxy: Proxy, open_registry: Registry, content: Content
) -> None:
    since = open_registry.mark()
    for name, image in (("bob", PRIVATE), ("alice", BOBS), ("bob", BOBS), ("bob", f"docker.io/{BOBS}")):
        refused = skopeo.copy(f"{proxy.host}/{image}:1", *login(name))
        assert refused.status != 0
        assert "denied" in refused.output.lower() or "403" in refused.output, refused.output
    assert open_registry.content_requests(since) == [], "no request reached the upstream"
    skopeo.copy(f"{proxy.host}/{PRIVATE}:1", *login("alice")).ok()
    image = content.images[PRIVATE]
    assert skopeo.copied_digests() == {image.manifest.digest, *image.blob_digests}
    assert skopeo.copy(f"{proxy.host}/{PRIVATE}:1", *login("bob")).status != 0, "bob is also refused the cached image"


@pytest.mark.real("dockerd")
def test_docker_shows_the_denial_if_the_image_name_contains_the_mirror(
    docker: Docker, mirror: Serving, config: Path, content: Content
) -> None:
    with mirror(CONFIG=str(config)) as started:
        docker.login(started.host, "bob", ACCOUNTS["bob"]).ok()
        refused = docker.pull(f"{started.host}/{PRIVATE}:1")
        assert refused.status != 0
        assert "denied" in refused.output
        docker.pull(f"{started.host}/{SINGLE}:1").ok()
        assert docker.diff_ids(f"{started.host}/{SINGLE}:1") == list(content.images[SINGLE].diff_ids)


@pytest.mark.parametrize(
    "what", ["manifests/1", "manifests/{manifest}", "blobs/{layer}", "tags/list", "referrers/{manifest}"]
)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_every_request_for_a_forbidden_repository_is_denied(
    proxy: Proxy, open_registry: Registry, content: Content, what: str, method: str
) -> None:
    image = content.images[PRIVATE]
    path = what.format(manifest=image.manifest.digest, layer=image.layers[0].digest)
    token = proxy.ask_token(f"repository:{PRIVATE}:pull", basic("bob")).json()["token"]
    since = open_registry.mark()
    for base in (f"/v2/{PRIVATE}", f"/v2/docker.io/{PRIVATE}", f"/docker.io/v2/{PRIVATE}"):
        answer = proxy.request(method, f"{base}/{path}?ns=docker.io", f"Bearer {token}", Accept=ANY)
        assert answer.status == 403
        if method == "GET":
            assert answer.json()["errors"][0]["code"] == "DENIED"
    assert open_registry.content_requests(since) == []


def test_the_catalog_omits_forbidden_repositories(proxy: Proxy) -> None:
    for name, shown in (("alice", {PUBLIC, PRIVATE}), ("bob", {PUBLIC})):
        repositories = set(proxy.get("/v2/_catalog", basic(name)).json()["repositories"])
        assert repositories & {PUBLIC, PRIVATE, BOBS} == shown
