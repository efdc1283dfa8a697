"""URLs of upstreams and their origins, and the IP addresses to which a request may connect."""

import ipaddress
import re
import socket
from collections.abc import Iterator
from enum import Enum, auto
from typing import Self

from yarl import URL

from domain.errors import UpstreamBroken
from domain.http_fields import is_legal, percent_encoded
from domain.upstreams import Origin, Upstream
from domain.value import Value

_INET_ATON = re.compile(r"[0-9a-fx.]+")

_AUTHORITY = re.compile(r"((?:[A-Za-z][A-Za-z0-9+.-]*:)?//)([^/?#]*)")  # RFC 3986 section 3

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

_METADATA = frozenset(
    map(
        ipaddress.ip_address,
        (
            "100.100.100.200",  # Alibaba Cloud
            "168.63.129.16",  # Azure's host (wire server)
            "192.0.0.192",  # Oracle Cloud, classic
            "fd00:ec2::254",  # Amazon EC2
            "fd00:ec2::23",  # Amazon EKS, credentials of pods
            "fd20:ce::254",  # Google Cloud
            "fd00:42::42",  # Scaleway
        ),
    )
)
"""Cloud metadata services outside the link-local networks. They return credentials of the machine."""
_NON_UNICAST_NETWORKS = tuple(
    map(
        ipaddress.ip_network,
        (
            "0.0.0.0/8",  # "this network" (RFC 1122 section 3.2.1.3); Linux connects 0.0.0.0 to loopback
            "169.254.0.0/16",  # link-local (RFC 3927); most metadata services
            "224.0.0.0/4",  # multicast (RFC 5771)
            "255.255.255.255/32",  # broadcast
            "::/128",  # unspecified
            "fe80::/10",  # link-local (RFC 4291 section 2.5.6)
            "ff00::/8",  # multicast (RFC 4291 section 2.7)
        ),
    )
)

_IPV4_IN_LAST_BITS = tuple(
    map(
        ipaddress.IPv6Network,
        (
            "::ffff:0:0/96",  # IPv4-mapped (RFC 4291 section 2.5.5.2)
            "::/96",  # IPv4-compatible (RFC 4291 section 2.5.5.1)
            "::ffff:0:0:0/96",  # IPv4-translated (RFC 2765 section 2.1)
            "64:ff9b::/96",  # NAT64 (RFC 6052 section 2.1)
        ),
    )
)
_NAT64_LOCAL = ipaddress.IPv6Network("64:ff9b:1::/48")  # RFC 8215: any prefix within it, of any length
_ISATAP = 0x00005EFE  # RFC 5214 section 6.1; the universal bit of the interface identifier is ignored


class AddressPolicy(Enum):
    """Which addresses a connection may be made to."""

    CONFIGURED = auto()
    """All addresses, because the operator configured the origin."""
    LOCAL = auto()
    """All addresses except link-local, unspecified, multicast and metadata addresses. Loopback is allowed, because the
    operator configured the redirecting upstream on a loopback address.
    """
    REMOTE = auto()
    """Like LOCAL, but without loopback addresses."""


class AddressNotAllowed(OSError):
    """The address policy does not allow a connection to this address. This is an OSError, so that the connector tries
    the other addresses of the host name.
    """

    def __init__(self) -> None:
        super().__init__("the address belongs to this machine or to a metadata service, or is not a unicast address")


class ConfiguredOrigins(Value, frozen=True):
    """The origins that the operator configured for one upstream: its URLs, its search URL and its UPSTREAM_REALMS."""

    origins: frozenset[Origin]
    hosts: frozenset[str]
    """The entries of UPSTREAM_REALMS, each `host` or `host:port` in lower case."""

    @classmethod
    def of(cls, *upstreams: Upstream) -> Self:
        """Takes several upstreams if one URL is both an upstream and a fallback of other upstreams."""
        origins = {endpoint.origin for upstream in upstreams for endpoint in upstream.endpoints}
        origins |= {origin_of(parse_url(one.search_url)) for one in upstreams if one.search_url}
        return cls(frozenset(origins), frozenset().union(*(one.realms for one in upstreams)))

    def address_policy(self, requested: Origin, target: Origin) -> AddressPolicy:
        """The policy for connections to the target. `requested`: the origin of the request before any redirect."""
        if self._names(target):
            return AddressPolicy.CONFIGURED
        is_local = self._names(requested) and is_loopback_host(requested.host)
        return AddressPolicy.LOCAL if is_local else AddressPolicy.REMOTE

    def _names(self, origin: Origin) -> bool:
        authority = origin.authority
        return origin in self.origins or bool({authority, authority.rpartition(":")[0]} & self.hosts)


