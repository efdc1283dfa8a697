"""The addresses of a request: that of the client, and that of the token endpoint as the client can reach it."""

import ipaddress
import re

from sanic import Request

from domain.errors import RequestInvalid
from domain.value import Value
from entrypoints.settings import Settings
from entrypoints.settings.values import HOST

# Forms that some proxies write into X-Forwarded-For: "192.0.2.1:4711", "[2001:db8::1]:4711", "[2001:db8::1]".
_WITH_PORT = re.compile(r"\[(?P<six>[0-9A-Fa-f:.]+)\](?::[0-9]{1,5})?|(?P<four>[0-9.]+):[0-9]{1,5}")

# The form that getpeername(2) returns, RFC 4291 section 2.5.5.2.
_MAPPED = "::ffff:"
_TOKEN_PATH = "/v2/auth"  # noqa: S105 - a path


class RequestAddresses(Value, frozen=True):
    """Clients can send any Host and any X-Forwarded-* field. Host is checked; the others are trusted only if one of
    TRUSTED_PROXIES sent the request.
    """

    settings: Settings

    def is_trusted(self, peer: str) -> bool:
        """Whether the address of a peer belongs to one of TRUSTED_PROXIES."""
        networks = self.settings.trusted_proxies
        address = _parsed(peer) if networks else None
        return address is not None and any(address in network for network in networks)

    def client_of(self, request: Request) -> str:
        """The address of the client. X-Forwarded-For is read from its end, as far as trusted proxies wrote it: the
        client can forge everything before that.
        """
        found = plain_address(request.ip)
        if self.is_trusted(request.ip):
            for text in reversed(",".join(request.headers.getall("x-forwarded-for", [])).split(",")):
                address = _parsed(text.strip())
                if address is None:
                    break
                found = str(address)
                if not self.is_trusted(found):
                    break
        return found

    def realm_of(self, request: Request) -> str:
        """The realm of tokens. Raises RequestInvalid if Host is invalid."""
        return self.address_of(request) + _TOKEN_PATH

    def address_of(self, request: Request) -> str:
        """The address at which the client reaches this service: SELF_REGISTRY if it is set. Otherwise it is built from
        the request, so that a mirror without SELF_REGISTRY works for other machines. A host name that belongs to one
        upstream only has an address of its own. Raises RequestInvalid if Host is invalid.
        """
        address = self.settings.self_registry
        if address is None:
            return f"{self._scheme(request)}://{self.requested_host(request)}"
        if host := self.host_of(request):
            return f"{address.partition('://')[0]}://{host}"
        return address

    def host_of(self, request: Request) -> str | None:
        """The requested host name, if it belongs to one upstream only. Raises RequestInvalid as `realm_of`."""
        if not self.settings.table.has_own_hosts:
            return None
        host = self.requested_host(request)
        return host if self.settings.table.is_own_host(host) else None

    def _scheme(self, request: Request) -> str:
        scheme = "https" if self.settings.tls_cert else "http"
        if self.is_trusted(request.ip):
            scheme = _first(request, "x-forwarded-proto") or scheme
        if scheme not in {"http", "https"}:
            raise RequestInvalid("the X-Forwarded-Proto field of the request is neither http nor https")
        return scheme

    def requested_host(self, request: Request) -> str:
        """The host name by which the client reaches this service. Raises RequestInvalid if it is invalid."""
        # The request parser rejects a second Host field.
        host = str(request.headers.get("host") or f"localhost:{self.settings.port}")
        if self.is_trusted(request.ip):
            host = _first(request, "x-forwarded-host") or host
        if not HOST.fullmatch(host):
            raise RequestInvalid("the Host of the request is not a host or host:port")
        return host


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


def _first(request: Request, name: str) -> str:
    """The first element of the list in the field: the one nearest to the client."""
    return str(request.headers.get(name, "")).partition(",")[0].strip().lower()
