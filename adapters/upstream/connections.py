"""Connections to upstreams: the aiohttp sessions with their proxies. Each worker process has its own sessions."""

import ipaddress
import socket
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.request import proxy_bypass_environment  # type: ignore[attr-defined]  # typeshed leaves it out

import aiohttp
from aiohttp.resolver import ThreadedResolver
from yarl import URL

from adapters.upstream.addresses import AddressPolicy, check_address, check_host
from adapters.upstream.response_protocol import use_single_response_handler
from adapters.upstream.system_authorities import new_context, system_context

# Signed redirect URLs and challenges of large clouds exceed aiohttp's default of 8190 bytes.
_HEADER_LIMIT = 64 * 1024
_CONNECT_SECONDS = 10.0
# Bytes buffered per transfer for a slow client. aiohttp stops reading at twice this number.
_READ_AHEAD = 1024 * 1024


@dataclass(frozen=True)
class SessionSettings:
    """`timeout`: seconds without a byte before a request fails. `ca_file`: a PEM file of additional certificate
    authorities. `certificate`: the client certificate and its key, both PEM. `proxy`: the proxy for every request; it
    overrides the environment.

    Every server that asks for a client certificate gets it: the registry, its token server, its storage. It proves the
    mirror's identity to that server only, which cannot use it elsewhere (RFC 8446 section 4.4.3).
    """

    timeout: float = 25.0
    ca_file: Path | None = None
    certificate: tuple[Path, Path] | None = None
    proxy: str | None = field(default=None, repr=False)


@dataclass(frozen=True)
class ProxyRules:
    """HTTP_PROXY, HTTPS_PROXY and NO_PROXY. aiohttp can read them itself, but would then also read passwords for any
    host from the user's netrc file.
    """

    http: str | None = field(default=None, repr=False)
    https: str | None = field(default=None, repr=False)
    bypass: str = ""

    def proxy_for(self, url: URL) -> str | None:
        """The URL of the proxy, or None for a direct connection."""
        proxy = self.https if url.scheme == "https" else self.http
        if proxy is None or proxy_bypass_environment(url.authority, {"no": self.bypass}):
            return None
        return proxy


class Sessions:
    """One session for each address policy of direct connections, and one for each SOCKS proxy.

    Connections are reused only within a session. The connection pools know hosts and ports but not address policies, so
    a shared pool would let a request use a connection that its own policy forbids.
    """

    def __init__(self, settings: SessionSettings, rules: ProxyRules) -> None:
        """Needs a running event loop. `rules`: ignored if the settings name a proxy."""
        context = _context_for(settings)
        self.rules = rules = ProxyRules(settings.proxy, settings.proxy) if settings.proxy else rules
        self._direct = {policy: _session(settings, _direct_connector(policy, context)) for policy in AddressPolicy}
        self._by_socks = {
            proxy: _session(settings, _socks_connector(proxy, context))
            for proxy in {rules.http, rules.https}
            if proxy and URL(proxy).scheme in {"socks5", "socks5h"}
        }

    def session_for(self, url: URL, address_policy: AddressPolicy) -> tuple[aiohttp.ClientSession, str | None]:
        """The session for a request to this URL, and the HTTP proxy that it must use, or None.

        Raises AddressNotAllowed if a proxy would have to connect to an address that the policy does not allow. Direct
        connections are checked when they are opened.
        """
        proxy = self.rules.proxy_for(url)
        if proxy is None:
            return self._direct[address_policy], None
        check_host(url.host or "", address_policy)
        if proxy in self._by_socks:
            return self._by_socks[proxy], None
        # The mirror connects only to the proxy, which the operator configured.
        return self._direct[AddressPolicy.CONFIGURED], proxy

    async def close(self) -> None:
        for session in (*self._direct.values(), *self._by_socks.values()):
            await session.close()


def _context_for(settings: SessionSettings) -> ssl.SSLContext:
    """Raises OSError, of which ssl.SSLError is one."""
    if not (settings.ca_file or settings.certificate):
        return system_context()
    context = new_context()
    if settings.ca_file:
        context.load_verify_locations(cafile=settings.ca_file)
    if settings.certificate:
        context.load_cert_chain(*settings.certificate, password="")
    return context


def _direct_connector(address_policy: AddressPolicy, context: ssl.SSLContext) -> aiohttp.TCPConnector:
    """Checks each IP address when its socket is created: after the name was resolved, before anything is sent. This
    also covers literal addresses in URLs, and names that resolve to another address the next time.
    """

    def checked_socket(address: tuple[Any, ...]) -> socket.socket:
        family, kind, protocol, _, place = address
        check_address(ipaddress.ip_address(place[0]), address_policy)
        return socket.socket(family, kind, protocol)

    return aiohttp.TCPConnector(limit=0, ssl=context, resolver=ThreadedResolver(), socket_factory=checked_socket)


def _socks_connector(proxy: str, context: ssl.SSLContext) -> aiohttp.TCPConnector:
    # Few mirrors need it, and the import takes 3 % of the start.
    from adapters.upstream.socks_connector import socks_connector  # noqa: PLC0415

    return socks_connector(proxy, context)


def _session(settings: SessionSettings, connector: aiohttp.TCPConnector) -> aiohttp.ClientSession:
    """A session that changes neither bodies nor URLs."""
    use_single_response_handler(connector)
    return aiohttp.ClientSession(
        connector=connector,
        # No total timeout: it would end every large download. Only silence counts.
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
