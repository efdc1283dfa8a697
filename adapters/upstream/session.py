"""The aiohttp sessions over which requests leave, for each worker process its own."""

import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver
from aiohttp_socks import ProxyConnector
from yarl import URL

from adapters.upstream.addresses import is_link_local
from adapters.upstream.proxies import ProxyRules

# A signed redirect address or a challenge of a large cloud passes aiohttp's 8190 bytes.
_HEADER_LIMIT = 64 * 1024
_CONNECT_SECONDS = 10.0
# Bytes that may wait for a slow client, for each transfer; aiohttp stops reading at twice as many.
_READ_AHEAD = 1024 * 1024
_SOCKS_PORT = 1080  # RFC 1928 section 3


@dataclass(frozen=True)
class SessionSettings:
    """`timeout` is how many seconds of silence are borne; `ca_file` a PEM file beside the system's authorities;
    `certificate` our own certificate and its key, both PEM; `proxy` takes every request, whatever the environment says.

    The certificate is shown to whoever asks for one among those we are sent to: the registry, its token server, its
    storage. It proves who we are to that one server and cannot be passed on (RFC 8446 section 4.4.3).
    """

    timeout: float = 25.0
    ca_file: Path | None = None
    certificate: tuple[Path, Path] | None = None
    proxy: str | None = field(default=None, repr=False)


class Sessions:
    """One session for what leaves directly or by an HTTP proxy, and one for each SOCKS proxy: its connections are made
    in another way and must never be taken for direct ones.
    """

    def __init__(
        self, direct: aiohttp.ClientSession, by_socks: Mapping[str, aiohttp.ClientSession], rules: ProxyRules
    ) -> None:
        self._direct = direct
        self._by_socks = by_socks
        self._rules = rules

    def way_to(self, url: URL) -> tuple[aiohttp.ClientSession, str | None]:
        """The session, and the HTTP proxy that it is to use."""
        proxy = self._rules.proxy_for(url)
        if proxy is not None and proxy in self._by_socks:
            return self._by_socks[proxy], None
        return self._direct, proxy

    def proxy_to(self, url: URL) -> str | None:
        """The proxy of whatever kind, None for a direct connection."""
        return self._rules.proxy_for(url)

    async def close(self) -> None:
        for session in (self._direct, *self._by_socks.values()):
            await session.close()


def open_sessions(settings: SessionSettings, rules: ProxyRules) -> Sessions:
    """Sessions that leave bytes and addresses alone. Needs a running event loop; the caller closes them."""
    context = _context(settings)
    if settings.proxy:
        rules = ProxyRules.always(settings.proxy)
    direct = aiohttp.TCPConnector(limit=0, ssl=context, resolver=_GuardedResolver())
    by_socks = {proxy: _session(settings, _socks_connector(proxy, context)) for proxy in rules.socks}
    return Sessions(_session(settings, direct), by_socks, rules)


def _context(settings: SessionSettings) -> ssl.SSLContext:
    context = ssl.create_default_context()
    # Python 3.13 refuses certificates without some extensions that private authorities seldom write and no docker
    # asks for. All that makes a certificate trusted is checked as before.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if settings.ca_file:
        context.load_verify_locations(cafile=settings.ca_file)
    if settings.certificate:
        context.load_cert_chain(*settings.certificate, password="")
    return context


def _socks_connector(proxy: str, context: ssl.SSLContext) -> aiohttp.TCPConnector:
    """Names are resolved at the proxy, by `socks5` as by `socks5h`, as Go does and so docker and containerd: often
    there is no other place to resolve them. So _GuardedResolver sees none of them, and link-local addresses are
    refused as literals only, in check_redirect; what lies behind a name is the proxy's to guard, as with HTTP proxies.
    """
    address = URL(proxy)
    return ProxyConnector(
        host=address.host or "",
        port=address.port or _SOCKS_PORT,
        username=address.user,
        password=address.password or "",
        rdns=True,
        limit=0,
        ssl=context,
    )


def _session(settings: SessionSettings, connector: aiohttp.TCPConnector) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=connector,
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
