"""Real clients name the registry in each way that their configuration allows."""

import pytest

from tests.e2e.support.clients import Buildah, Podman, Skopeo
from tests.e2e.support.containerd import Containerd
from tests.e2e.support.docker_registry import Registry
from tests.e2e.support.documented_configurations import block
from tests.e2e.support.service import Serving
from tests.e2e.support.upstreams import MULTI, PRIVATE, PUBLIC, Content, TokenUpstream, account_entry

WITH_ALICE = {"ACCOUNTS": account_entry("alice")}
# Different settings start a separate service with an empty cache, because other tests check what a first pull fetches.
APART = {"UPSTREAM_NAMES": "apart.test"}
MIRROR = "mirror.example.com:8080"
# The upstream is not a well-known registry, so a setting says which registry it is.
QUAY = {"UPSTREAM_NAMES": "quay.io"}


def hosts_toml(place: str) -> str:
    """The hosts.toml of the guide, with this address of the mirror."""
    return block("containerd", "toml", 0, {MIRROR: place})


def registries_conf(page: str, location: str) -> str:
    return block(page, "toml", 1, {"mirror.example.com:8080/quay.io": location, '"quay.io"\n\n': '"127.0.0.1:9"\n\n'})


def fetched(ctr: Containerd, content: Content, registry: str, name: str = PUBLIC) -> None:
    ctr.fetch(f"{registry}/{name}:1").ok()
    image = content.images[name]
    assert ctr.digests() == {image.manifest.digest, *image.blob_digests}


@pytest.mark.real("docker-registry", "containerd", "ctr")
@pytest.mark.parametrize("registry", ["docker.io", "quay.io"])
@pytest.mark.parametrize("path", ["", "/{}", "/v2/{}"], ids=["by ns", "by a path before /v2", "by the first segment"])
def test_containerd_pulls_through_hosts_toml(
    ctr: Containerd, shared: Serving, open_registry: Registry, content: Content, *, registry: str, path: str
) -> None:
    more = "override_path = true\n" if path.startswith("/v2") else ""
    with shared(**open_registry.settings, UPSTREAM_NAMES=registry) as proxy:
        ctr.configure(registry, hosts_toml(proxy.host + path.format(registry)) + more)
        fetched(ctr, content, registry)


@pytest.mark.real("docker-registry", "containerd", "ctr")
def test_containerd_pulls_an_index_with_all_its_images(
    ctr: Containerd, shared: Serving, open_registry: Registry, content: Content
) -> None:
    with shared(**open_registry.settings, **APART) as proxy:
        ctr.configure("docker.io", hosts_toml(proxy.host))
        ctr.fetch(f"docker.io/{MULTI}:1").ok()
    parts = ({image.manifest.digest, *image.blob_digests} for image in content.multi.images)
    assert ctr.digests() == {content.multi.manifest.digest}.union(*parts)


@pytest.mark.real("docker-registry", "containerd", "ctr")
def test_containerd_sends_the_account_that_hosts_toml_holds(
    ctr: Containerd, shared: Serving, open_registry: Registry, content: Content
) -> None:
    with shared(**open_registry.settings, **WITH_ALICE, **APART) as proxy:
        ctr.configure("docker.io", hosts_toml(proxy.host))
        assert ctr.fetch(f"docker.io/{PRIVATE}:1").status != 0
        header = block("containerd", "toml", 3, {MIRROR: proxy.host, "YWxpY2U6c2VjcmV0": account_entry("alice")})
        ctr.configure("docker.io", hosts_toml(proxy.host) + header)
        fetched(ctr, content, "docker.io", PRIVATE)


@pytest.mark.real("docker-registry", "containerd", "ctr")
@pytest.mark.parametrize("folder", ["ghcr.io", "_default"])
def test_containerd_gets_404_for_an_image_of_a_registry_that_is_not_mirrored(
    ctr: Containerd, shared: Serving, spied_open: Registry, content: Content, folder: str
) -> None:
    """containerd uses the mirror for every registry, but the mirror serves only one: it refuses requests for others."""
    since = spied_open.mark()
    with shared(UPSTREAM_REGISTRY=spied_open.url, **QUAY) as proxy:
        ctr.configure(folder, hosts_toml(proxy.host))
        refused = ctr.fetch(f"ghcr.io/{PUBLIC}:1")
        assert refused.status != 0
        assert ctr.digests() == set()
        asked = proxy.accesses()
    assert {entry["status"] for entry in asked if "/manifests/" in entry["path"]} == {404}
    assert [entry for entry in spied_open.log(since) if PUBLIC in entry["path"]] == []


def copied(skopeo: Skopeo, content: Content, location: str) -> None:
    """Copy the image of quay.io with a mirror at this location, and check the digests."""
    skopeo.home.mkdir(exist_ok=True)
    conf = skopeo.home / "registries.conf"
    conf.write_text(registries_conf("skopeo", location))
    place = f"dir:{skopeo.home}/copied"
    skopeo("--registries-conf", str(conf), "copy", f"docker://quay.io/{PUBLIC}:1", place).ok()
    image = content.images[PUBLIC]
    assert skopeo.copied_digests() == {image.manifest.digest, *image.blob_digests}


@pytest.mark.real("docker-registry", "skopeo")
@pytest.mark.parametrize("location", ["{}", "{}/quay.io"], ids=["the mirror alone", "the name's first segment"])
def test_skopeo_pulls_through_registries_conf(
    skopeo: Skopeo, shared: Serving, open_registry: Registry, content: Content, location: str
) -> None:
    with shared(**open_registry.settings, **QUAY) as proxy:
        copied(skopeo, content, location.format(proxy.host))


@pytest.mark.real("docker-registry", "skopeo")
def test_a_token_is_issued_for_a_name_that_starts_with_its_registry(
    skopeo: Skopeo, shared: Serving, token_registry: TokenUpstream, content: Content
) -> None:
    with shared(**token_registry.settings, **QUAY) as proxy:
        copied(skopeo, content, f"{proxy.host}/quay.io")


@pytest.mark.real("docker-registry", "podman")
@pytest.mark.parametrize("page", ["podman", "cri-o"])
def test_podman_pulls_through_registries_conf(
    podman: Podman, shared: Serving, open_registry: Registry, content: Content, page: str
) -> None:
    """podman reads the files of both guides; CRI-O itself needs a kubelet."""
    with shared(**open_registry.settings, **QUAY) as proxy:
        conf = podman.home / "registries.conf"
        conf.write_text(registries_conf(page, f"{proxy.host}/quay.io"))
        podman("pull", f"quay.io/{PUBLIC}:1", registries=conf).ok()
        assert [entry["path"] for entry in proxy.accesses() if f"quay.io/{PUBLIC}/manifests/1" in entry["path"]]
    assert podman.inspect(f"quay.io/{PUBLIC}:1")["Digest"] == content.images[PUBLIC].manifest.digest


@pytest.mark.real("docker-registry", "buildah")
def test_buildah_pulls_through_registries_conf(
    buildah: Buildah, shared: Serving, open_registry: Registry, content: Content
) -> None:
    with shared(**open_registry.settings, **QUAY) as proxy:
        conf = buildah.home / "registries.conf"
        conf.write_text(registries_conf("buildah", f"{proxy.host}/quay.io"))
        buildah("pull", f"quay.io/{PUBLIC}:1", registries=conf).ok()
        assert [entry["path"] for entry in proxy.accesses() if f"quay.io/{PUBLIC}/manifests/1" in entry["path"]]
    assert buildah.digest(f"quay.io/{PUBLIC}:1") == content.images[PUBLIC].manifest.digest
