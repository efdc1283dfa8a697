from dataclasses import replace

import pytest
from hypothesis import assume, given

from domain.access import Scope, ScopeSet
from domain.errors import NameUnknown
from domain.known_registries import DOCKER_HUB, KNOWN_REGISTRIES, OTHER_DOMAINS, is_never_docker_hub
from domain.names import RepositoryName
from domain.trust import TrustPolicy, UpstreamIdentity
from domain.upstream_table import UpstreamTable
from domain.upstreams import Origin, Source, Upstream
from tests.domain.strategies import names, scopes


def at(host: str, **values: object) -> Upstream:
    return replace(Upstream.at(f"https://{host}", Origin("https", host, 443)), **values)


HUB = at("registry-1.docker.io")
OTHER = at("quay.io")


def test_a_name_of_one_segment_means_the_library_of_docker_hub() -> None:
    assert UpstreamTable([HUB]).source_of(RepositoryName("nginx")) == Source(HUB, RepositoryName("library/nginx"))


@given(names)
def test_a_name_on_the_hub_gets_two_segments(text: str) -> None:
    assume("." not in text.partition("/")[0] or "/" not in text)
    there = UpstreamTable([HUB]).source_of(RepositoryName(text)).repository
    assert "/" in str(there)
    assert str(there) in {text, f"library/{text}"}


@given(names)
def test_a_name_elsewhere_stays_as_it_is(text: str) -> None:
    source = UpstreamTable([OTHER]).source_of(RepositoryName(text))
    assert source == Source(OTHER, RepositoryName(text))
    assert source.pull_scope == Scope.parse(f"repository:{text}:pull")


def test_scopes_get_the_names_of_the_upstream() -> None:
    asked = ScopeSet.parse(["repository:nginx:pull,push repository:a/b:pull registry:catalog:* aws"])
    there = "repository:library/nginx:pull,push repository:a/b:pull registry:catalog:* aws"
    assert str(UpstreamTable([HUB]).login_of(asked)[1]) == there


def test_two_names_of_one_repository_make_one_scope() -> None:
    asked = ScopeSet.parse(["repository:nginx:pull", "repository:library/nginx:pull"])
    assert str(UpstreamTable([HUB]).login_of(asked)[1]) == "repository:library/nginx:pull"


@pytest.mark.parametrize("text", ["repository(plugin):rexray:pull", "repository:localhost:5000/nginx:pull", "aws"])
def test_a_scope_of_no_plain_repository_stays(text: str) -> None:
    assert str(UpstreamTable([HUB]).login_of(ScopeSet.parse([text]))[1]) == text


@given(scopes)
def test_a_scope_keeps_its_actions_there(scope: Scope) -> None:
    (there,) = UpstreamTable([HUB]).login_of(ScopeSet((scope,)))[1]
    assert (there.actions, there.resource_type, there.resource_class) == (
        scope.actions,
        scope.resource_type,
        scope.resource_class,
    )
    assert UpstreamTable([OTHER]).login_of(ScopeSet((scope,)))[1] == ScopeSet((scope,))


AT_A_PORT = Upstream.at("http://mirror.test:5000", Origin("http", "mirror.test", 5000))
REPOSITORY = RepositoryName("a/b")


@pytest.mark.parametrize(
    ("upstream", "names", "meant"),
    [
        (HUB, (), {"docker.io", "index.docker.io", "registry-1.docker.io", "DOCKER.IO"}),
        (OTHER, (), {"quay.io", "quay.io:443"}),
        (AT_A_PORT, (), {"mirror.test:5000", "docker.io", "index.docker.io"}),
        (AT_A_PORT, ("quay.io",), {"mirror.test:5000", "quay.io", "quay.io:443"}),
        (at("eu.gcr.io"), (), {"eu.gcr.io", "eu.gcr.io:443"}),
        (at("mirror.gcr.io"), (), {"mirror.gcr.io", "docker.io"}),
        (at("notquay.io"), (), {"notquay.io", "docker.io"}),
        (AT_A_PORT, ("docker.io",), {"mirror.test:5000", "docker.io", "registry-1.docker.io"}),
        (AT_A_PORT, ("corp.test",), {"mirror.test:5000", "corp.test", "docker.io"}),
    ],
)
def test_a_namespace_has_to_mean_the_upstream(upstream: Upstream, names: tuple[str, ...], meant: set[str]) -> None:
    table = UpstreamTable([replace(upstream, aliases=frozenset(names))])
    elsewhere = {"docker.io", "quay.io", "quay.io:443", "ghcr.io", "mirror.test", "mirror.test:5000", "corp.test", ""}
    asked = elsewhere | meant
    for namespace in asked:
        if namespace in meant or namespace.lower() in meant:
            assert table.source_of(REPOSITORY, table.hint_of(namespace=namespace)) == Source(upstream, REPOSITORY)
        elif not (namespace.endswith("docker.io") and "docker.io" in meant):
            with pytest.raises(NameUnknown):
                table.source_of(REPOSITORY, table.hint_of(namespace=namespace))


