"""Several upstreams behind one host name of ours: one realm, one service, one token, and nothing mixed up."""

import pytest

from application.access.grant_token import TokenQuery
from application.manifests.manifest_query import ManifestAnswer
from application.ports.upstream import ForwardedCredentials, SessionCredentials
from domain.access import ScopeSet
from domain.digest import Digest
from domain.errors import (
    BlobUnknown,
    CredentialsRejected,
    Denied,
    IdentityRejected,
    ManifestUnknown,
    NameUnknown,
    RegistryError,
    Unauthorized,
    UpstreamAuthUnknown,
    UpstreamUnreachable,
)
from domain.names import RepositoryName
from domain.tokens import IssuedToken
from domain.trust import UpstreamIdentity
from entrypoints.settings import UpstreamSettings
from tests.application.support.service import ALICE, BOB, REALM, Service, accounts
from tests.fakes.upstream import FakeUpstream
from tests.fakes.upstreams import FakeUpstreams

HUB, QUAY, K8S = "https://registry-1.docker.io", "https://quay.io", "https://registry.k8s.io"
CORP = "https://harbor.test"
AT_QUAY, AT_K8S = {"namespace": "quay.io"}, {"namespace": "registry.k8s.io"}
AT_CORP = {"host": "corp.mirror.test"}
NOWHERE: dict[str, str] = {}
SAME, PAUSE = RepositoryName("team/app"), RepositoryName("pause")
CLIENT, ANYBODY = UpstreamIdentity.CLIENT, UpstreamIdentity.ANONYMOUS
BLOB = b"a layer that two registries have"
GONE = UpstreamUnreachable("the upstream cannot be reached")


def manifest_of(registry: str) -> bytes:
    return f'{{"schemaVersion":2,"registry":"{registry}"}}'.encode()


def registry(url: str, scheme: str = "bearer") -> FakeUpstream:
    fake = FakeUpstream(scheme, service=url, users={"alice": "right"}, public={"team/app", "library/app", "pause"})
    for name in ("team/app", "library/app", "pause", "secret/app"):
        fake.put_manifest(name, "1", manifest_of(url))
    fake.put_blob("team/app", BLOB)
    return fake


class House:
    """Docker Hub, Quay and registry.k8s.io together; a Harbor under a host name of its own."""

    def __init__(self, hub: UpstreamIdentity = ANYBODY, hub_scheme: str = "bearer", **settings: object) -> None:
        self.fakes = {url: registry(url, hub_scheme if url == HUB else "bearer") for url in (HUB, QUAY, K8S, CORP)}
        upstreams = (
            UpstreamSettings(url=HUB, identity=hub),
            UpstreamSettings(url=QUAY, identity=ANYBODY),
            UpstreamSettings(url=K8S, identity=ANYBODY),
            UpstreamSettings(url=CORP, identity=CLIENT, hosts=frozenset({"corp.mirror.test"})),
        )
        self.service = Service(FakeUpstreams(self.fakes), upstreams=upstreams, **settings)

    def manifest(
        self,
        name: RepositoryName,
        hint: dict[str, str] = NOWHERE,
        token: IssuedToken | None = None,
    ) -> ManifestAnswer:
        header = f"Bearer {token.text}" if token else None
        return self.service.run(self.service.manifest(header, name, hint=hint))

    def token(self, scope: str = "", hint: dict[str, str] = NOWHERE, **query: object) -> IssuedToken:
        known = self.service.parts.upstreams().hint_of(**hint)
        asked = TokenQuery(scopes=ScopeSet.parse([scope]), hint=known, **query)
        return self.service.run(self.service.parts.grant_token()(asked))

    def ping(self, token: IssuedToken | None = None) -> None:
        self.service.run(self.service.ping(f"Bearer {token.text}" if token else None))

    def rights(self, url: str) -> list[object]:
        return [fetch.credentials for fetch in self.fakes[url].asked]


@pytest.mark.parametrize("hub", [ANYBODY, CLIENT])
def test_there_is_one_realm_and_one_service_for_all(hub: UpstreamIdentity) -> None:
    house = House(hub, accounts=accounts(ALICE))
    for action in (house.ping, lambda: house.manifest(SAME), lambda: house.manifest(SAME, AT_QUAY)):
        with pytest.raises(Unauthorized) as refused:
            action()
        (challenge,) = refused.value.challenges
        assert (challenge.get("realm"), challenge.get("service")) == (REALM, "docker-image-proxy")


