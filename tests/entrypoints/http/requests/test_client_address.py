"""The client address of a request, by which failed logins are counted."""

from dataclasses import dataclass, field
from typing import Any

import pytest
from multidict import CIMultiDict

from entrypoints.http.requests.addresses import RequestAddresses
from tests.fakes.parts import settings_of

TRUSTED = "10.0.0.0/8, fd00::/8"


@dataclass
class Peer:
    """The parts of a request that are read."""

    ip: str
    headers: Any = field(default_factory=CIMultiDict)


def asked(peer: str, *lines: str) -> str:
    headers = CIMultiDict([("X-Forwarded-For", line) for line in lines])
    return RequestAddresses(settings_of(trusted_proxies=TRUSTED)).client_of(Peer(peer, headers))


def test_without_trusted_proxies_the_peer_is_the_client() -> None:
    assert (
        RequestAddresses(settings_of()).client_of(Peer("192.0.2.1", CIMultiDict({"x-forwarded-for": "192.0.2.9"})))
        == "192.0.2.1"
    )


@pytest.mark.parametrize("peer", ["192.0.2.1", "2001:db8::1", "", "a socket"])
def test_x_forwarded_for_of_other_peers_is_ignored(peer: str) -> None:
    assert asked(peer, "192.0.2.9") == peer


@pytest.mark.parametrize("peer", ["10.1.2.3", "fd00::1", "::ffff:10.1.2.3"])
def test_a_trusted_proxy_names_the_client(peer: str) -> None:
    assert asked(peer, "192.0.2.9") == "192.0.2.9"


def test_a_trusted_proxy_that_names_no_client_is_the_client() -> None:
    assert asked("10.1.2.3") == "10.1.2.3"
    assert asked("10.1.2.3", "") == "10.1.2.3"


def test_only_addresses_written_by_trusted_proxies_are_used() -> None:
    assert asked("10.1.2.3", "198.51.100.1, 192.0.2.9, 10.9.9.9") == "192.0.2.9"
    assert asked("10.1.2.3", "198.51.100.1", "192.0.2.9", "10.9.9.9") == "192.0.2.9"
    assert asked("10.1.2.3", "198.51.100.1, hello") == "10.1.2.3"
    assert asked("10.1.2.3", "198.51.100.1, hello, 10.9.9.9") == "10.9.9.9"


def test_if_all_addresses_are_trusted_proxies_the_first_is_the_client() -> None:
    assert asked("10.1.2.3", "10.0.0.7, 10.0.0.8") == "10.0.0.7"


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("192.0.2.9:4711", "192.0.2.9"),
        ("[2001:db8::1]:4711", "2001:db8::1"),
        ("[2001:db8::1]", "2001:db8::1"),
        ("2001:db8::1", "2001:db8::1"),
        ("::ffff:192.0.2.9", "192.0.2.9"),
    ],
)
def test_an_address_is_read_in_any_form(text: str, address: str) -> None:
    assert asked("10.1.2.3", text) == address
