"""Addresses: their origin, and those that nobody may send us to."""

import ipaddress
import re
import socket

from yarl import URL

from domain.errors import UpstreamBroken
from domain.upstreams import Origin

_METADATA = frozenset({ipaddress.ip_address("fd00:ec2::254")})  # link-local in all but its prefix
_INET_ATON = re.compile(r"[0-9a-fx.]+")


def parse_url(text: str) -> URL:
    """The address exactly as written: signed ones break when re-quoted. Raises UpstreamBroken."""
    try:
        return URL(text, encoded=True)
    except (ValueError, TypeError) as error:
        raise UpstreamBroken("the upstream sent an address that cannot be read") from error


def origin_of(url: URL) -> Origin:
    """Raises UpstreamBroken for anything but an absolute http or https address."""
    try:
        host, port = url.host, url.port
    except ValueError as error:
        raise UpstreamBroken("the upstream sent an address that cannot be read") from error
    if url.scheme not in {"http", "https"} or not host or not port:
        raise UpstreamBroken("the upstream sent an address that is neither http nor https")
    return Origin(url.scheme, host.lower().rstrip("."), port)


def check_redirect(upstream: Origin, target: Origin) -> None:
    """Refuse to be sent from https to http, to link-local addresses (the clouds' metadata services live there),
    or to this very machine where the upstream is not on it. Raises UpstreamBroken.
    """
    if upstream.scheme == "https" and target.scheme != "https":
        raise UpstreamBroken("the upstream redirects from https to http; refused")
    if is_link_local(target.host) or (_is_loopback(target.host) and not _is_loopback(upstream.host)):
        raise UpstreamBroken(f"the upstream redirects to {target.host}; refused")


def is_link_local(host: str) -> bool:
    """Whether it is an address that only means something on the machine's own wire, or none at all."""
    address = _address(host)
    if address is None:
        return False
    return address in _METADATA or address.is_link_local or address.is_multicast or address.is_unspecified


def _is_loopback(host: str) -> bool:
    address = _address(host)
    return host == "localhost" or host.endswith(".localhost") or (address is not None and address.is_loopback)


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        if not _INET_ATON.fullmatch(host):
            return None
        try:
            # What the resolver makes of 127.1, 0x7f000001 or 2130706433.
            address = ipaddress.ip_address(socket.inet_aton(host))
        except OSError:
            return None
    return getattr(address, "ipv4_mapped", None) or address