@pytest.mark.parametrize(
    ("scope", "name", "hint", "url", "there"),
    [
        ("repository:library/app:pull", "library/app", NOWHERE, HUB, "library/app"),
        ("repository:app:pull", "app", NOWHERE, HUB, "library/app"),
        ("repository:library/app:pull", "docker.io/library/app", NOWHERE, HUB, "library/app"),
        ("repository:team/app:pull", "team/app", AT_QUAY, QUAY, "team/app"),
        ("repository:quay.io/team/app:pull", "quay.io/team/app", NOWHERE, QUAY, "team/app"),
        ("repository:team/app:pull", "quay.io/team/app", AT_QUAY, QUAY, "team/app"),
        ("repository:pause:pull", "pause", AT_K8S, K8S, "pause"),
        ("repository:pause:pull", "pause", {"prefix": "registry.k8s.io"}, K8S, "pause"),
    ],
)
@pytest.mark.parametrize("hub", [ANYBODY, CLIENT])
def test_a_token_for_what_a_client_calls_it_opens_it(
    hub: UpstreamIdentity, scope: str, name: str, hint: dict[str, str], url: str, there: str
) -> None:
    """Containerd leaves out the prefix, podman does not; neither says at the token endpoint which registry it means."""
    house = House(hub, accounts=accounts(ALICE))
    token = house.token(scope, credentials=ALICE)
    assert house.manifest(RepositoryName(name), hint, token).content == manifest_of(url)
    assert {fetch.resource.path.partition("/manifests/")[0] for fetch in house.fakes[url].asked} == {there}
    assert not [fake.asked for other, fake in house.fakes.items() if other != url and fake.asked]


def test_a_token_for_something_else_opens_nothing() -> None:
    house = House(accounts=accounts(ALICE))
    token = house.token("repository:team/other:pull", credentials=ALICE)
    for hint in (NOWHERE, AT_QUAY):
        with pytest.raises(Unauthorized):
            house.manifest(SAME, hint, token)


def test_a_callers_login_goes_to_the_one_upstream_that_it_is_for() -> None:
    house = House(CLIENT)
    token = house.token("repository:secret/app:pull", credentials=ALICE)
    assert house.manifest(RepositoryName("secret/app"), token=token).content == manifest_of(HUB)
    assert set(house.rights(HUB)) == {ForwardedCredentials("Bearer upstream-token-of-alice=")}
    house.manifest(SAME, AT_QUAY, house.token("repository:team/app:pull", credentials=ALICE))
    assert set(house.rights(QUAY)) == {SessionCredentials(None)}
    assert not [fake.relayed for url, fake in house.fakes.items() if url != HUB and fake.relayed]


def test_what_is_for_another_registry_is_not_asked_of_the_callers_one() -> None:
    house = House(CLIENT)
    token = house.token("repository:quay.io/team/app:pull", credentials=ALICE)
    assert house.fakes[HUB].relayed == []
    assert house.manifest(RepositoryName("quay.io/team/app"), token=token).content == manifest_of(QUAY)


def test_a_token_without_the_callers_half_is_nobodys_at_his_upstream() -> None:
    house = House(CLIENT)
    scopes = ScopeSet.parse(["repository:team/app:pull repository:secret/app:pull"])
    token = IssuedToken(house.service.own_token("", scopes), 300, 0)
    assert house.manifest(SAME, token=token).content == manifest_of(HUB)
    with pytest.raises(Unauthorized):
        house.manifest(RepositoryName("secret/app"), token=token)
    assert set(house.rights(HUB)) == {SessionCredentials(None)}


def test_wrong_credentials_are_refused_by_the_upstream_they_are_for() -> None:
    with pytest.raises(CredentialsRejected):
        House(CLIENT).token("repository:team/app:pull", credentials=BOB)


def test_a_refresh_token_of_other_days_is_refused_and_not_taken_for_nobody() -> None:
    house = House(CLIENT)
    with pytest.raises(CredentialsRejected, match="log in again"):
        house.token("repository:team/app:pull", refresh_token="alices")
    assert house.fakes[HUB].relayed == []


@pytest.mark.parametrize("known", [ALICE, None])
def test_one_upstream_that_is_gone_takes_no_other_with_it(known: object) -> None:
    house = House(CLIENT, **({"accounts": accounts(ALICE)} if known else {}))
    house.fakes[HUB].fault = GONE
    with pytest.raises(Unauthorized):
        house.ping()
    token = house.token("repository:team/app:pull", credentials=known)
    house.ping(token)
    assert house.manifest(SAME, AT_QUAY, token).content == manifest_of(QUAY)
    with pytest.raises((UpstreamAuthUnknown, UpstreamUnreachable)):
        house.manifest(SAME, token=token)


