from contextlib import nullcontext
from dataclasses import replace

import pytest

from adapters.public_suffixes import BundledPublicSuffixes
from domain.errors import RealmNotTrusted
from domain.realm_policy import SHARED_DOMAINS, RealmPolicy, shared_domain_of
from domain.upstreams import Origin, Upstream

SUFFIXES = BundledPublicSuffixes()
"""Reading the list takes a tenth of a second."""


def trusts(upstream: str, realm: str, allowed: frozenset[str] = frozenset()) -> bool:
    origin = _origin(upstream)
    try:
        asked = replace(Upstream.at(upstream, origin), realms=allowed)
        RealmPolicy(SUFFIXES).check(asked, _origin(realm))
    except RealmNotTrusted:
        return False
    return True


def _origin(address: str) -> Origin:
    scheme, _, rest = address.partition("://")
    host, colon, port = rest.rpartition(":")
    return Origin(scheme, host, int(port)) if colon else Origin(scheme, rest, {"http": 80, "https": 443}[scheme])


@pytest.mark.parametrize(
    ("upstream", "realm"),
    [
        ("https://registry.example.com", "https://registry.example.com"),
        ("http://registry.example.com:5000", "http://registry.example.com:5000"),
        ("http://localhost:5000", "http://localhost:5000"),
        ("http://127.0.0.1:5000", "http://127.0.0.1:5000"),
        ("https://registry.corp", "https://registry.corp"),
        ("http://::1:5000", "http://::1:5000"),
    ],
)
def test_the_upstreams_own_host_is_trusted(upstream: str, realm: str) -> None:
    assert trusts(upstream, realm)


@pytest.mark.parametrize(
    ("upstream", "realm"),
    [
        ("https://registry-1.docker.io", "https://auth.docker.io"),
        ("https://registry.example.com", "https://example.com"),
        ("https://example.com", "https://auth.example.com"),
        ("https://a.registry.example.co.uk", "https://b.auth.example.co.uk"),
        ("https://registry.example.com", "https://auth.example.com:8443"),
        ("http://registry.example.com", "https://auth.example.com"),
        ("http://registry.example.com", "http://auth.example.com"),
    ],
)
def test_its_registrable_domain_is_trusted(upstream: str, realm: str) -> None:
    assert trusts(upstream, realm)


@pytest.mark.parametrize(
    ("upstream", "realm"),
    [
        ("https://registry.example.com", "https://attacker.test"),
        ("https://registry.example.com", "https://example.org"),
        ("https://registry.example.com", "https://registry.example.com.attacker.org"),
        ("https://registry.example.com", "https://attackerexample.com"),
        ("https://registry-1.docker.io", "https://docker.io.example.com"),
    ],
)
def test_a_host_of_others_is_refused(upstream: str, realm: str) -> None:
    assert not trusts(upstream, realm)


@pytest.mark.parametrize(
    ("upstream", "realm"),
    [
        ("https://example.co.uk", "https://attacker.co.uk"),
        ("https://mine.github.io", "https://theirs.github.io"),
        ("https://mine.s3.amazonaws.com", "https://theirs.s3.amazonaws.com"),
        ("https://com", "https://com:8443"),
        ("https://registry.corp", "https://auth.registry.corp"),
        ("https://registry.corp", "https://auth.corp"),
    ],
)
def test_a_neighbour_under_a_public_suffix_is_refused(upstream: str, realm: str) -> None:
    assert not trusts(upstream, realm)


@pytest.mark.parametrize(
    ("upstream", "realm"),
    [
        ("http://localhost:5000", "http://localhost:5001"),
        ("http://localhost:5000", "http://auth.localhost:5000"),
        ("http://127.0.0.1:5000", "http://127.0.0.1:5001"),
        ("http://127.0.0.1:5000", "http://127.0.0.2:5000"),
        ("http://10.0.0.1", "http://20.0.0.1"),
        ("http://::1:5000", "http://::1:5001"),
        ("https://registry.corp:5000", "https://registry.corp:5001"),
        ("https://registry.example.com", "https://169.254.169.254"),
        ("https://registry.example.com", "https://localhost"),
        ("http://registry.corp", "https://registry.corp"),
    ],
)
def test_another_port_of_a_bare_host_is_refused(upstream: str, realm: str) -> None:
    assert not trusts(upstream, realm)


