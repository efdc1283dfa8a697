"""The one place where aiohttp's exceptions become the domain's."""

from collections.abc import Iterator
from contextlib import contextmanager

import aiohttp

from domain.errors import RegistryError, UpstreamBroken, UpstreamTimedOut, UpstreamUnreachable


@contextmanager
def translated(host: str) -> Iterator[None]:
    """Around a request and around the reading of its body. Messages name the host and nothing of the address:
    a signed one is a credential.
    """
    try:
        yield
    except (TimeoutError, aiohttp.ClientError, OSError, ValueError) as error:
        raise _fault(host, error) from error


def _fault(host: str, error: Exception) -> RegistryError:
    match error:
        case TimeoutError():
            return UpstreamTimedOut(f"{host} did not answer in time")
        case aiohttp.ClientConnectorCertificateError():
            return UpstreamUnreachable(f"{host} shows a certificate that is not trusted; UPSTREAM_CA adds an authority")
        case aiohttp.ClientPayloadError() | aiohttp.ServerDisconnectedError():
            return UpstreamBroken(f"{host} broke the connection")
        case aiohttp.ClientResponseError() | ValueError():
            return UpstreamBroken(f"{host} sent an answer that cannot be read")
        case _:
            return UpstreamUnreachable(f"{host} cannot be reached")