def test_a_mirror_of_docker_hub_keeps_its_names() -> None:
    """A Harbor can have a project `docker.io`."""
    table = UpstreamTable([AT_A_PORT])
    name = RepositoryName("docker.io/a/b")
    assert table.source_of(name) == Source(AT_A_PORT, name)
    with pytest.raises(NameUnknown):
        table.hint_of(prefix="docker.io")


def test_a_registry_prefix_is_removed_once() -> None:
    table = UpstreamTable([HUB])
    assert str(table.source_of(RepositoryName("docker.io/docker.io/b")).repository) == "docker.io/b"
    assert str(table.source_of(RepositoryName("docker.io/b")).repository) == "library/b"
    assert str(table.source_of(RepositoryName("docker.io")).repository) == "library/docker.io"
    assert str(table.login_of(ScopeSet.parse(["repository:docker.io/b:pull"]))[1]) == "repository:library/b:pull"


# --- several ---

ANYBODY = TrustPolicy(False, False, UpstreamIdentity.ANONYMOUS, shares_host=True)
HUB_LOGIN = replace(HUB, trust=replace(HUB.trust, shares_host=True))
QUAY = at("quay.io", trust=ANYBODY)
K8S = at("registry.k8s.io", trust=ANYBODY, aliases=frozenset({"k8s"}))
CORP = at("harbor.corp.test", hosts=frozenset({"corp.mirror.test"}))
HOSTED = at("ghcr.io", hosts=frozenset({"ghcr.mirror.test:5000"}), trust=ANYBODY)
TABLE = UpstreamTable([HUB_LOGIN, QUAY, K8S, CORP, HOSTED])


@pytest.mark.parametrize(
    ("name", "hint", "upstream", "there"),
    [
        ("nginx", {}, HUB, "library/nginx"),
        ("a/b", {"prefix": "quay.io"}, QUAY, "a/b"),
        ("quay.io/a/b", {"prefix": "quay.io"}, QUAY, "a/b"),
        ("quay.io/a/b", {"namespace": "quay.io"}, QUAY, "a/b"),
        ("quay.io/a/b", {}, QUAY, "a/b"),
        ("a/b", {"namespace": "QUAY.IO"}, QUAY, "a/b"),
        ("pause", {"namespace": "registry.k8s.io"}, K8S, "pause"),
        ("k8s/pause", {}, K8S, "pause"),
        ("registry.k8s.io/pause", {"prefix": "k8s"}, K8S, "pause"),
        ("docker.io/nginx", {}, HUB, "library/nginx"),
        ("ghcr.io/a/b", {}, HOSTED, "a/b"),
        ("a/b", {"host": "ghcr.mirror.test:5000"}, HOSTED, "a/b"),
        ("quay.io/a/b", {"host": "ghcr.mirror.test:5000"}, HOSTED, "quay.io/a/b"),
        ("a/b", {"host": "CORP.mirror.test"}, CORP, "a/b"),
        ("a/b", {"host": "corp.mirror.test:8080"}, CORP, "a/b"),
        ("harbor.corp.test/a/b", {"host": "corp.mirror.test"}, CORP, "a/b"),
        ("a/b", {"host": "else.mirror.test"}, HUB, "a/b"),
        ("x/ghcr.mirror.test", {"host": "ghcr.mirror.test"}, HUB, "x/ghcr.mirror.test"),
        ("gcr.io/a", {"namespace": "docker.io"}, HUB, "gcr.io/a"),
    ],
)  # fmt: skip
def test_each_way_of_naming_leads_to_its_upstream(
    name: str, hint: dict[str, str], upstream: Upstream, there: str
) -> None:
    assert TABLE.source_of(RepositoryName(name), TABLE.hint_of(**hint)) == Source(upstream, RepositoryName(there))


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("quay.io/a/b", {"prefix": "docker.io"}),
        ("quay.io/a/b", {"namespace": "docker.io"}),
        ("a/b", {"prefix": "docker.io", "namespace": "quay.io"}),
        ("a/b", {"namespace": "harbor.corp.test"}),
        ("a/b", {"prefix": "gcr.io"}),
        ("a/b", {"namespace": ""}),
        ("gcr.io/a", {}),
        ("a/b", {"namespace": "quay.io", "host": "corp.mirror.test"}),
    ],
)
def test_two_registries_or_an_unknown_one_are_refused(name: str, hint: dict[str, str]) -> None:
    with pytest.raises(NameUnknown):
        TABLE.source_of(RepositoryName(name), TABLE.hint_of(**hint))