@pytest.mark.parametrize("realm", ["http://registry.example.com", "http://auth.example.com", "http://listed.test"])
def test_https_never_leads_to_plain_http(realm: str) -> None:
    assert not trusts("https://registry.example.com", realm, frozenset({"listed.test", "auth.example.com:80"}))


def test_a_listed_host_is_trusted_on_every_port() -> None:
    listed = frozenset({"auth.test"})
    assert trusts("https://registry.example.com", "https://auth.test", listed)
    assert trusts("https://registry.example.com", "https://auth.test:8443", listed)
    assert not trusts("https://registry.example.com", "https://sub.auth.test", listed)


def test_a_listed_port_is_trusted_alone() -> None:
    listed = frozenset({"auth.test:8443"})
    assert trusts("https://registry.example.com", "https://auth.test:8443", listed)
    assert not trusts("https://registry.example.com", "https://auth.test", listed)


@pytest.mark.parametrize("entry", ["[::1]:5000", "[::1]"])
def test_a_listed_address_in_brackets_is_trusted(entry: str) -> None:
    assert trusts("https://registry.example.com", "https://::1:5000", frozenset({entry}))


def test_the_refusal_names_the_setting_to_change() -> None:
    upstream = Upstream.at("https://registry.example.com", _origin("https://registry.example.com"))
    policy = RealmPolicy(SUFFIXES)
    with pytest.raises(RealmNotTrusted, match=r"UPSTREAM_REALMS=auth\.test:443"):
        policy.check(upstream, _origin("https://auth.test"))


def addressed(*urls: str) -> Upstream:
    first, *others = urls
    return replace(Upstream.at(first, _origin(first)), fallbacks=tuple((url, _origin(url)) for url in others))


@pytest.mark.parametrize(
    ("realm", "trusted"),
    [
        ("https://auth.first.com", True),
        ("https://auth.second.com", True),
        ("https://10.0.0.9:5000", True),
        ("https://10.0.0.9:5001", False),
        ("https://third.com", False),
        ("http://first.com", False),
    ],
)
def test_a_realm_trusted_for_one_endpoint_is_trusted_for_all(realm: str, *, trusted: bool) -> None:
    upstream = addressed("https://registry.first.com", "https://registry.second.com", "https://10.0.0.9:5000")
    policy = RealmPolicy(SUFFIXES)
    with nullcontext() if trusted else pytest.raises(RealmNotTrusted):
        policy.check(upstream, _origin(realm))


def test_one_address_by_https_is_enough_to_demand_it_of_the_realm() -> None:
    policy = RealmPolicy(SUFFIXES)
    for order in (("http://a.first.com", "https://b.first.com"), ("https://b.first.com", "http://a.first.com")):
        with pytest.raises(RealmNotTrusted, match="without https"):
            policy.check(addressed(*order), _origin("http://auth.first.com"))


# A registry of each domain that many tenants share, and a neighbour there.
NEIGHBOURS = [
    ("mine.azurecr.io", "theirs.azurecr.io"),
    ("mine.azurecr.cn", "theirs.azurecr.cn"),
    ("mine.azurecr.us", "theirs.azurecr.us"),
    ("1.dkr.ecr.us-east-1.amazonaws.com", "2.dkr.ecr.us-east-1.amazonaws.com"),
    ("1.dkr.ecr.us-east-1.amazonaws.com", "theirs.execute-api.us-east-1.amazonaws.com"),
    ("1.dkr.ecr.cn-north-1.amazonaws.com.cn", "2.dkr.ecr.cn-north-1.amazonaws.com.cn"),
    ("europe-docker.pkg.dev", "us-docker.pkg.dev"),
    ("gcr.io", "us.gcr.io"),
    ("mine.jfrog.io", "theirs.jfrog.io"),
    ("registry.cn-hangzhou.aliyuncs.com", "theirs.oss-cn-hangzhou.aliyuncs.com"),
    ("registry.cn-hangzhou.aliyuncs.com", "registry.cn-beijing.aliyuncs.com"),
    ("registry.cn-hangzhou.aliyuncs.com", "dockerauth.cn-beijing.aliyuncs.com"),
    ("mine-registry.cn-hangzhou.cr.aliyuncs.com", "theirs-registry.cn-hangzhou.cr.aliyuncs.com"),
    ("bucket.oss-cn-hangzhou.aliyuncs.com", "dockerauth.cn-hangzhou.aliyuncs.com"),
    ("mine.tencentcloudcr.com", "theirs.tencentcloudcr.com"),
    ("swr.cn-north-4.myhuaweicloud.com", "theirs.obs.cn-north-4.myhuaweicloud.com"),
    ("d1.cloudfront.net", "d2.cloudfront.net"),
]


