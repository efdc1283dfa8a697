import pytest
from hypothesis import given

from domain.access import Scope, ScopeSet
from domain.errors import NameUnknown
from domain.names import RepositoryName
from domain.upstreams import Naming, Origin, Source, Upstream, UpstreamTable
from tests.domain.strategies import names, scopes

HUB = Upstream.at("https://registry-1.docker.io", Origin("https", "registry-1.docker.io", 443))
OTHER = Upstream.at("https://quay.io", Origin("https", "quay.io", 443))


@pytest.mark.parametrize("host", ["registry-1.docker.io", "index.docker.io", "docker.io", "registry.hub.docker.com"])
def test_docker_hub_is_known_by_its_host(host: str) -> None:
    hub = Upstream.at(f"https://{host}", Origin("https", host, 443))
    assert hub.library_prefix
    assert hub.search_url == "https://index.docker.io/v1/search"


@pytest.mark.parametrize("host", ["quay.io", "docker.io.example.com", "notdocker.io", "localhost"])
def test_no_other_registry_has_its_peculiarities(host: str) -> None:
    other = Upstream.at(f"https://{host}", Origin("https", host, 443))
    assert not other.library_prefix
    assert other.search_url is None


def test_the_operator_names_another_search() -> None:
    named = Upstream.at(HUB.url, HUB.origin, "https://search.test/v1/search")
    assert named.search_url == "https://search.test/v1/search"


def test_a_short_name_means_the_hubs_library() -> None:
    assert UpstreamTable(HUB).source_of(RepositoryName("nginx")) == Source(HUB, RepositoryName("library/nginx"))


@given(names)
def test_a_name_on_the_hub_gets_two_segments(text: str) -> None:
    there = UpstreamTable(HUB).source_of(RepositoryName(text)).repository
    assert not there.has_one_segment
    assert str(there) in {text, f"library/{text}"}


@given(names)
def test_a_name_elsewhere_stays_as_it_is(text: str) -> None:
    source = UpstreamTable(OTHER).source_of(RepositoryName(text))
    assert source == Source(OTHER, RepositoryName(text))
    assert source.pull_scope == Scope.parse(f"repository:{text}:pull")


def test_scopes_are_told_with_the_upstreams_names() -> None:
    asked = ScopeSet.parse(["repository:nginx:pull,push repository:a/b:pull registry:catalog:* aws"])
    there = "repository:library/nginx:pull,push repository:a/b:pull registry:catalog:* aws"
    assert str(UpstreamTable(HUB).scopes_there(asked)) == there


def test_two_names_of_one_repository_make_one_scope() -> None:
    asked = ScopeSet.parse(["repository:nginx:pull", "repository:library/nginx:pull"])
    assert str(UpstreamTable(HUB).scopes_there(asked)) == "repository:library/nginx:pull"


@pytest.mark.parametrize("text", ["repository(plugin):rexray:pull", "repository:localhost:5000/nginx:pull", "aws"])
def test_a_scope_of_no_plain_repository_stays(text: str) -> None:
    assert str(UpstreamTable(HUB).scopes_there(ScopeSet.parse([text]))) == text


@given(scopes)
def test_a_scope_keeps_its_actions_there(scope: Scope) -> None:
    (there,) = UpstreamTable(HUB).scopes_there(ScopeSet((scope,)))
    assert (there.actions, there.resource_type, there.resource_class) == (
        scope.actions,
        scope.resource_type,
        scope.resource_class,
    )
    assert UpstreamTable(OTHER).scopes_there(ScopeSet((scope,))) == ScopeSet((scope,))


def at(host: str) -> Upstream:
    return Upstream.at(f"https://{host}", Origin("https", host, 443))


AT_A_PORT = Upstream.at("http://mirror.test:5000", Origin("http", "mirror.test", 5000))
REPOSITORY = RepositoryName("a/b")


@pytest.mark.parametrize(
    ("upstream", "names", "meant"),
    [
        (HUB, (), {"docker.io", "index.docker.io", "registry-1.docker.io", "DOCKER.IO"}),
        (OTHER, (), {"quay.io", "quay.io:443"}),
        (AT_A_PORT, (), {"mirror.test:5000", "docker.io", "index.docker.io"}),
        (AT_A_PORT, ("quay.io",), {"mirror.test:5000", "quay.io"}),
        (at("eu.gcr.io"), (), {"eu.gcr.io", "eu.gcr.io:443"}),
        (at("mirror.gcr.io"), (), {"mirror.gcr.io", "docker.io"}),
        (at("notquay.io"), (), {"notquay.io", "docker.io"}),
        (AT_A_PORT, ("docker.io",), {"mirror.test:5000", "docker.io", "registry-1.docker.io"}),
        (AT_A_PORT, ("corp.test",), {"mirror.test:5000", "corp.test", "docker.io"}),
    ],
)
def test_a_namespace_has_to_mean_the_upstream(upstream: Upstream, names: tuple[str, ...], meant: set[str]) -> None:
    table = UpstreamTable(upstream, names)
    elsewhere = {"docker.io", "quay.io", "quay.io:443", "ghcr.io", "mirror.test", "mirror.test:5000", "corp.test", ""}
    asked = elsewhere | meant
    for namespace in asked:
        if namespace in meant or namespace.lower() in meant:
            assert table.source_of(REPOSITORY, Naming(namespace=namespace)) == Source(upstream, REPOSITORY)
        elif not (namespace.endswith("docker.io") and "docker.io" in meant):
            with pytest.raises(NameUnknown):
                table.source_of(REPOSITORY, Naming(namespace=namespace))


def test_what_only_stands_in_for_docker_hub_keeps_its_names() -> None:
    """A Harbor may well have a project `docker.io`."""
    table = UpstreamTable(AT_A_PORT)
    name = RepositoryName("docker.io/a/b")
    assert table.source_of(name) == Source(AT_A_PORT, name)
    with pytest.raises(NameUnknown):
        table.check(Naming(prefix="docker.io"))


def test_a_name_in_front_is_taken_off_once() -> None:
    table = UpstreamTable(HUB)
    assert str(table.source_of(RepositoryName("docker.io/docker.io/b")).repository) == "docker.io/b"
    assert str(table.source_of(RepositoryName("docker.io/b")).repository) == "library/b"
    assert str(table.source_of(RepositoryName("docker.io")).repository) == "library/docker.io"
    assert str(table.scopes_there(ScopeSet.parse(["repository:docker.io/b:pull"]))) == "repository:library/b:pull"