def test_an_upstream_with_client_identity_and_hosts_is_only_behind_these_hosts() -> None:
    with pytest.raises(NameUnknown):
        TABLE.hint_of(prefix="harbor.corp.test")
    assert TABLE.upstream_of(TABLE.hint_of(host="corp.mirror.test")) == CORP


@pytest.mark.parametrize(
    ("asked", "upstream", "there"),
    [
        ("repository:nginx:pull", HUB, "repository:library/nginx:pull"),
        ("repository:quay.io/a/b:pull", QUAY, ""),
        ("repository:quay.io/a/b:pull repository:a/b:pull", HUB, "repository:a/b:pull"),
        ("repository:docker.io/nginx:pull registry:catalog:*", HUB, "repository:library/nginx:pull registry:catalog:*"),
        ("", HUB, ""),
    ],
)
def test_tokens_come_from_the_upstream_with_client_identity(asked: str, upstream: Upstream, there: str) -> None:
    found, scopes_there = TABLE.login_of(ScopeSet.parse([asked]))
    assert (found, str(scopes_there)) == (upstream, there)


def test_the_upstream_with_client_identity_need_not_be_the_default() -> None:
    login = at("quay.io", trust=HUB_LOGIN.trust)
    table = UpstreamTable([replace(HUB, trust=ANYBODY), login])
    assert table.source_of(RepositoryName("a/b")).upstream == HUB
    assert table.login_of(ScopeSet.parse(["repository:nginx:pull"])) == (
        login,
        ScopeSet.parse(["repository:nginx:pull"]),
    )


@pytest.mark.parametrize(
    ("upstreams", "message"),
    [
        ([HUB, OTHER], "https://registry-1.docker.io and https://quay.io both have the identity client"),
        ([HUB, at("x.test", aliases=frozenset({"docker.io"}), trust=ANYBODY)], "two upstreams have the name"),
        (
            [HUB, replace(OTHER, hosts=frozenset({"m.test"})), replace(OTHER, trust=ANYBODY)],
            "the address https://quay.io",
        ),
        (
            [HUB, replace(OTHER, fallbacks=((HUB.url, HUB.origin),), trust=ANYBODY)],
            "the address https://registry-1.docker.io",
        ),
        ([at("a.test", hosts=frozenset({"m.test"})), at("b.test", hosts=frozenset({"m.test"}))], "the host m.test"),
    ],
)
def test_upstreams_that_cannot_be_distinguished_are_refused(upstreams: list[Upstream], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        UpstreamTable(upstreams)


@pytest.mark.parametrize(
    ("term", "found"),
    [
        ("nginx", (HUB, "nginx", "")),
        ("quay.io/nginx", (QUAY, "nginx", "quay.io/")),
        ("K8S/pause", (K8S, "pause", "K8S/")),
        ("gcr.io/nginx", (HUB, "gcr.io/nginx", "")),
        ("quay.io", (HUB, "quay.io", "")),
    ],
)
def test_a_search_may_name_the_registry(term: str, found: tuple[Upstream, str, str]) -> None:
    assert TABLE.search_of(term) == found


@given(names)
def test_the_name_of_a_source_leads_back_to_it(text: str) -> None:
    for upstream in (HUB_LOGIN, QUAY, K8S, CORP, HOSTED):
        source = Source(upstream, RepositoryName(f"x/{text}"))
        name = RepositoryName(TABLE.name_of(source))
        assert TABLE.source_of(name, TABLE.hint_for(name)) == source
        assert TABLE.source_of(*TABLE.request_for(source)) == source


@pytest.mark.parametrize("name", sorted(KNOWN_REGISTRIES.keys() - {"docker.io"} | OTHER_DOMAINS))
@pytest.mark.parametrize("below", ["", "registry."])
def test_no_other_well_known_registry_is_taken_for_docker_hub(name: str, below: str) -> None:
    table = UpstreamTable([at(f"{below}{name}")])
    for hub in ("docker.io", "index.docker.io", "registry-1.docker.io"):
        with pytest.raises(NameUnknown):
            table.hint_of(namespace=hub)


def test_the_hosts_of_well_known_registries_are_well_known_too() -> None:
    for name, known in KNOWN_REGISTRIES.items():
        assert is_never_docker_hub(known.url.removeprefix("https://")) is (name != "docker.io")


def test_every_well_known_name_means_docker_hub_or_another_registry() -> None:
    names = KNOWN_REGISTRIES.keys() | OTHER_DOMAINS
    assert [name for name in names if not is_never_docker_hub(name)] == ["docker.io"]
    assert {"docker.io", "registry-1.docker.io"} <= DOCKER_HUB.hosts
    assert not is_never_docker_hub("mirror.gcr.io")
    assert not is_never_docker_hub("notcodeberg.org")
