"""The network of a client's address. Limits and queues count clients by network."""

import ipaddress
from functools import lru_cache


@lru_cache(4096)
def client_network(address: str) -> str:
    """The IPv4 address, also for IPv4-mapped IPv6 addresses (RFC 4291 section 2.5.5.2), or the /64 network of an IPv6
    address, because a machine can choose the other bits for each connection (RFC 8981, RFC 6177). Returns a text that
    is not an address unchanged.
    """
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv6Address):
        return str(parsed.ipv4_mapped or ipaddress.ip_network((int(parsed), 64), strict=False))
    return str(parsed)
