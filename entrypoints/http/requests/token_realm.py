"""TokenRealm: the address of the token endpoint, as the client can reach it."""

from sanic import Request

from domain.errors import RequestInvalid
from entrypoints.http.requests.client_address import TrustedProxies
from entrypoints.settings import Settings
from entrypoints.settings.values import HOST

_PATH = "/v2/auth"


class TokenRealm:
    """SELF_REGISTRY if it is set. Otherwise the realm is built from the request, so that a mirror without SELF_REGISTRY
    works for other machines. A host name that belongs to one upstream only has a realm of its own.

    Clients can send any Host, so it is checked. X-Forwarded-* is trusted only from TRUSTED_PROXIES.
    """

    def __init__(self, settings: Settings) -> None:
        self._fixed = settings.self_registry
        self._fixed_scheme = self._fixed.partition("://")[0] if self._fixed else None
        self._upstreams = settings.table
        self._proxies = TrustedProxies(settings.trusted_proxies)
        self._scheme = "https" if settings.tls_cert else "http"
        self._default_host = f"localhost:{settings.port}"

    def of(self, request: Request) -> str:
        """The realm for this request. Raises RequestInvalid if Host is invalid or occurs more than once."""
        if self._fixed is None:
            return f"{self._scheme_of(request)}://{self._checked(self._host(request))}{_PATH}"
        host = self.host_of(request)
        if host is None:
            return self._fixed + _PATH
        return f"{self._fixed_scheme}://{host}{_PATH}"

    def host_of(self, request: Request) -> str | None:
        """The requested host name, if it belongs to one upstream only. Raises RequestInvalid as `of`."""
        if not self._upstreams.has_own_hosts:
            return None
        host = self._checked(self._host(request))
        return host if self._upstreams.is_own_host(host) else None

    def _checked(self, host: str) -> str:
        if not HOST.fullmatch(host):
            raise RequestInvalid("the Host of the request is not a host or host:port")
        return host

    def _scheme_of(self, request: Request) -> str:
        scheme = self._scheme
        if self._proxies.sent(request):
            scheme = _first(request, "x-forwarded-proto") or scheme
        if scheme not in {"http", "https"}:
            raise RequestInvalid("the X-Forwarded-Proto field of the request is neither http nor https")
        return scheme

    def _host(self, request: Request) -> str:
        if self._proxies.sent(request) and (forwarded := _first(request, "x-forwarded-host")):
            return forwarded
        hosts = request.headers.getall("host", [])
        if len(hosts) > 1:
            raise RequestInvalid("the request has more than one Host field")
        return str(hosts[0]) if hosts and hosts[0] else self._default_host


def _first(request: Request, name: str) -> str:
    """The first element of the list in the field: the one nearest to the client."""
    return str(request.headers.get(name, "")).partition(",")[0].strip().lower()
