"""Which registry a request means: by the path before /v2, the first segment of the name, or `ns`."""

import pytest

from domain.digest import Digest
from tests.entrypoints.conftest import Start
from tests.fakes.upstream import FakeUpstream

CONTENT = b'{"schemaVersion": 2}'
BLOB = b"a blob"
HUB = "https://registry-1.docker.io"
QUAY = "https://quay.io"


@pytest.fixture
def upstream() -> FakeUpstream:
    upstream = FakeUpstream()
    upstream.put_manifest("library/app", "v1", CONTENT)
    upstream.put_blob("library/app", BLOB)
    upstream.tags["library/app"] = ["v1"]
    return upstream


NAMINGS = {
    "default": "/v2/library/app/{}",
    "ns": "/v2/library/app/{}?ns=docker.io",
    "ns by another of its names": "/v2/library/app/{}?ns=index.docker.io",
    "ns with the port of https": "/v2/library/app/{}?ns=docker.io:443",
    "prefix with the port of https": "/docker.io:443/v2/library/app/{}",
    "ns twice, the same": "/v2/library/app/{}?ns=docker.io&ns=docker.io",
    "first segment": "/v2/docker.io/library/app/{}",
    "first segment and ns": "/v2/docker.io/library/app/{}?ns=docker.io",
    "prefix": "/docker.io/v2/library/app/{}",
    "prefix and ns": "/docker.io/v2/library/app/{}?ns=docker.io",
    "prefix, and one segment": "/docker.io/v2/app/{}",
    "first segment, and one more": "/v2/docker.io/app/{}",
}
RESOURCES = ("manifests/v1", f"blobs/{Digest.of(BLOB)}", "tags/list")


@pytest.mark.parametrize("resource", RESOURCES)
@pytest.mark.parametrize("path", NAMINGS.values(), ids=NAMINGS)
async def test_every_way_of_naming_leads_to_the_one_repository(
    start: Start, upstream: FakeUpstream, path: str, resource: str
) -> None:
    service = await start(upstream_registry=HUB)
    answer = await service.get(path.format(resource))
    assert answer.status_code == 200
    assert {asked.resource.path.partition("/" + resource.partition("/")[0])[0] for asked in upstream.asked} == {
        "library/app"
    }
    namespace = path.partition("?ns=")[2].partition("&")[0] or None
    assert answer.headers.get("oci-namespace") == namespace


@pytest.mark.parametrize("resource", RESOURCES)
@pytest.mark.parametrize(
    "path",
    [
        "/v2/library/app/{}?ns=quay.io",
        "/quay.io/v2/library/app/{}",
        "/docker.io/v2/library/app/{}?ns=quay.io",
        "/v2/docker.io/library/app/{}?ns=ghcr.io",
        "/v2/library/app/{}?ns=docker.io:5000",
        "/v2/library/app/{}?ns=docker.io%00",
    ],
)
async def test_another_registrys_image_is_not_mixed_up_with_ours(
    start: Start, upstream: FakeUpstream, path: str, resource: str
) -> None:
    service = await start(upstream_registry=HUB)
    answer = await service.get(path.format(resource))
    assert (answer.status_code, answer.json()["errors"][0]["code"]) == (404, "NAME_UNKNOWN")
    assert "oci-namespace" not in answer.headers
    assert upstream.asked == []


@pytest.mark.parametrize("path", ["/v2/?ns=quay.io", "/quay.io/v2/", "/v2/_catalog?ns=quay.io", "/quay.io/v2/_catalog"])
async def test_its_lists_and_its_version_check_are_not_either(start: Start, path: str) -> None:
    service = await start(upstream_registry=HUB)
    assert (await service.get(path)).status_code == 404


async def test_the_catalog_can_be_requested_by_registry_name(start: Start) -> None:
    service = await start(upstream_registry=HUB, upstream_identity="anonymous")
    for path in ("/v2/_catalog", "/docker.io/v2/_catalog", "/v2/_catalog?ns=docker.io"):
        answer = await service.get(path)
        assert (answer.status_code, list(answer.json())) == (200, ["repositories"])


