"""The part of its address by which a client is told apart from others that are counted, slowed or queued."""

import ipaddress
from functools import lru_cache

_IPV6_BITS = 64
"""The rest of an IPv6 address a machine may choose, and choose anew for each connection (RFC 8981, RFC 6177)."""
_REMEMBERED = 4096


@lru_cache(_REMEMBERED)
def client_network(address: str) -> str:
    """The IPv4 address, also of one that is written as IPv6 (RFC 4291 section 2.5.5.2); else the IPv6 network of 64
    bits. A text that is no address is returned as it is.
    """
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv4Address):
        return str(parsed)
    if parsed.ipv4_mapped:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.ip_network((int(parsed), _IPV6_BITS), strict=False))
