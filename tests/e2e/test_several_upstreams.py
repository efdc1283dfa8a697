"""One mirror of three real registries: each client can name each registry and gets its content."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.support.certificates import KeyPair, PrivateAuthority
from tests.e2e.support.clients import Podman, Skopeo
from tests.e2e.support.containerd import Containerd
from tests.e2e.support.docker import Docker
from tests.e2e.support.documented_configurations import block
from tests.e2e.support.images import Image
from tests.e2e.support.plain_http import fetch
from tests.e2e.support.service import Proxy, Serving, serving
from tests.e2e.support.three_registries import CORP, HUB, OWN_HOST, QUAY, Registries, registries
from tests.e2e.support.upstreams import ACCOUNTS, PRIVATE, PUBLIC, SINGLE, basic

pytestmark = pytest.mark.real("docker-registry")
ALL = (HUB, QUAY, CORP)
MIRROR = "mirror.example.com:8080"
ANY = "application/vnd.docker.distribution.manifest.v2+json, application/vnd.oci.image.manifest.v1+json, */*"


@pytest.fixture(scope="module")
def three(workplace: Path, authority: PrivateAuthority, signer: KeyPair) -> Iterator[Registries]:
    folder = workplace / "three"
    folder.mkdir()
    with registries(folder, authority, signer) as found:
        yield found


@pytest.fixture(scope="module")
def service(three: Registries) -> Iterator[Proxy]:
    with serving(three.config.parent, CONFIG=str(three.config)) as proxy:
        yield proxy


def all_of(image: Image) -> set[str]:
    return {image.manifest.digest, *image.blob_digests}


# --- containerd with hosts.toml ---


@pytest.mark.real("containerd", "ctr")
@pytest.mark.parametrize("registry", ALL)
@pytest.mark.parametrize("path", ["", "/{}", "/v2/{}"], ids=["by ns", "by a path before /v2", "by the first segment"])
def test_containerd_pulls_the_image_of_the_registry_that_it_names(
    ctr: Containerd, service: Proxy, three: Registries, registry: str, path: str
) -> None:
    more = "override_path = true\n" if path.startswith("/v2") else ""
    place = service.host + path.format(registry if "/v2" not in path else registry.replace(CORP, "corp"))
    ctr.configure(registry, block("containerd", "toml", 0, {MIRROR: place}) + more)
    ctr.fetch(f"{registry}/{PUBLIC}:1").ok()
    assert ctr.digests() == all_of(three.contents[registry].images[PUBLIC])


@pytest.mark.real("containerd", "ctr")
def test_containerd_needs_one_hosts_toml_for_all_registries(ctr: Containerd, service: Proxy, three: Registries) -> None:
    ctr.configure("_default", block("containerd", "toml", 2, {MIRROR: service.host}))
    for registry in ALL:
        ctr.fetch(f"{registry}/{PUBLIC}:1").ok()
    assert ctr.digests() == set().union(*(all_of(three.contents[one].images[PUBLIC]) for one in ALL))
    refused = ctr.fetch(f"ghcr.io/{PUBLIC}:1")
    assert refused.status != 0


# --- skopeo and podman, with registries.conf and with the name of the mirror ---


@pytest.mark.real("skopeo")
@pytest.mark.parametrize("registry", ALL)
def test_skopeo_pulls_the_image_of_the_registry_that_it_names(
    skopeo: Skopeo, service: Proxy, three: Registries, registry: str
) -> None:
    name = registry.replace(CORP, "corp")
    skopeo.copy(f"{service.host}/{name}/{PUBLIC}:1").ok()
    assert skopeo.copied_digests() == all_of(three.contents[registry].images[PUBLIC])


@pytest.mark.real("skopeo")
def test_a_host_name_assigned_to_an_upstream_serves_only_that_upstream(
    skopeo: Skopeo, service: Proxy, three: Registries
) -> None:
    skopeo.copy(f"{OWN_HOST}:{service.port}/{PUBLIC}:1").ok()
    assert skopeo.copied_digests() == all_of(three.contents[CORP].images[PUBLIC])
    assert skopeo.copy(f"{OWN_HOST}:{service.port}/{QUAY}/{PUBLIC}:1").status != 0


@pytest.mark.real("skopeo")
def test_a_login_is_sent_only_to_the_registry_that_it_is_for(skopeo: Skopeo, service: Proxy, three: Registries) -> None:
    marks = three.marks()
    image = f"{service.host}/{QUAY}/{PRIVATE}:1"
    assert skopeo.copy(image).status != 0
    assert skopeo.copy(image, "--src-creds", f"bob:{ACCOUNTS['bob']}").status != 0
    skopeo.copy(image, "--src-creds", f"alice:{ACCOUNTS['alice']}").ok()
    assert skopeo.copied_digests() == all_of(three.contents[QUAY].images[PRIVATE])
    assert skopeo.copy(image, "--src-creds", f"bob:{ACCOUNTS['bob']}").status != 0, (
        "bob is also refused the cached image"
    )
    asked = three.asked(marks)
    assert (asked[HUB], asked[CORP]) == (set(), set())


@pytest.mark.real("podman")
def test_podman_pulls_the_image_of_the_registry_that_it_names(
    podman: Podman, service: Proxy, three: Registries
) -> None:
    """One registries.conf for all registries, as in the guide; the company registry takes the place of Harbor."""
    page = block("podman", "toml", 1, {MIRROR: service.host, "harbor.example.com": CORP})
    hub = block("podman", "toml", 0, {MIRROR: f"{service.host}/{HUB}"})
    conf = podman.home / "registries.conf"
    conf.write_text((hub + page).replace(f"/{CORP}", "/corp"))
    for registry in ALL:
        podman("pull", f"{registry}/{PUBLIC}:1", registries=conf).ok()
        digest = three.contents[registry].images[PUBLIC].manifest.digest
        assert podman.inspect(f"{registry}/{PUBLIC}:1")["Digest"] == digest


# --- docker ---


@pytest.mark.real("dockerd")
def test_docker_pulls_from_the_first_upstream_as_mirror_and_from_the_others_by_name(
    docker: Docker, mirror: Serving, three: Registries
) -> None:
    with mirror(CONFIG=str(three.config)) as proxy:
        for typed, registry, name in (
            (PUBLIC, HUB, PUBLIC),
            ("e2e-single-segment", HUB, SINGLE),
            (f"{proxy.host}/{QUAY}/{PUBLIC}", QUAY, PUBLIC),
            (f"{proxy.host}/corp/{PUBLIC}", CORP, PUBLIC),
        ):
            docker.pull(f"{typed}:1").ok()
            image = three.contents[registry].images[name]
            assert docker.diff_ids(f"{typed}:1") == list(image.diff_ids)
            assert docker.repo_digests(f"{typed}:1") == [f"{typed}@{image.manifest.digest}"]


# --- clients that the tests do not run: their first requests, as PROTOCOL and docs/guides/clients describe them ---

RECORDED = {
    "dockerd's containerd store": ("/v2/{name}", "ns={registry}"),
    "dockerd, a mirror with a path": ("/{registry}/v2/{name}", ""),
    "the same with the containerd store": ("/{registry}/v2/{name}", "ns={registry}"),
    "CRI with an endpoint's path": ("/{registry}/v2/{name}", "ns={registry}"),
    "k3s": ("/v2/{name}", "ns={registry}"),
    "k3s with a rewrite": ("/v2/{registry}/{name}", "ns={registry}"),
    "buildkit": ("/v2/{name}", "ns={registry}"),
    "buildkit, a mirror with a path": ("/v2/{registry}/{name}", "ns={registry}"),
    "kaniko's registry map": ("/v2/{registry}/{name}", ""),
    "regclient with a path prefix": ("/v2/{registry}/{name}", ""),
}


@pytest.mark.parametrize("registry", ALL)
@pytest.mark.parametrize("client", RECORDED)
def test_recorded_requests_return_the_image_of_the_registry_that_they_name(
    service: Proxy, three: Registries, registry: str, client: str
) -> None:
    path, query = RECORDED[client]
    # Some clients read a path segment with a port as a host, so they use the name without a port.
    named = registry if "/v2/{registry}" not in path else registry.replace(CORP, "corp")
    base = service.url + path.format(registry=named, name=PUBLIC)
    query = "?" + query.format(registry=registry.replace(":", "%3A")) if query else ""
    # Clients with `ns` ask for a scope with the name alone; the others for everything after /v2/.
    scope = PUBLIC if "ns=" in query else path.format(registry=named, name=PUBLIC).rpartition("/v2/")[2]
    headers = {"Authorization": f"Bearer {service.token(f'repository:{scope}:pull')}", "Accept": ANY}
    image = three.contents[registry].images[PUBLIC]
    head = fetch("HEAD", f"{base}/manifests/1{query}", headers)
    assert (head.status, head.headers["Docker-Content-Digest"]) == (200, image.manifest.digest)
    if query:
        assert head.headers["OCI-Namespace"] == registry
    by_digest = fetch("GET", f"{base}/manifests/{image.manifest.digest}{query}", headers)
    assert by_digest.body == image.manifest.content
    for layer in image.layers:
        assert fetch("GET", f"{base}/blobs/{layer.digest}{query}", headers).body == layer.content


def test_a_request_that_names_no_registry_is_for_the_first_upstream(service: Proxy, three: Registries) -> None:
    """Kaniko's --registry-mirror and dockerd's registry-mirrors name no registry, because they are for Docker Hub."""
    answer = service.get(
        f"/v2/{PUBLIC}/manifests/1", f"Bearer {service.token(f'repository:{PUBLIC}:pull')}", Accept=ANY
    )
    assert answer.body == three.contents[HUB].images[PUBLIC].manifest.content


@pytest.mark.parametrize(
    "path",
    [
        f"/v2/{PUBLIC}/manifests/1?ns=ghcr.io",
        f"/v2/{PUBLIC}/manifests/1?ns=registry.corp.test",
        f"/ghcr.io/v2/{PUBLIC}/manifests/1",
        f"/{QUAY}/v2/{PUBLIC}/manifests/1?ns={HUB}",
        f"/v2/{QUAY}/{PUBLIC}/manifests/1?ns={HUB}",
        f"/{HUB}/v2/{QUAY}/{PUBLIC}/manifests/1",
        f"/v2/ghcr.io/{PUBLIC}/manifests/1",
    ],
)
def test_an_unknown_registry_and_two_conflicting_registries_are_answered_404(
    service: Proxy, three: Registries, path: str
) -> None:
    marks = three.marks()
    answer = service.get(path, f"Bearer {service.token(f'repository:{PUBLIC}:pull')}", Accept=ANY)
    assert (answer.status, answer.json()["errors"][0]["code"]) == (404, "NAME_UNKNOWN")
    assert set().union(*three.asked(marks).values()) == set()


def test_the_cache_keeps_equal_names_and_tags_of_different_registries_apart(service: Proxy, three: Registries) -> None:
    token = f"Bearer {service.token(f'repository:{PUBLIC}:pull')}"
    for _ in range(2):
        for registry in ALL:
            answer = service.get(f"/v2/{PUBLIC}/manifests/1?ns={registry}", token, Accept=ANY)
            assert answer.body == three.contents[registry].images[PUBLIC].manifest.content
    marks = three.marks()
    foreign = three.contents[QUAY].images[PUBLIC]
    for digest in (foreign.manifest.digest, "1"):
        service.get(f"/v2/{PUBLIC}/manifests/{digest}?ns={HUB}", token, Accept=ANY)
    refused = service.get(f"/v2/{PUBLIC}/blobs/{foreign.layers[0].digest}?ns={HUB}", token)
    assert refused.status == 404, "the blob is cached, but was never in this repository"
    assert three.asked(marks)[QUAY] == set()


def test_a_tag_list_has_the_name_that_the_client_asked_for(service: Proxy) -> None:
    login = basic("alice")
    for path, query in ((f"/{QUAY}/v2/{PUBLIC}", ""), (f"/v2/{QUAY}/{PUBLIC}", ""), (f"/v2/{PUBLIC}", f"ns={QUAY}")):
        scope = f"repository:{path.partition('/v2/')[2]}:pull"
        token = service.ask_token(scope, login).json()["token"]
        answer = service.get(f"{path}/tags/list?n=1&{query}", f"Bearer {token}")
        assert answer.json() == {"name": path.partition("/v2/")[2], "tags": ["1"]}
