"""Upstreams with a private certificate authority, with blobs on another server, and with a foreign token server."""

from pathlib import Path

import pytest

from tests.e2e.support.certificates import PrivateAuthority
from tests.e2e.support.docker import Docker
from tests.e2e.support.docker_registry import Registry, htpasswd_auth
from tests.e2e.support.images import digest_of
from tests.e2e.support.pull_checks import assert_all_fetched, pull_whole
from tests.e2e.support.service import Serving
from tests.e2e.support.upstreams import (
    ACCOUNTS,
    PRIVATE,
    PUBLIC,
    Content,
    RedirectingUpstream,
    TokenUpstream,
    basic,
    redirecting_upstream,
)

pytestmark = pytest.mark.real("docker-registry")


@pytest.mark.real("dockerd")
def test_docker_pulls_from_an_upstream_behind_a_private_authority(
    docker: Docker, mirror: Serving, tls_registry: Registry, content: Content,
    authority: PrivateAuthority,
) -> None:  # fmt: skip
    since = tls_registry.mark()
    settings = {"UPSTREAM_REGISTRY": tls_registry.url, "UPSTREAM_CA": str(authority.certificate)}
    with mirror(**settings):
        pull_whole(docker, content, PUBLIC)
    assert_all_fetched(tls_registry.content_requests(since), PUBLIC, content.images[PUBLIC])


def test_an_upstream_with_an_untrusted_certificate_gets_no_request(serve: Serving, tls_registry: Registry) -> None:
    since = tls_registry.mark()
    with serve(ready="/livez", **tls_registry.settings) as proxy:
        answer = proxy.get(f"/v2/{PUBLIC}/tags/list")
        assert answer.status in (502, 503)
        assert answer.json()["errors"]
        assert proxy.get("/readyz").status == 503
    assert tls_registry.requests(since) == []


@pytest.mark.real("dockerd")
def test_docker_pulls_blobs_that_the_upstream_redirects_to_another_server(
    docker: Docker,
    mirror: Serving,
    redirecting_registry: RedirectingUpstream,
    content: Content,
) -> None:
    since, moved = redirecting_registry.registry.mark(), redirecting_registry.blobs.mark()
    with mirror(**redirecting_registry.settings):
        pull_whole(docker, content, PUBLIC)
    requests = redirecting_registry.registry.content_requests(since)
    assert_all_fetched(requests, PUBLIC, content.images[PUBLIC], status=307)
    stored = redirecting_registry.blobs.content_requests(moved)
    assert len([request for request in stored if request.method == "GET" and request.status == 200]) == 4
    assert not any(request.agent.startswith("docker/") for request in stored), (
        "the mirror follows the redirect, not the client"
    )


@pytest.mark.real("dockerd")
def test_a_redirect_to_another_server_is_followed_without_authorization(
    docker: Docker, workplace: Path, mirror: Serving, content: Content
) -> None:
    docker.log_in_to_hub_as("alice", ACCOUNTS["alice"])
    folder = workplace / "redirecting-with-accounts"
    folder.mkdir()
    with redirecting_upstream(folder, content, htpasswd_auth(folder / "htpasswd")) as upstream:
        with mirror(**upstream.settings):
            pull_whole(docker, content, PRIVATE)
        assert_all_fetched(upstream.registry.content_requests(), PRIVATE, content.images[PRIVATE], status=307)
        assert {entry["status"] for entry in upstream.blobs.log()} == {200}
        assert not any(entry["authorization"] for entry in upstream.blobs.log())


def test_a_range_of_a_redirected_blob_is_served(
    serve: Serving, redirecting_registry: RedirectingUpstream, content: Content
) -> None:
    blob = content.images[PUBLIC].layers[1]
    path = f"/v2/{PUBLIC}/blobs/{blob.digest}"
    with serve(**redirecting_registry.settings) as proxy:
        part = proxy.get(path, Range="bytes=1000-1999")
        assert (part.status, part.body) == (206, blob.content[1000:2000])
        assert part.headers["Content-Range"] == f"bytes 1000-1999/{len(blob.content)}"
        head = proxy.request("HEAD", path)
        assert (head.status, head.headers["Content-Length"]) == (200, str(len(blob.content)))
        assert digest_of(proxy.get(path).body) == blob.digest


def test_credentials_are_not_sent_to_a_realm_that_is_not_configured(
    serve: Serving, token_registry: TokenUpstream
) -> None:
    asked = token_registry.server.mark()
    with serve(UPSTREAM_REGISTRY=token_registry.url) as proxy:
        answer = proxy.ask_token(f"repository:{PRIVATE}:pull", basic("alice"))
        assert answer.status == 502
        assert b"UPSTREAM_REALMS" in answer.body
    assert not any(entry["credentials"] for entry in token_registry.token_requests(asked))
