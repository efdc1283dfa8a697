"""The client address of a request, and the proxies whose X-Forwarded-For is trusted."""

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass

from sanic import Request

from entrypoints.settings.values import Network

# Forms that some proxies write into X-Forwarded-For: "192.0.2.1:4711", "[2001:db8::1]:4711", "[2001:db8::1]".
_WITH_PORT = re.compile(r"\[(?P<six>[0-9A-Fa-f:.]+)\](?::[0-9]{1,5})?|(?P<four>[0-9.]+):[0-9]{1,5}")

# The form that getpeername(2) returns, RFC 4291 section 2.5.5.2.
_MAPPED = "::ffff:"


@dataclass(frozen=True)
class TrustedProxies:
    """TRUSTED_PROXIES: X-Forwarded-* fields are trusted only if one of these sent the request."""

    networks: Sequence[Network]

    def trusts(self, address: str) -> bool:
        """Whether the address of a peer belongs to one of the proxies."""
        parsed = _parsed(address) if self.networks else None
        return parsed is not None and any(parsed in network for network in self.networks)

    def client_of(self, request: Request) -> str:
        """The address of the client. X-Forwarded-For is read from its end, as far as trusted proxies wrote it: the
        client can forge everything before that.
        """
        found = plain_address(request.ip)
        if self.trusts(request.ip):
            for text in reversed(",".join(request.headers.getall("x-forwarded-for", [])).split(",")):
                address = _parsed(text.strip())
                if address is None:
                    break
                found = str(address)
                if not self.trusts(found):
                    break
        return found


def plain_address(text: str) -> str:
    """The address of a peer. Removes the prefix that an IPv4 address has on a socket for both address families."""
    return text.removeprefix(_MAPPED) if "." in text else text


def _parsed(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    matched = _WITH_PORT.fullmatch(text)
    try:
        address = ipaddress.ip_address((matched["six"] or matched["four"]) if matched else text)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address