@pytest.mark.parametrize(("upstream", "neighbour"), NEIGHBOURS)
def test_a_neighbour_on_a_shared_domain_is_refused(upstream: str, neighbour: str) -> None:
    assert trusts(f"https://{upstream}", f"https://{upstream}"), "its own host is trusted"
    assert not trusts(f"https://{upstream}", f"https://{neighbour}")
    assert not trusts(f"https://{upstream}", f"https://{shared_domain_of(upstream)}") or upstream in SHARED_DOMAINS
    assert trusts(f"https://{upstream}", f"https://{neighbour}", frozenset({neighbour})), "unless the operator names it"


def test_every_shared_domain_is_tried() -> None:
    assert {shared_domain_of(upstream) for upstream, _ in NEIGHBOURS} == SHARED_DOMAINS


@pytest.mark.parametrize(
    ("upstream", "realm"),
    [
        ("registry.cn-hangzhou.aliyuncs.com", "dockerauth.cn-hangzhou.aliyuncs.com"),
        ("registry.aliyuncs.com", "dockerauth.cn-hangzhou.aliyuncs.com"),
        ("registry-intl.ap-southeast-1.aliyuncs.com", "dockerauth.ap-southeast-1.aliyuncs.com"),
        ("registry.cn-shanghai-finance-1.aliyuncs.com", "dockerauth.cn-shanghai-finance-1.aliyuncs.com"),
        ("registry-vpc.cn-chengdu.aliyuncs.com", "dockerauth-vpc.cn-chengdu.aliyuncs.com"),
        ("registry-intl-vpc.us-west-1.aliyuncs.com", "dockerauth-vpc.us-west-1.aliyuncs.com"),
        ("mine-registry.cn-hangzhou.cr.aliyuncs.com", "dockerauth-ee.cn-hangzhou.aliyuncs.com"),
        ("mine-registry-vpc.cn-hangzhou.cr.aliyuncs.com", "dockerauth-ee-vpc.cn-hangzhou.aliyuncs.com"),
        ("crpi-1.cn-hangzhou.personal.cr.aliyuncs.com", "dockerauth.cn-hangzhou.aliyuncs.com"),
        ("mine-registry.cn-zhangjiakou.cr.aliyuncs.com", "dockerauth-cn-zhangjiakou.aliyuncs.com"),
    ],
)
def test_a_providers_own_token_server_is_trusted_by_its_registries(upstream: str, realm: str) -> None:
    assert trusts(f"https://{upstream}", f"https://{realm}")
    assert not trusts(f"https://{upstream}", f"https://{realm}.attacker.test")
    assert not trusts(f"https://{upstream}", f"http://{realm}")


@pytest.mark.parametrize("host", ["myazurecr.io", "azurecr.io.example.com", "notgcr.io", "amazonaws.com.example", "io"])
def test_a_domain_that_only_looks_shared_is_not_shared(host: str) -> None:
    assert shared_domain_of(host) is None
    assert shared_domain_of("mine.azurecr.io.") == "azurecr.io"


def test_the_refusal_of_a_neighbour_says_why() -> None:
    upstream = Upstream.at("https://mine.azurecr.io", _origin("https://mine.azurecr.io"))
    with pytest.raises(
        RealmNotTrusted, match=r"azurecr\.io hosts the registries of many customers; set UPSTREAM_REALMS=theirs"
    ):
        RealmPolicy(SUFFIXES).check(upstream, _origin("https://theirs.azurecr.io"))


def test_an_endpoint_on_a_shared_domain_does_not_make_its_neighbours_trusted() -> None:
    policy = RealmPolicy(SUFFIXES)
    upstream = addressed("https://registry.first.com", "https://mine.azurecr.io")
    policy.check(upstream, _origin("https://auth.first.com"))
    policy.check(upstream, _origin("https://mine.azurecr.io"))
    with pytest.raises(RealmNotTrusted):
        policy.check(upstream, _origin("https://theirs.azurecr.io"))
