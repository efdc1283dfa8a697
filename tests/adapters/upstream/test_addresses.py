"""Addresses to which the mirror does not connect."""

from dataclasses import replace
from ipaddress import ip_address

import pytest
from yarl import URL

from adapters.upstream.addresses import (
    AddressNotAllowed,
    AddressPolicy,
    ConfiguredOrigins,
    check_address,
    check_host,
    check_redirect,
    origin_of,
    parse_url,
)
from domain.errors import UpstreamBroken
from domain.upstreams import Origin, Upstream

REGISTRY = Origin("https", "registry.test", 443)


@pytest.mark.parametrize(
    "target",
    [Origin("https", "cdn.test", 443), Origin("https", "registry.test", 8443), Origin("https", "8.8.8.8", 443)],
)
def test_redirect_to_another_https_server_is_allowed(target: Origin) -> None:
    check_redirect(REGISTRY, target)


@pytest.mark.parametrize("host", ["registry.test", "cdn.test"])
def test_redirect_from_https_to_http_is_refused(host: str) -> None:
    with pytest.raises(UpstreamBroken, match="https to http"):
        check_redirect(REGISTRY, Origin("http", host, 80))


def test_redirect_from_http_to_https_or_http_is_allowed() -> None:
    upstream = Origin("http", "registry.test", 5000)
    check_redirect(upstream, Origin("https", "cdn.test", 443))
    check_redirect(upstream, Origin("http", "cdn.test", 80))


METADATA = ["169.254.169.254", "100.100.100.200", "168.63.129.16", "192.0.0.192", "fd00:ec2::254", "fd20:ce::254"]
METADATA += ["fd00:ec2::23", "fd00:ec2::254%1", "fd20:ce::254%251"]
NO_MACHINE = ["0.0.0.0", "0.1.2.3", "::", "224.0.0.1", "239.1.2.3", "255.255.255.255", "ff02::1"]
LINK_LOCAL = ["169.254.1.1", "fe80::1", "fe80::a9fe:a9fe", "febf::1", "fe80::1%eth0"]
LOOPBACK = ["127.0.0.1", "127.8.8.8", "::1"]
HOLDING_LOOPBACK = [
    "::ffff:127.0.0.1",
    "::127.0.0.1",
    "::ffff:0:127.0.0.1",
    "64:ff9b::127.0.0.1",
    "64:ff9b:1::127.0.0.1",
    "64:ff9b:1:fffe::7f00:1",
    "64:ff9b:1:7f00:0:100::",
    "64:ff9b:1:7f:0:1::",
    "64:ff9b:1:0:7f:0:100::",
    "2002:7f00:1::",
    "2002:7f00:1::1234",
    "2001:0:7f00:1::",
    "2001:0:102:304::80ff:fffe",
    "2001:db8::5efe:127.0.0.1",
    "2001:db8::200:5efe:7f00:1",
]
HOLDING_METADATA = ["::ffff:169.254.169.254", "64:ff9b::100.100.100.200", "2002:a83f:8110::", "64:ff9b:1::a9fe:a9fe"]
ALLOWED = [
    "8.8.8.8",
    "10.0.0.1",
    "172.16.5.4",
    "192.168.1.1",
    "100.64.0.1",
    "2001:db8::1",
    "2606:4700::1111",
    "fd12:3456::1",
    "::ffff:10.0.0.1",
    "64:ff9b::8.8.8.8",
    "64:ff9b:1::10.1.2.3",
    "2002:808:808::1",
]


@pytest.mark.parametrize("address", METADATA + NO_MACHINE + LINK_LOCAL + HOLDING_METADATA)
@pytest.mark.parametrize("address_policy", [AddressPolicy.LOCAL, AddressPolicy.REMOTE])
def test_metadata_link_local_and_non_unicast_addresses_are_refused(address: str, address_policy: AddressPolicy) -> None:
    with pytest.raises(AddressNotAllowed):
        check_address(ip_address(address), address_policy)
    with pytest.raises(AddressNotAllowed):
        check_host(address, address_policy)


@pytest.mark.parametrize("address", LOOPBACK + HOLDING_LOOPBACK)
def test_loopback_is_refused_if_the_upstream_is_not_on_loopback(address: str) -> None:
    with pytest.raises(AddressNotAllowed):
        check_address(ip_address(address), AddressPolicy.REMOTE)
    with pytest.raises(AddressNotAllowed):
        check_host(address, AddressPolicy.REMOTE)


@pytest.mark.parametrize("address", LOOPBACK)
def test_loopback_is_allowed_if_the_upstream_is_on_loopback(address: str) -> None:
    check_address(ip_address(address), AddressPolicy.LOCAL)


