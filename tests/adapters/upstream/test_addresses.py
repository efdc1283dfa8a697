"""Addresses that nobody may send us to."""

import pytest
from yarl import URL

from adapters.upstream.addresses import check_redirect, is_link_local, origin_of, parse_url
from domain.errors import UpstreamBroken
from domain.upstreams import Origin

REGISTRY = Origin("https", "registry.test", 443)


@pytest.mark.parametrize(
    "target",
    [Origin("https", "cdn.test", 443), Origin("https", "registry.test", 8443), Origin("https", "8.8.8.8", 443)],
)
def test_other_https_servers_are_where_blobs_live(target: Origin) -> None:
    check_redirect(REGISTRY, target)


@pytest.mark.parametrize("host", ["registry.test", "cdn.test"])
def test_https_never_leads_to_http(host: str) -> None:
    with pytest.raises(UpstreamBroken, match="https to http"):
        check_redirect(REGISTRY, Origin("http", host, 80))


def test_http_may_lead_to_https_and_to_http() -> None:
    upstream = Origin("http", "registry.test", 5000)
    check_redirect(upstream, Origin("https", "cdn.test", 443))
    check_redirect(upstream, Origin("http", "cdn.test", 80))


@pytest.mark.parametrize("host", ["169.254.169.254", "fe80::1", "[fe80::1]", "::ffff:169.254.169.254", "0.0.0.0", "::"])
def test_link_local_addresses_are_refused(host: str) -> None:
    assert is_link_local(host)
    with pytest.raises(UpstreamBroken):
        check_redirect(REGISTRY, Origin("https", host, 443))


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.8.8.8", "::1", "[::1]", "localhost", "x.localhost", "::ffff:127.0.0.1"]
)
def test_loopback_is_for_an_upstream_on_it_only(host: str) -> None:
    with pytest.raises(UpstreamBroken):
        check_redirect(REGISTRY, Origin("https", host, 443))
    check_redirect(Origin("https", "localhost", 5000), Origin("https", host, 443))
    check_redirect(Origin("http", "127.0.0.1", 5000), Origin("http", host, 443))


@pytest.mark.parametrize("host", ["127.1", "2130706433", "0x7f000001", "0177.0.0.1"])
def test_loopback_in_other_notations_is_refused_too(host: str) -> None:
    """The resolver understands them as inet_aton does, so they lead to this very machine."""
    with pytest.raises(UpstreamBroken):
        check_redirect(REGISTRY, Origin("https", host, 443))


@pytest.mark.parametrize("address", ["ftp://registry.test/", "/relative", "http:///", "https://x:0/", "mailto:a@b", ""])
def test_what_is_no_http_address_has_no_origin(address: str) -> None:
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


def test_address_is_kept_exactly_as_written() -> None:
    text = "https://registry.test/a%2Fb%3Ac%7Ed?x=%2F%3A%7E+%20~"
    assert str(parse_url(text)) == text
    assert parse_url(text) == URL(text, encoded=True)
