"""The aiohttp session that all upstream requests share, one for each worker process."""

import socket
import ssl
from dataclasses import dataclass
from pathlib import Path

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver

from adapters.upstream.addresses import is_link_local

# A signed redirect address or a challenge of a large cloud passes aiohttp's 8190 bytes.
_HEADER_LIMIT = 64 * 1024
_CONNECT_SECONDS = 10.0
# Bytes that may wait for a slow client, for each transfer; aiohttp stops reading at twice as many.
_READ_AHEAD = 1024 * 1024


@dataclass(frozen=True)
class SessionSettings:
    """`timeout` is how many seconds of silence are borne; `ca_file` a PEM file beside the system's authorities."""

    timeout: float = 25.0
    ca_file: Path | None = None


def open_session(settings: SessionSettings) -> aiohttp.ClientSession:
    """A session that leaves bytes and addresses alone. Needs a running event loop; the caller closes it."""
    context = ssl.create_default_context()
    # Python 3.13 refuses certificates without some extensions that private authorities seldom write and no docker
    # asks for. All that makes a certificate trusted is checked as before.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if settings.ca_file:
        context.load_verify_locations(cafile=settings.ca_file)
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, ssl=context, resolver=_GuardedResolver()),
        # No total: it would cut every large layer. Silence is what counts.
        timeout=aiohttp.ClientTimeout(
            total=None, sock_connect=min(_CONNECT_SECONDS, settings.timeout), sock_read=settings.timeout
        ),
        auto_decompress=False,
        requote_redirect_url=False,
        read_bufsize=_READ_AHEAD,
        cookie_jar=aiohttp.DummyCookieJar(),
        max_line_size=_HEADER_LIMIT,
        max_field_size=_HEADER_LIMIT,
        skip_auto_headers=("User-Agent", "Accept-Encoding", "Accept"),
    )


class _GuardedResolver(AbstractResolver):
    """Leaves out link-local addresses, whatever name they hide behind (see addresses.check_redirect)."""

    def __init__(self) -> None:
        self._resolver = ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = await self._resolver.resolve(host, port, family)
        allowed = [one for one in found if not is_link_local(one["host"])]
        if not allowed:
            raise OSError(None, "only link-local addresses")
        return allowed

    async def close(self) -> None:
        await self._resolver.close()
