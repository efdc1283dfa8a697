"""The aiohttp sessions over which requests leave, for each worker process its own."""

import ipaddress
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp.resolver import ThreadedResolver
from yarl import URL

from adapters.upstream.addresses import AddressPolicy, check_address, check_host
from adapters.upstream.connections import SingleResponseSocksConnector, use_single_response_handler
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
    """One session for each reach of direct connections, and one for each SOCKS proxy, whose connections are made in
    another way. A connection is used again within its session only, and so never by a request that could not have made
    it: the connection pools know hosts and ports, and nothing of reaches.
    """

    def __init__(
        self,
        direct: Mapping[AddressPolicy, aiohttp.ClientSession],
        by_socks: Mapping[str, aiohttp.ClientSession],
        rules: ProxyRules,
    ) -> None:
        self._direct = direct
        self._by_socks = by_socks
        self._rules = rules

    def session_for(self, url: URL, address_policy: AddressPolicy) -> tuple[aiohttp.ClientSession, str | None]:
        """The session for a request to this URL, and the HTTP proxy that it must use, or None.

        Raises AddressNotAllowed if a proxy would have to connect to an address that the policy does not allow. Direct
        connections are checked when they are opened.
        """
        proxy = self._rules.proxy_for(url)
        if proxy is None:
            return self._direct[address_policy], None
        check_host(url.host or "", address_policy)
        if proxy in self._by_socks:
            return self._by_socks[proxy], None
        # What connects is the proxy, and the operator named it.
        return self._direct[AddressPolicy.CONFIGURED], proxy

    def proxy_to(self, url: URL) -> str | None:
        """The proxy of whatever kind, None for a direct connection."""
        return self._rules.proxy_for(url)

    async def close(self) -> None:
        for session in (*self._direct.values(), *self._by_socks.values()):
            await session.close()


def open_sessions(settings: SessionSettings, rules: ProxyRules) -> Sessions:
    """Sessions that leave bytes and addresses alone. Needs a running event loop; the caller closes them."""
    context = _context(settings)
    if settings.proxy:
        rules = ProxyRules.always(settings.proxy)
    direct = {
        address_policy: _session(settings, _direct_connector(address_policy, context))
        for address_policy in AddressPolicy
    }
    by_socks = {proxy: _session(settings, _socks_connector(proxy, context)) for proxy in rules.socks}
    return Sessions(direct, by_socks, rules)


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


def _direct_connector(address_policy: AddressPolicy, context: ssl.SSLContext) -> aiohttp.TCPConnector:
    """Checks each address when a socket for it is made: after the name was resolved, before anything is sent. So a name
    that means another address the next time gains nothing, and an address that stands in a URL is checked as well.
    """

    def checked_socket(address: tuple[Any, ...]) -> socket.socket:
        family, kind, protocol, _, place = address
        check_address(ipaddress.ip_address(place[0]), address_policy)
        return socket.socket(family, kind, protocol)

    return aiohttp.TCPConnector(limit=0, ssl=context, resolver=ThreadedResolver(), socket_factory=checked_socket)


def _socks_connector(proxy: str, context: ssl.SSLContext) -> aiohttp.TCPConnector:
    """Names are resolved at the proxy, by `socks5` as by `socks5h`, as Go does and so docker and containerd: often
    there is no other place to resolve them. So forbidden addresses are refused as literals only (addresses.check_host);
    what lies behind a name is the proxy's to guard, as with HTTP proxies.
    """
    address = URL(proxy)
    return SingleResponseSocksConnector(
        host=address.host or "",
        port=address.port or _SOCKS_PORT,
        username=address.user,
        password=address.password or "",
        rdns=True,
        limit=0,
        ssl=context,
    )


def _session(settings: SessionSettings, connector: aiohttp.TCPConnector) -> aiohttp.ClientSession:
    use_single_response_handler(connector)
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
