"""The sockets for a HOST, also if some of its addresses cannot be used."""

import errno
import socket
from typing import Any

import pytest

from entrypoints.server.listening_sockets import listen
from entrypoints.settings import SettingsError
from tests.entrypoints.environment import Load

NAME = "both.test"


@pytest.fixture
def _both_families(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name with an address of each family, which need not be in /etc/hosts."""
    real = socket.getaddrinfo

    def look_up(host: str, *others: Any, **named: Any) -> Any:
        addresses = ["::1", "127.0.0.1"] if host == NAME else [host]
        return [entry for address in addresses for entry in real(address, *others, **named)]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def without(monkeypatch: pytest.MonkeyPatch, family: int, number: int) -> None:
    """As on a machine where no socket of this family can be bound."""
    real = socket.create_server

    def create(address: Any, **named: Any) -> socket.socket:
        if named.get("family", socket.AF_INET) == family:
            raise OSError(number, "no such address")
        return real(address, **named)

    monkeypatch.setattr(socket, "create_server", create)


@pytest.mark.usefixtures("_both_families")
def test_a_name_of_both_families_is_served_on_both(load: Load) -> None:
    listening = listen(load(HOST=NAME, PORT=str(free_port())))
    try:
        assert [one.family for one in listening.sockets] == [socket.AF_INET6, socket.AF_INET]
        assert (listening.host, listening.families, listening.is_on_all_addresses) == (NAME, "::1 and 127.0.0.1", False)
    finally:
        listening.close()


@pytest.mark.usefixtures("_both_families")
@pytest.mark.parametrize("number", [errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT])
def test_an_address_that_this_machine_does_not_have_is_skipped(
    load: Load, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    without(monkeypatch, socket.AF_INET6, number)
    listening = listen(load(HOST=NAME, PORT=str(free_port())))
    try:
        assert listening.families == "127.0.0.1"
    finally:
        listening.close()


@pytest.mark.usefixtures("_both_families")
def test_an_address_in_use_is_an_error(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    without(monkeypatch, socket.AF_INET, errno.EADDRINUSE)
    with pytest.raises(SettingsError, match="cannot listen there"):
        listen(load(HOST=NAME, PORT=str(port)))
    socket.create_server(("::1", port), family=socket.AF_INET6).close()


def test_without_dual_stack_sockets_only_ipv6_is_served_and_the_start_line_says_so(
    load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "has_dualstack_ipv6", lambda: False)
    listening = listen(load(HOST="::", PORT=str(free_port())))
    try:
        assert (listening.host, listening.families, listening.is_on_all_addresses) == ("[::]", "IPv6 only", True)
    finally:
        listening.close()