@pytest.mark.parametrize("refusal", [Denied("no token for nobody"), CredentialsRejected("log in")])
def test_one_that_gives_nobody_a_token_keeps_nobody_from_the_others(refusal: RegistryError) -> None:
    """As ghcr.io answers for what is not its own. Containerd's scope does not say which registry it means."""
    house = House(CLIENT)
    with pytest.raises(Unauthorized):
        house.manifest(SAME)  # how it wants to be asked is known
    house.fakes[HUB].refusal = refusal
    token = house.token("repository:team/app:pull")
    assert house.manifest(SAME, AT_QUAY, token).content == manifest_of(QUAY)
    if isinstance(refusal, CredentialsRejected):
        with pytest.raises(CredentialsRejected):
            house.token("repository:team/app:pull", credentials=ALICE)


def test_accounts_are_checked_though_an_upstream_is_gone() -> None:
    house = House(CLIENT, accounts=accounts(ALICE))
    house.fakes[HUB].fault = GONE
    for stranger in (None, BOB):
        with pytest.raises(CredentialsRejected):
            house.token("repository:team/app:pull", credentials=stranger)
    with pytest.raises(Unauthorized):
        house.manifest(SAME, AT_QUAY)


def test_a_login_by_basic_cannot_be_shared_and_spoils_nothing_else() -> None:
    house = House(CLIENT, "basic")
    token = house.token("repository:team/app:pull")
    house.ping(token)
    assert house.manifest(SAME, AT_QUAY, token).content == manifest_of(QUAY)
    with pytest.raises(IdentityRejected, match="identity other than client, or a host name of its own"):
        house.manifest(SAME, token=token)


def test_an_upstream_with_a_host_of_its_own_is_itself_there() -> None:
    house = House(CLIENT)
    with pytest.raises(Unauthorized) as refused:
        house.manifest(RepositoryName("secret/app"), AT_CORP)
    (challenge,) = refused.value.challenges
    assert challenge.get("service") == CORP
    token = house.token("repository:secret/app:pull", AT_CORP, credentials=ALICE, service=CORP)
    assert token.text == "upstream-token-of-alice="
    assert house.manifest(RepositoryName("secret/app"), AT_CORP, token).content == manifest_of(CORP)
    with pytest.raises(NameUnknown):
        house.manifest(RepositoryName("secret/app"), {"namespace": "harbor.test"}, token)


def test_a_token_of_one_registry_is_never_shown_to_another() -> None:
    house = House(CLIENT, accounts=accounts(ALICE))
    for_hub = house.token("repository:secret/app:pull", credentials=ALICE)
    with pytest.raises(Unauthorized) as refused:
        house.manifest(RepositoryName("secret/app"), AT_CORP, for_hub)
    assert refused.value.challenges[0].get("error") == "invalid_token"
    assert house.rights(CORP) == []


@pytest.mark.parametrize("hub", [ANYBODY, CLIENT])
def test_the_same_name_and_tag_on_two_upstreams_never_mix(hub: UpstreamIdentity) -> None:
    house = House(hub)
    token = house.token("repository:team/app:pull")
    for _ in range(2):  # from upstream, and from the cache
        assert house.manifest(SAME, token=token).content == manifest_of(HUB)
        assert house.manifest(SAME, AT_QUAY, token).content == manifest_of(QUAY)
        assert house.manifest(SAME, AT_K8S, token).content == manifest_of(K8S)
    with pytest.raises(ManifestUnknown):
        house.service.run(
            house.service.manifest(f"Bearer {token.text}", SAME, str(Digest.of(manifest_of(QUAY))), hint=AT_K8S)
        )


def test_content_of_one_upstream_is_no_other_ones_to_give() -> None:
    house = House()
    digest = Digest.of(BLOB)
    del house.fakes[QUAY].blobs["team/app", str(digest)]
    assert house.service.run(house.service.blob(None, SAME, digest)) == BLOB
    with pytest.raises(BlobUnknown):
        house.service.run(house.service.blob(None, SAME, digest, hint=AT_QUAY))
    assert house.service.run(house.service.blob(None, SAME, digest, hint=AT_K8S)) == BLOB


def test_a_search_finds_names_as_they_are_pulled() -> None:
    house = House()
    house.fakes[QUAY].tags = {"team/app": ["1"], "team/other": ["1"]}
    found = house.service.run(house.service.search(None, "quay.io/app"))
    assert [one.name for one in found] == ["quay.io/team/app"]


def test_what_a_token_for_just_this_may_not_read_is_denied() -> None:
    """Another token would be refused as well, so there is no challenge to loop on."""
    house = House(CLIENT)
    token = house.token("repository:secret/app:pull")
    with pytest.raises(Denied):
        house.manifest(RepositoryName("secret/app"), token=token)
    assert house.rights(HUB)
