"""Tests of the other programs without the mirror; the other e2e tests depend on them."""

import ssl

import pytest

from tests.e2e.support import upstreams
from tests.e2e.support.certificates import PrivateAuthority
from tests.e2e.support.docker import Docker
from tests.e2e.support.docker_registry import Registry
from tests.e2e.support.images import digest_of
from tests.e2e.support.kept_services import Services
from tests.e2e.support.plain_http import fetch
from tests.e2e.support.upstreams import PRIVATE, PUBLIC, Content, TokenUpstream, basic

pytestmark = pytest.mark.real("docker-registry")


def test_an_open_registry_serves_each_layer(open_registry: Registry, content: Content) -> None:
    since = open_registry.mark()
    for blob in content.images[PUBLIC].blobs:
        answer = fetch("GET", f"{open_registry.url}/v2/{PUBLIC}/blobs/{blob.digest}")
        assert digest_of(answer.body) == blob.digest
    assert [request.status for request in open_registry.content_requests(since)] == [200] * 4


def test_a_token_registry_serves_private_content_only_to_its_account(
    token_registry: TokenUpstream, content: Content
) -> None:
    url = f"{token_registry.url}/v2/{PRIVATE}/blobs/{content.images[PRIVATE].config.digest}"
    scope = f"repository:{PRIVATE}:pull"
    since = token_registry.mark()
    tokens = [token_registry.token(scope, account) for account in ("alice", "bob", None)]
    found = [fetch("GET", url, {"Authorization": f"Bearer {token}"}).status for token in tokens]
    assert found == [200, 401, 401]
    assert fetch("GET", url).status == 401
    logged = token_registry.content_requests(since)
    assert [request.status for request in logged] == [200, 401, 401, 401]


def test_an_htpasswd_registry_accepts_its_accounts(htpasswd_registry: Registry) -> None:
    url = f"{htpasswd_registry.url}/v2/{PRIVATE}/tags/list"
    assert fetch("GET", url, {"Authorization": basic("alice")}).json()["tags"] == ["1"]
    assert fetch("GET", url, {"Authorization": basic("alice", "wrong")}).status == 401
    assert fetch("GET", url).headers["WWW-Authenticate"].startswith("Basic ")


def test_the_certificate_of_the_tls_registry_is_signed_by_the_private_authority(
    tls_registry: Registry, authority: PrivateAuthority
) -> None:
    trusting = ssl.create_default_context(cafile=str(authority.certificate))
    assert fetch("GET", f"{tls_registry.url}/v2/", tls=trusting).status == 200
    with pytest.raises(ssl.SSLCertVerificationError):
        fetch("GET", f"{tls_registry.url}/v2/", tls=ssl.create_default_context())


def test_a_redirecting_registry_redirects_to_a_blob_server_that_refuses_authorization(
    redirecting_registry: upstreams.RedirectingUpstream, content: Content
) -> None:
    blob = content.images[PUBLIC].layers[0]
    moved = fetch("GET", f"{redirecting_registry.url}/v2/{PUBLIC}/blobs/{blob.digest}")
    assert moved.status == 307
    place = moved.headers["Location"]
    assert place.startswith(redirecting_registry.blobs.url)
    assert digest_of(fetch("GET", place).body) == blob.digest
    assert fetch("GET", place, {"Range": "bytes=5-9"}).body == blob.content[5:10]
    assert fetch("GET", place, {"Authorization": "Bearer x"}).status == 400


@pytest.mark.real("dockerd")
@pytest.mark.parametrize("name", [PUBLIC, PRIVATE])
def test_docker_pulls_every_layer_from_a_token_registry(
    docker: Docker, token_registry: TokenUpstream, content: Content, name: str
) -> None:
    host = f"127.0.0.1:{token_registry.port}"
    docker.login(host, "alice", upstreams.ACCOUNTS["alice"]).ok()
    docker.pull(f"{host}/{name}:1").ok()
    image = content.images[name]
    assert docker.diff_ids(f"{host}/{name}:1") == list(image.diff_ids)
    assert docker.repo_digests(f"{host}/{name}:1") == [f"{host}/{name}@{image.manifest.digest}"]


@pytest.mark.real("dockerd")
def test_docker_fails_at_once_if_the_mirror_is_stopped(docker: Docker, mirror: Services) -> None:
    mirror.close()  # a service that an earlier test started
    failed = docker.pull(f"{PUBLIC}:1")
    assert failed.status != 0
    assert "127.0.0.1:9" in failed.output


def test_the_logging_relay_records_the_user_of_each_request(
    workplace, token_registry: TokenUpstream, htpasswd_registry: Registry
) -> None:
    token = token_registry.token(f"repository:{PRIVATE}:pull", "alice")
    with (
        upstreams.spied(workplace, token_registry) as over_token,
        upstreams.spied(workplace, htpasswd_registry) as over_htpasswd,
    ):
        path = f"/v2/{PRIVATE}/tags/list"
        assert fetch("GET", over_token.url + path, {"Authorization": f"Bearer {token}"}).status == 200
        assert fetch("GET", over_htpasswd.url + path, {"Authorization": basic("bob")}).status == 200
        assert fetch("HEAD", over_htpasswd.url + path).status == 401
        assert [request.user for request in over_token.content_requests()] == ["alice"]
        assert [request.user for request in over_htpasswd.content_requests()] == ["bob", None]
