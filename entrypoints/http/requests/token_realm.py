"""TokenRealm: the address of the token endpoint, as the client can reach it."""

from dataclasses import dataclass

from sanic import Request

from domain.errors import RequestInvalid
from entrypoints.http.requests.client_address import TrustedProxies
from entrypoints.settings import Settings
from entrypoints.settings.values import HOST

_PATH = "/v2/auth"


@dataclass(frozen=True)
class TokenRealm:
    """SELF_REGISTRY if it is set. Otherwise the realm is built from the request, so that a mirror without SELF_REGISTRY
    works for other machines. A host name that belongs to one upstream only has a realm of its own.

    Clients can send any Host, so it is checked. X-Forwarded-* is trusted only from TRUSTED_PROXIES.
    """

    settings: Settings
    proxies: TrustedProxies

    def of(self, request: Request) -> str:
        """The realm for this request. Raises RequestInvalid if Host is invalid."""
        address = self.settings.self_registry
        if address is None:
            return f"{self._scheme(request)}://{self._host(request)}{_PATH}"
        if host := self.host_of(request):
            address = f"{address.partition('://')[0]}://{host}"
        return address + _PATH

    def host_of(self, request: Request) -> str | None:
        """The requested host name, if it belongs to one upstream only. Raises RequestInvalid as `of`."""
        if not self.settings.table.has_own_hosts:
            return None
        host = self._host(request)
        return host if self.settings.table.is_own_host(host) else None

    def _scheme(self, request: Request) -> str:
        scheme = "https" if self.settings.tls_cert else "http"
        if self.proxies.trusts(request.ip):
            scheme = _first(request, "x-forwarded-proto") or scheme
        if scheme not in {"http", "https"}:
            raise RequestInvalid("the X-Forwarded-Proto field of the request is neither http nor https")
        return scheme

    def _host(self, request: Request) -> str:
        # The request parser rejects a second Host field.
        host = str(request.headers.get("host") or f"localhost:{self.settings.port}")
        if self.proxies.trusts(request.ip):
            host = _first(request, "x-forwarded-host") or host
        if not HOST.fullmatch(host):
            raise RequestInvalid("the Host of the request is not a host or host:port")
        return host


def _first(request: Request, name: str) -> str:
    """The first element of the list in the field: the one nearest to the client."""
    return str(request.headers.get(name, "")).partition(",")[0].strip().lower()
