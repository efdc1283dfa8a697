"""The client address of a request, and the proxies whose X-Forwarded-For is trusted."""

import ipaddress
import re
from collections.abc import Sequence

from sanic import Request

from entrypoints.settings.values import Network

# Forms that some proxies write into X-Forwarded-For: "192.0.2.1:4711", "[2001:db8::1]:4711", "[2001:db8::1]".
_WITH_PORT = re.compile(r"\[(?P<six>[0-9A-Fa-f:.]+)\](?::[0-9]{1,5})?|(?P<four>[0-9.]+):[0-9]{1,5}")

# The form that getpeername(2) returns, RFC 4291 section 2.5.5.2.
_MAPPED = "::ffff:"

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class TrustedProxies:
    """TRUSTED_PROXIES: X-Forwarded-* fields are trusted only if one of these sent the request."""

    def __init__(self, networks: Sequence[Network]) -> None:
        self._networks = tuple(networks)

    def sent(self, request: Request) -> bool:
        """Whether one of the proxies sent the request to us."""
        return self.trusts(request.ip)

    def trusts(self, address: str) -> bool:
        """Whether the address of a peer belongs to one of the proxies."""
        return bool(self._networks) and self._has(_parsed(address))

    def client_of(self, request: Request) -> str:
        """The address of the client. X-Forwarded-For is read from its end, as far as trusted proxies wrote it: the
        client can forge everything before that.
        """
        found = plain_address(request.ip)
        if not self.sent(request):
            return found
        for text in reversed(",".join(request.headers.getall("x-forwarded-for", [])).split(",")):
            address = _parsed(text.strip())
            if address is None:
                break
            found = str(address)
            if not self._has(address):
                break
        return found

    def _has(self, address: Address | None) -> bool:
        return address is not None and any(address in network for network in self._networks)


def plain_address(text: str) -> str:
    """The address of a peer. Removes the prefix that an IPv4 address has on a socket for both address families."""
    return text.removeprefix(_MAPPED) if "." in text else text


def _parsed(text: str) -> Address | None:
    matched = _WITH_PORT.fullmatch(text)
    try:
        address = ipaddress.ip_address((matched["six"] or matched["four"]) if matched else text)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address
