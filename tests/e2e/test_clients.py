"""Common clients that use the host name of the mirror, and the curl command of the README of the seed."""

import json
import ssl
import time

import pytest

from tests.e2e.support.clients import Podman, Skopeo, curl
from tests.e2e.support.docker import Docker
from tests.e2e.support.docker_registry import Registry
from tests.e2e.support.plain_http import fetch
from tests.e2e.support.pull_checks import assert_all_fetched, pull_whole
from tests.e2e.support.service import Serving
from tests.e2e.support.upstreams import (
    ACCOUNTS,
    MULTI,
    PRIVATE,
    PUBLIC,
    Content,
    TokenUpstream,
    account_entry,
)

pytestmark = pytest.mark.real("docker-registry")

WITH_ALICE = {"ACCOUNTS": account_entry("alice")}


@pytest.mark.real("dockerd")
def test_docker_login_and_pull_by_host_name_with_an_account(
    docker: Docker, shared: Serving, open_registry: Registry, content: Content
) -> None:
    since = open_registry.mark()
    with shared(**open_registry.settings, **WITH_ALICE) as proxy:
        assert docker.pull(f"{proxy.host}/{PRIVATE}:1").status != 0
        assert docker.login(proxy.host, "alice", "wrong").status != 0
        docker.login(proxy.host, "alice", ACCOUNTS["alice"]).ok()
        pull_whole(docker, content, PRIVATE, proxy.host)
    assert_all_fetched(open_registry.content_requests(since), PRIVATE, content.images[PRIVATE])


@pytest.mark.real("dockerd")
@pytest.mark.parametrize("accounts", [{}, WITH_ALICE], ids=["row 3", "row 7"])
def test_docker_login_and_pull_by_host_name_with_an_upstream_account(
    docker: Docker, shared: Serving, token_registry: TokenUpstream, content: Content, accounts: dict[str, str]
) -> None:
    since = token_registry.mark()
    with shared(**token_registry.settings, **accounts) as proxy:
        assert docker.login(proxy.host, "alice", "wrong").status != 0
        docker.login(proxy.host, "alice", ACCOUNTS["alice"]).ok()
        pull_whole(docker, content, PRIVATE, proxy.host)
        # With accounts a refresh token would outlive the account, so docker must have kept the password.
        assert ("identitytoken" in docker.logins()[proxy.host]) is not bool(accounts)
    assert_all_fetched(token_registry.content_requests(since), PRIVATE, content.images[PRIVATE])


@pytest.mark.real("dockerd")
def test_docker_search_finds_repositories_of_the_upstream(
    docker: Docker, shared: Serving, open_registry: Registry
) -> None:
    with shared(**open_registry.settings) as proxy:
        found = docker.search(f"{proxy.host}/e2e-three").ok().output
        assert PUBLIC in found
        assert MULTI not in found


@pytest.mark.real("dockerd")
def test_docker_search_needs_a_login_if_there_are_accounts(
    docker: Docker, shared: Serving, open_registry: Registry
) -> None:
    with shared(**open_registry.settings, **WITH_ALICE) as proxy:
        refused = docker.search(f"{proxy.host}/e2e-three")
        assert PUBLIC not in refused.output
        docker.login(proxy.host, "alice", ACCOUNTS["alice"]).ok()
        assert PUBLIC in docker.search(f"{proxy.host}/e2e-three").ok().output


@pytest.mark.real("skopeo")
def test_skopeo_inspects_and_copies_each_layer(
    skopeo: Skopeo, shared: Serving, token_registry: TokenUpstream, content: Content
) -> None:
    image = content.images[PRIVATE]
    with shared(
        **token_registry.settings,
    ) as proxy:
        assert skopeo.copy(f"{proxy.host}/{PRIVATE}:1").status != 0
        seen = skopeo.inspect(f"{proxy.host}/{PRIVATE}:1", "--creds", f"alice:{ACCOUNTS['alice']}")
        skopeo.copy(f"{proxy.host}/{PRIVATE}:1", "--src-creds", f"alice:{ACCOUNTS['alice']}").ok()
    assert seen["Digest"] == image.manifest.digest
    assert seen["Layers"] == [layer.digest for layer in image.layers]
    assert skopeo.copied_digests() == {image.manifest.digest, *image.blob_digests}


