"""The one place where aiohttp's exceptions become the domain's."""

import ssl
from collections.abc import Iterator
from contextlib import contextmanager

import aiohttp
import aiohttp_socks

from adapters.upstream.addresses import AddressRefused
from domain.errors import RegistryError, UpstreamBroken, UpstreamTimedOut, UpstreamUnreachable

_SOCKS = (aiohttp_socks.ProxyError, aiohttp_socks.ProxyConnectionError, aiohttp_socks.ProxyTimeoutError)
_PROXY = (aiohttp.ClientHttpProxyError, aiohttp.ClientProxyConnectionError, *_SOCKS)


@contextmanager
def translated(host: str) -> Iterator[None]:
    """Around a request and around the reading of its body. Messages name the host and nothing of the address:
    a signed one is a credential.
    """
    try:
        yield
    except (TimeoutError, aiohttp.ClientError, OSError, ValueError, *_SOCKS) as error:
        raise _fault(host, error) from error


def _fault(host: str, error: Exception) -> RegistryError:  # noqa: PLR0911 - a table, one return for each row
    match error:
        case _ if _is_refused(error):
            return UpstreamBroken(
                f"the upstream sends us to {host}, which leads to this machine, to a metadata service, or to no single "
                "machine; refused (a host that is yours may be named in UPSTREAM_REALMS)"
            )
        case TimeoutError() | aiohttp_socks.ProxyTimeoutError():
            return UpstreamTimedOut(f"{host} did not answer in time")
        case _ if _is_untrusted(error):
            return UpstreamUnreachable(f"{host} shows a certificate that is not trusted; UPSTREAM_CA adds an authority")
        case _ if isinstance(error, _PROXY):
            return UpstreamUnreachable(f"{host} cannot be reached: the proxy before it does not connect us")
        case aiohttp.ClientPayloadError() | aiohttp.ServerDisconnectedError():
            return UpstreamBroken(f"{host} broke the connection")
        case aiohttp.ClientResponseError() | ValueError():
            return UpstreamBroken(f"{host} sent an answer that cannot be read")
        case _:
            return UpstreamUnreachable(f"{host} cannot be reached")


def _is_refused(error: Exception) -> bool:
    """Aiohttp wraps what its socket factory raises."""
    return isinstance(error, AddressRefused) or isinstance(error.__cause__, AddressRefused)


def _is_untrusted(error: Exception) -> bool:
    """Behind SOCKS, aiohttp takes the refusal of a certificate for any error of a connection."""
    kinds = (aiohttp.ClientConnectorCertificateError, ssl.SSLCertVerificationError)
    return isinstance(error, kinds) or isinstance(error.__cause__, kinds)