@pytest.mark.parametrize("path", ["/docker.io/v2/", "/docker.io/v2", "/v2/?ns=docker.io"])
async def test_the_version_check_can_be_requested_by_registry_name(start: Start, path: str) -> None:
    service = await start(upstream_registry=HUB)
    token = await service.token()
    assert (await service.get(path, {"Authorization": f"Bearer {token}"})).status_code == 200


async def test_links_stay_below_the_clients_prefix(start: Start, upstream: FakeUpstream) -> None:
    upstream.tags["library/app"] = ["v1", "v2"]
    service = await start(upstream_registry=HUB)
    answer = await service.get("/docker.io/v2/library/app/tags/list?n=1")
    assert answer.headers.get("link", "</docker.io/v2/library/app/tags/list?").startswith("</docker.io/v2/library/app/")


async def test_an_unknown_registry_stands_in_for_docker_hub(start: Start, upstream: FakeUpstream) -> None:
    """dockerd says `ns=docker.io` to each of its registry-mirrors."""
    service = await start(upstream_registry="https://mirror.example.com")
    assert (await service.get("/v2/library/app/manifests/v1?ns=docker.io")).status_code == 200
    # But a name there may well begin with these letters.
    upstream.put_manifest("docker.io/library/app", "v1", CONTENT)
    assert (await service.get("/v2/docker.io/library/app/manifests/v1")).status_code == 200
    assert upstream.asked[-1].resource.path == "docker.io/library/app/manifests/v1"


async def test_a_well_known_registry_does_not_stand_in_for_docker_hub(start: Start, upstream: FakeUpstream) -> None:
    service = await start(upstream_registry=QUAY)
    assert (await service.get("/v2/library/app/manifests/v1?ns=docker.io")).status_code == 404
    assert (await service.get("/v2/library/app/manifests/v1?ns=quay.io")).status_code == 200
    assert (await service.get("/v2/quay.io/library/app/manifests/v1")).status_code == 200


async def test_the_operator_gives_it_further_names(start: Start, upstream: FakeUpstream) -> None:
    service = await start(upstream_registry="https://mirror.example.com", upstream_names="quay.io, Example.com:5000")
    for path in (
        "/v2/library/app/{}?ns=quay.io",
        "/v2/library/app/{}?ns=example.com%3A5000",
        "/quay.io/v2/library/app/{}",
    ):
        assert (await service.get(path.format("manifests/v1"))).status_code == 200
    assert (await service.get("/v2/library/app/manifests/v1?ns=docker.io")).status_code == 404


async def test_a_tokens_scope_may_name_the_registry_too(start: Start, upstream: FakeUpstream) -> None:
    service = await start(upstream_registry=HUB, upstream_identity="anonymous", accounts="YWxpY2U6c2VjcmV0")
    token = await service.token("repository:docker.io/library/app:pull", "Basic YWxpY2U6c2VjcmV0")
    for path in ("/v2/docker.io/library/app/manifests/v1", "/docker.io/v2/library/app/manifests/v1"):
        assert (await service.get(path, {"Authorization": f"Bearer {token}"})).status_code == 200


@pytest.mark.parametrize("path", ["/v2/", "/v2/_catalog", "/v2/library/app/manifests/v1", "/v1/search"])
@pytest.mark.parametrize("query", ["ns=docker.io&ns=quay.io", "ns=quay.io&ns=docker.io", "ns=docker.io&q=x&ns=quay.io"])
async def test_two_registries_in_one_request_are_refused(
    start: Start, upstream: FakeUpstream, path: str, query: str
) -> None:
    service = await start(upstream_registry=HUB)
    assert (await service.get(f"{path}?{query}")).status_code == 400
    assert upstream.asked == []
