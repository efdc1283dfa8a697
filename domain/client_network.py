"""The network of a client's address. Limits and queues count clients by network."""

import ipaddress
from functools import lru_cache

_IPV6_BITS = 64
"""A machine can choose the other bits of its IPv6 address for each connection (RFC 8981, RFC 6177)."""
_REMEMBERED = 4096


@lru_cache(_REMEMBERED)
def client_network(address: str) -> str:
    """The IPv4 address, also for IPv4-mapped IPv6 addresses (RFC 4291 section 2.5.5.2), or the /64 network of an IPv6
    address. Returns a text that is not an address unchanged.
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