@pytest.mark.real("skopeo")
def test_skopeo_copies_an_index_with_all_its_images(
    skopeo: Skopeo, shared: Serving, open_registry: Registry, content: Content
) -> None:
    with shared(**open_registry.settings) as proxy:
        skopeo.copy(f"{proxy.host}/{MULTI}:1", "--all").ok()
    images = content.multi.images
    assert skopeo.copied_digests() == {content.multi.manifest.digest}.union(
        *({image.manifest.digest, *image.blob_digests} for image in images)
    )


@pytest.mark.real("podman")
@pytest.mark.parametrize("accounts", [{}, WITH_ALICE], ids=["row 3", "row 7"])
def test_podman_logs_in_and_pulls(
    podman: Podman, shared: Serving, token_registry: TokenUpstream, content: Content, accounts: dict[str, str]
) -> None:
    with shared(**token_registry.settings, **accounts) as proxy:
        reference = f"{proxy.host}/{PRIVATE}:1"
        assert podman.pull(reference).status != 0
        podman.login(proxy.host, "alice", ACCOUNTS["alice"]).ok()
        podman.pull(reference).ok()
    inspected = podman.inspect(reference)
    assert inspected["RootFS"]["Layers"] == list(content.images[PRIVATE].diff_ids)
    assert inspected["Digest"] == content.images[PRIVATE].manifest.digest


@pytest.mark.real("podman")
@pytest.mark.parametrize("accounts", [{}, WITH_ALICE], ids=["row 2", "row 6"])
def test_podman_searches(podman: Podman, shared: Serving, open_registry: Registry, accounts: dict[str, str]) -> None:
    with shared(**open_registry.settings, **accounts) as proxy:
        if accounts:
            assert PUBLIC not in podman.search(f"{proxy.host}/e2e-three").output
            podman.login(proxy.host, "alice", ACCOUNTS["alice"]).ok()
        found = podman.search(f"{proxy.host}/e2e-three").ok().output.split()
        assert f"{proxy.host}/{PUBLIC}" in found
        assert f"{proxy.host}/{MULTI}" not in found


@pytest.mark.real("curl")
def test_curl_lists_tags_as_in_the_readme_of_the_seed(shared: Serving, open_registry: Registry) -> None:
    with shared(**open_registry.settings) as proxy:
        listed = curl(f"http://localhost:{proxy.port}/v2/{PUBLIC}/tags/list").ok().output
    assert json.loads(listed.partition("\n")[2]) == {"name": PUBLIC, "tags": ["1"]}


@pytest.mark.real("curl")
def test_curl_lists_tags_and_repositories_of_a_token_upstream_anonymously(
    shared: Serving, token_registry: TokenUpstream
) -> None:
    asked = token_registry.server.mark()
    with shared(
        **token_registry.settings,
    ) as proxy:
        tags = curl(f"http://localhost:{proxy.port}/v2/{PUBLIC}/tags/list").ok().output
        names = curl(f"http://localhost:{proxy.port}/v2/_catalog").ok().output
        private = proxy.get(f"/v2/{PRIVATE}/tags/list")
        manifest = proxy.get(f"/v2/{PUBLIC}/manifests/1")
    assert json.loads(tags.partition("\n")[2]) == {"name": PUBLIC, "tags": ["1"]}
    assert PUBLIC in json.loads(names.partition("\n")[2])["repositories"]
    assert private.status == 401
    assert manifest.status == 401, "a pull must use the caller's allowance, not the mirror's"
    assert not any(entry["credentials"] for entry in token_registry.token_requests(asked))


def test_a_tls_handshake_on_the_plain_http_port_is_refused_at_once(shared: Serving, open_registry: Registry) -> None:
    # docker, podman and skopeo try TLS first with an insecure registry, and wait up to ten seconds for an answer.
    with shared(**open_registry.settings) as proxy:
        began = time.monotonic()
        with pytest.raises((ssl.SSLError, OSError)):
            fetch("GET", f"https://{proxy.host}/v2/", tls=ssl.create_default_context())
        assert time.monotonic() - began < 8
