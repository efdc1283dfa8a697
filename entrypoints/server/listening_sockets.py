"""The sockets that the service listens on."""

import errno
import ipaddress
import socket
from collections.abc import Sequence
from contextlib import suppress

from domain.value import Value
from entrypoints.settings import Settings, SettingsError

_BACKLOG = 1024


class ListeningSockets(Value, frozen=True):
    """`host` is the host as it is written in a URL. `families` names the served address families if the host does not
    already show them, else it is empty.
    """

    sockets: tuple[socket.socket, ...]
    host: str
    families: str

    @property
    def is_on_all_addresses(self) -> bool:
        """Whether the service listens on all addresses of this machine, of at least one family."""
        return any(_address_of(one).is_unspecified for one in self.sockets)

    def close(self) -> None:
        """Close the sockets, also in workers that still run: all processes share them."""
        for one in self.sockets:
            with suppress(OSError):  # already closed
                one.shutdown(socket.SHUT_RDWR)
            one.close()


def listen(settings: Settings, port: int | None = None, name: str = "PORT") -> ListeningSockets:
    """Listen on every address of HOST, at PORT or at `port`, which the setting `name` contains. `::` includes all IPv4
    addresses if the system allows one socket for both families. If HOST is a name, addresses of it that this machine
    does not have are skipped.

    Raises SettingsError if no address remains, or if one of them is in use.
    """
    host = settings.host
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    port = settings.port if port is None else port
    try:
        sockets = _bound(host, port)
    except (OSError, ValueError) as error:  # ValueError: the name cannot be encoded for DNS
        reason = (getattr(error, "strerror", None) or str(error)).partition(" (")[0]
        message = f"HOST, {name}: got {settings.host!r}, {port}; cannot listen there: {reason}"
        raise SettingsError(message) from error
    return ListeningSockets(sockets, f"[{host}]" if ":" in host else host, _families(host, sockets))


def _bound(host: str, port: int) -> tuple[socket.socket, ...]:
    """Raises OSError."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    sockets: list[socket.socket] = []
    missing: OSError | None = None
    for family, address in dict.fromkeys((family, address) for family, _, _, _, address in found):
        is_both = family == socket.AF_INET6 and ipaddress.ip_address(str(address[0]).partition("%")[0]).is_unspecified
        dualstack = is_both and socket.has_dualstack_ipv6()
        try:
            sockets.append(socket.create_server(address, family=family, backlog=_BACKLOG, dualstack_ipv6=dualstack))
        except OSError as error:
            # A name may have an address of a family that this machine does not use; `localhost` often has ::1.
            if error.errno not in {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}:
                for one in sockets:
                    one.close()
                raise
            missing = missing or error
    if not sockets:
        raise missing or OSError(f"{host} has no address")
    return tuple(sockets)


def _families(host: str, sockets: Sequence[socket.socket]) -> str:
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:  # a name
        return " and ".join(str(_address_of(one)) for one in sockets)
    if isinstance(address, ipaddress.IPv6Address) and address.is_unspecified:
        only_six = sockets[0].getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
        return "IPv6 only" if only_six else "IPv4 and IPv6"
    return ""


def _address_of(listening: socket.socket) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    return ipaddress.ip_address(str(listening.getsockname()[0]).partition("%")[0])
