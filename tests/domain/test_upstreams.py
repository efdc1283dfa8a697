import pytest

from domain.upstreams import Origin, Upstream, without_default_port

HUB = Upstream.at("https://registry-1.docker.io", Origin("https", "registry-1.docker.io", 443))


@pytest.mark.parametrize("host", ["registry-1.docker.io", "index.docker.io", "docker.io", "registry.hub.docker.com"])
def test_docker_hub_is_known_by_its_host(host: str) -> None:
    hub = Upstream.at(f"https://{host}", Origin("https", host, 443))
    assert hub.library_prefix
    assert hub.search_url == "https://index.docker.io/v1/search"


@pytest.mark.parametrize("host", ["quay.io", "docker.io.example.com", "notdocker.io", "localhost"])
def test_no_other_registry_has_the_defaults_of_docker_hub(host: str) -> None:
    other = Upstream.at(f"https://{host}", Origin("https", host, 443))
    assert not other.library_prefix
    assert other.search_url is None


def test_the_operator_can_set_another_search_endpoint() -> None:
    named = Upstream.at(HUB.url, HUB.origin, "https://search.test/v1/search")
    assert named.search_url == "https://search.test/v1/search"


@pytest.mark.parametrize(
    ("host", "bare"),
    [("docker.io:443", "docker.io"), ("docker.io", "docker.io"), ("a.test:80", "a.test:80"), ("[::1]:443", "[::1]")],
)
def test_the_port_of_https_is_removed(host: str, bare: str) -> None:
    assert without_default_port(host) == bare