def parse_url(text: str) -> URL:
    """Parse a URL from an upstream. Percent-encodes characters that a URL must not contain, and encodes the host with
    IDNA (RFC 5891). Changes nothing else, because that would invalidate signed URLs. Raises UpstreamBroken.
    """
    try:
        matched = _AUTHORITY.match(text)
        if matched is None:
            return URL(percent_encoded(text), encoded=True)
        start, authority = matched.groups()
        if not authority.isascii():
            user, at, place = authority.rpartition("@")
            host, colon, port = place.partition(":")
            authority = f"{user}{at}{host.encode('idna').decode()}{colon}{port}"
        # A host name may contain escapes (RFC 3986 section 3.2.2). They are rejected here, because a proxy may decode
        # `%6c` and `check_host` does not. In brackets, a percent sign starts the zone of an IPv6 address (RFC 6874).
        if not is_legal(authority) or "%" in authority.rpartition("@")[2].partition("[")[0]:
            raise UpstreamBroken("the upstream sent an address that is not valid")
        return URL(f"{start}{authority}{percent_encoded(text[matched.end() :])}", encoded=True)
    except (ValueError, TypeError) as error:
        raise UpstreamBroken("the upstream sent an address that is not valid") from error


def origin_of(url: URL) -> Origin:
    """Raises UpstreamBroken unless the URL is absolute and its scheme is http or https."""
    try:
        host, port = url.host, url.port
    except ValueError as error:
        raise UpstreamBroken("the upstream sent an address that is not valid") from error
    if url.scheme not in {"http", "https"} or not host or not port:
        raise UpstreamBroken("the upstream sent an address that is neither http nor https")
    try:
        host.encode("idna")  # as a look-up does: it rejects empty labels and labels of more than 63 characters
    except UnicodeError as error:
        raise UpstreamBroken("the upstream sent an address with an invalid host name") from error
    return Origin(url.scheme, host.lower().rstrip("."), port)


def check_redirect(upstream: Origin, target: Origin) -> None:
    """Raises UpstreamBroken for a redirect from https to http. The address of the target is checked when the connection
    is opened (connections.py).
    """
    if upstream.scheme == "https" and target.scheme != "https":
        raise UpstreamBroken("the upstream redirects from https to http; the mirror does not follow")


def check_host(host: str, address_policy: AddressPolicy) -> None:
    """Check the host of a request that goes through a proxy. Raises AddressNotAllowed.

    Checks literal IP addresses in every notation, and the names of loopback (RFC 6761 section 6.3). The proxy resolves
    all other names, so the mirror cannot check them.
    """
    host = host.lower().rstrip(".")
    address = _literal(host)
    if address is not None:
        check_address(address, address_policy)
    elif address_policy is AddressPolicy.REMOTE and is_loopback_host(host):
        raise AddressNotAllowed


def check_address(address: IPAddress, address_policy: AddressPolicy) -> None:
    """Raises AddressNotAllowed if the policy does not allow connections to the address.

    An IPv6 address with an embedded IPv4 address is not allowed if the IPv4 address is not allowed. Private addresses
    are allowed, because a registry on a local network usually has its storage there too.
    """
    if address_policy is AddressPolicy.CONFIGURED:
        return
    if isinstance(address, ipaddress.IPv6Address):
        # Remove the zone (RFC 4007 section 11): with it, the address does not equal its entry in _METADATA.
        address = ipaddress.IPv6Address(int(address))
    for one in (address, *_embedded(address)):
        is_forbidden_loopback = one.is_loopback and address_policy is AddressPolicy.REMOTE
        if is_forbidden_loopback or one in _METADATA or any(one in network for network in _NON_UNICAST_NETWORKS):
            raise AddressNotAllowed


def is_loopback_host(host: str) -> bool:
    """Whether the host is a loopback address, or a name that always means one (RFC 6761 section 6.3)."""
    address = _literal(host)
    if address is None:
        return host == "localhost" or host.endswith(".localhost")
    return any(one.is_loopback for one in (address, *_embedded(address)))


def _embedded(address: IPAddress) -> Iterator[ipaddress.IPv4Address]:
    """The IPv4 addresses that may receive a packet for this IPv6 address."""
    if not isinstance(address, ipaddress.IPv6Address):
        return
    bits = int(address)
    if any(address in network for network in _IPV4_IN_LAST_BITS):
        if bits > 1:  # "::" and "::1" are not IPv4-compatible addresses
            yield _ipv4(bits)
    elif address in _NAT64_LOCAL:
        # RFC 6052 section 2.2, prefixes of 96, 48, 56 and 64 bits; bits 64 to 71 are skipped. The address does not tell
        # which prefix the network uses. A wrong prefix often gives an address in 0.0.0.0/8, which is not a destination.
        found = (
            bits,
            (bits >> 64 & 0xFFFF) << 16 | bits >> 40 & 0xFFFF,
            (bits >> 64 & 0xFF) << 24 | bits >> 32 & 0xFFFFFF,
            bits >> 24,
        )
        yield from (one for one in map(_ipv4, found) if one not in _NON_UNICAST_NETWORKS[0])
    elif address.sixtofour:
        yield address.sixtofour
    elif address.teredo:
        yield from address.teredo  # the server and the client
    if bits >> 32 & 0xFDFFFFFF == _ISATAP:
        yield _ipv4(bits)


def _ipv4(bits: int) -> ipaddress.IPv4Address:
    return ipaddress.IPv4Address(bits & 0xFFFFFFFF)


def _literal(host: str) -> IPAddress | None:
    try:
        return ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        if not _INET_ATON.fullmatch(host):
            return None
    try:
        # Parse 127.1, 0x7f000001 and 2130706433 as the resolver does.
        return ipaddress.ip_address(socket.inet_aton(host))
    except OSError:
        return None