@pytest.mark.parametrize("address", METADATA + NO_MACHINE + LINK_LOCAL + LOOPBACK + HOLDING_LOOPBACK + ALLOWED)
def test_configured_origins_may_have_any_address(address: str) -> None:
    check_address(ip_address(address), AddressPolicy.CONFIGURED)


@pytest.mark.parametrize("address", ALLOWED)
def test_private_and_public_addresses_are_allowed(address: str) -> None:
    """A registry on a local network redirects to storage there."""
    check_address(ip_address(address), AddressPolicy.REMOTE)
    check_host(address, AddressPolicy.REMOTE)


@pytest.mark.parametrize(
    "host",
    [
        *("127.1", "2130706433", "0x7f000001", "0X7F.1", "0177.0.0.1", "127.0.0.1.", "[::1]"),
        *("localhost", "x.localhost", "LocalHost", "localhost.", "x.localhost."),
    ],
)
def test_other_notations_of_loopback_are_refused_behind_a_proxy(host: str) -> None:
    """The resolver understands them as inet_aton does, so they lead to the proxy's own machine."""
    with pytest.raises(AddressNotAllowed):
        check_host(host, AddressPolicy.REMOTE)


@pytest.mark.parametrize("host", ["%31%32%37.0.0.1", "%6cocalhost", "local%68ost:80", "user@%6cocalhost"])
def test_a_host_with_escapes_is_refused(host: str) -> None:
    """A proxy may decode what `check_host` does not."""
    with pytest.raises(UpstreamBroken):
        parse_url(f"http://{host}/x")


def test_an_address_may_have_a_zone_and_a_user_escapes() -> None:
    assert parse_url("http://us%40er@[fe80::1%25eth0]:80/x").port == 80


def test_the_proxy_resolves_names() -> None:
    check_host("metadata.test", AddressPolicy.REMOTE)


HERE = Upstream.at("http://127.0.0.1:5000", Origin("http", "127.0.0.1", 5000))
FAR = replace(
    Upstream.at("https://registry.test", REGISTRY, "https://search.test/v1/search"),
    fallbacks=(("http://10.0.0.1:5000", Origin("http", "10.0.0.1", 5000)),),
    realms=frozenset({"tokens.test", "other.test:8443"}),
)


@pytest.mark.parametrize(
    ("asked", "target", "address_policy"),
    [
        (REGISTRY, REGISTRY, AddressPolicy.CONFIGURED),
        (REGISTRY, Origin("http", "10.0.0.1", 5000), AddressPolicy.CONFIGURED),
        (REGISTRY, Origin("https", "search.test", 443), AddressPolicy.CONFIGURED),
        (REGISTRY, Origin("http", "tokens.test", 80), AddressPolicy.CONFIGURED),
        (REGISTRY, Origin("https", "other.test", 8443), AddressPolicy.CONFIGURED),
        (REGISTRY, Origin("https", "other.test", 443), AddressPolicy.REMOTE),
        (REGISTRY, Origin("https", "registry.test", 8443), AddressPolicy.REMOTE),
        (Origin("http", "127.0.0.1", 80), Origin("http", "127.0.0.1", 81), AddressPolicy.REMOTE),
    ],
)
def test_urls_search_and_realms_of_the_settings_are_configured_origins(
    asked: Origin, target: Origin, address_policy: AddressPolicy
) -> None:
    assert ConfiguredOrigins.of(FAR).address_policy(asked, target) is address_policy


def test_an_upstream_on_loopback_may_redirect_to_loopback() -> None:
    assert (
        ConfiguredOrigins.of(HERE).address_policy(HERE.origin, Origin("http", "storage.test", 80))
        is AddressPolicy.LOCAL
    )


@pytest.mark.parametrize("address", ["ftp://registry.test/", "/relative", "http:///", "https://x:0/", "mailto:a@b", ""])
def test_other_than_http_urls_have_no_origin(address: str) -> None:
    with pytest.raises(UpstreamBroken):
        origin_of(parse_url(address))


@pytest.mark.parametrize(
    ("address", "origin"),
    [
        ("https://Registry.TEST./x", REGISTRY),
        ("https://registry.test:443", REGISTRY),
        ("http://registry.test", Origin("http", "registry.test", 80)),
        ("http://[::1]:5000/x", Origin("http", "::1", 5000)),
    ],
)
def test_origin_is_scheme_host_and_port(address: str, origin: Origin) -> None:
    assert origin_of(parse_url(address)) == origin


def test_a_url_is_not_changed() -> None:
    text = "https://registry.test/a%2Fb%3Ac%7Ed?x=%2F%3A%7E+%20~"
    assert str(parse_url(text)) == text
    assert parse_url(text) == URL(text, encoded=True)
