"""Translates the exceptions of aiohttp into the errors of the domain. No other module does this."""

import errno
import os
import re
import ssl
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import aiohttp
from yarl import URL

from adapters.upstream.addresses import AddressNotAllowed
from domain.errors import RegistryError, RequestNotSent, UpstreamBroken, UpstreamTimedOut, UpstreamUnreachable

# This machine has no free descriptors, memory or local ports.
_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, errno.EADDRNOTAVAIL})
# Characters that a field value must not contain (RFC 9110 section 5.5) or that UTF-8 cannot encode.
_NOT_IN_A_FIELD = re.compile("[\x00-\x08\x0a-\x1f\x7f\ud800-\udfff]")


class SocksProxyFailed(Exception):
    """A SOCKS proxy cannot be reached, or did not open a connection."""


@contextmanager
def translate_errors(url: URL, *, is_sending: bool = False) -> Iterator[None]:
    """Wrap the reading of a body, or a request until the head of its response has arrived (`is_sending`).

    Messages contain the host but not the rest of the URL, because a signed URL is a credential. aiohttp raises a
    ValueError for a request that it cannot build, and errors of its own for an invalid head.
    """
    host = url.host or "the upstream"
    try:
        yield
    except (TimeoutError, aiohttp.ClientError, OSError, SocksProxyFailed) as error:
        raise _fault(host, error) from error
    except ValueError as error:
        if is_sending:
            raise RequestNotSent(f"the mirror could not build its request to {host}") from error
        raise _fault(host, error) from error


def check_header_fields(fields: Iterable[tuple[str, str]]) -> None:
    """Check the header fields of a request before a connection is opened. Raises RequestNotSent for a character that a
    field value must not contain. Client requests are checked when they arrive, so this finds errors of the mirror.
    """
    for name, value in fields:
        if _NOT_IN_A_FIELD.search(value):
            raise RequestNotSent(f"the mirror could not build its request: the {name} header has illegal characters")


def _fault(host: str, error: Exception) -> RegistryError:  # noqa: C901, PLR0911 - a table, one return for each row
    match error:
        case _ if _exhausted(error):
            return RequestNotSent(f"the mirror cannot open a connection: {os.strerror(_exhausted(error))}")
        case _ if _is_caused_by(error, AddressNotAllowed):
            return UpstreamBroken(
                f"the upstream refers to {host}, an address of this machine, of a metadata service or of no single "
                "machine; the mirror does not connect there (name a host of your own in UPSTREAM_REALMS to allow it)"
            )
        case TimeoutError():
            return UpstreamTimedOut(f"{host} did not answer in time")
        case _ if _is_caused_by(error, aiohttp.ClientConnectorCertificateError, ssl.SSLCertVerificationError):
            return UpstreamUnreachable(
                f"{host} has a certificate that is not trusted; set UPSTREAM_CA to trust another certificate authority"
            )
        case aiohttp.ClientHttpProxyError() | aiohttp.ClientProxyConnectionError() | SocksProxyFailed():
            return UpstreamUnreachable(f"{host} cannot be reached: the proxy did not open a connection to it")
        case aiohttp.ClientPayloadError() | aiohttp.ServerDisconnectedError():
            return UpstreamBroken(f"{host} closed the connection too early")
        case aiohttp.InvalidURL():
            return UpstreamBroken(f"the upstream refers to {host}, which is not a valid address")
        case aiohttp.ClientResponseError() | ValueError():
            return UpstreamBroken(f"{host} sent an answer that is not valid HTTP")
        case _:
            return UpstreamUnreachable(f"{host} cannot be reached")


def _exhausted(error: Exception) -> int:
    """The errno if this machine lacks a resource, else 0. aiohttp wraps errors of connections and of look-ups."""
    number = getattr(error, "errno", None) or getattr(getattr(error, "os_error", None), "errno", None)
    return number if isinstance(error, OSError) and number in _EXHAUSTED else 0


def _is_caused_by(error: Exception, *kinds: type[Exception]) -> bool:
    """Whether the error is one of these kinds. aiohttp wraps the errors of its socket factory, and those of TLS through
    SOCKS.
    """
    return isinstance(error, kinds) or isinstance(error.__cause__, kinds)
