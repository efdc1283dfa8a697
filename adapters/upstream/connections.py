"""Connections to upstreams: the aiohttp sessions with their proxies, and the protocol of a connection. Each worker
process has its own sessions.
"""

import asyncio
import ipaddress
import select
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any, cast
from urllib.request import proxy_bypass_environment  # type: ignore[attr-defined]  # typeshed leaves it out

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.http import RawResponseMessage
from aiohttp.resolver import ThreadedResolver
from aiohttp.streams import StreamReader
from aiohttp_socks import ProxyConnector
from yarl import URL

from adapters.upstream.addresses import AddressPolicy, check_address, check_host
from adapters.upstream.receive_buffers import ReceiveBuffers

# Signed redirect URLs and challenges of large clouds exceed aiohttp's default of 8190 bytes.
_HEADER_LIMIT = 64 * 1024
_CONNECT_SECONDS = 10.0
# Bytes buffered per transfer for a slow client. aiohttp stops reading at twice this number.
_READ_AHEAD = 1024 * 1024
_SOCKS_PORT = 1080  # RFC 1928 section 3
_SWITCHING_PROTOCOLS = 101  # the last response on a connection, unlike the other interim responses
_INTERIM = range(100, 200)  # aiohttp treats statuses below 100 as final, too
_END_OF_HEAD = b"\r\n\r\n"
_LARGE_BODY = 1024 * 1024  # bytes


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


def _new_context() -> ssl.SSLContext:
    """Trusts the certificate authorities of the system."""
    context = ssl.create_default_context()
    # Python 3.13 rejects certificates without some extensions that private authorities often omit and docker does not
    # require. The checks that make a certificate trusted stay on.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context


_system_context = cache(_new_context)
"""Made once, because it takes 50 ms and a megabyte. Workers share that of the process that has forked them."""


def read_system_authorities() -> None:
    """Read the certificate authorities of the system again, for the sessions that are made from now on."""
    _system_context.cache_clear()
    _system_context()


def _context_for(settings: SessionSettings) -> ssl.SSLContext:
    """Raises OSError, of which ssl.SSLError is one."""
    if not (settings.ca_file or settings.certificate):
        return _system_context()
    context = _new_context()
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
    """The proxy resolves names, for `socks5` as for `socks5h`, as in Go and so in docker and containerd: often only the
    proxy can. So the mirror checks only literal addresses (addresses.check_host). The proxy is responsible for the
    addresses of names, as with HTTP proxies.
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


class SingleResponseHandler(ResponseHandler):
    """The protocol of a connection: exactly one response for each request. Closes the connection when bytes arrive that
    belong to no response. The previous response stays readable.

    A server may send more bytes than it declared: a response without a request, a body where none is allowed (RFC 9112
    section 6.3), or bytes after the last chunk. aiohttp keeps such a connection and parses the bytes as the response to
    the next request, which may belong to another caller (RFC 9112 section 11.2).
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, buffers: ReceiveBuffers, keeps: ResponseHandler | None = None
    ) -> None:
        """`buffers`: for large bodies. `keeps`: an object that must live as long as the connection."""
        super().__init__(loop)
        self.buffers = buffers
        self._keeps = keeps
        self._is_answered = True
        """No request is in progress, or the header of its final response has arrived."""
        self._last = b""
        """The last received bytes of an incomplete header of a response without a body."""
        self._large_body: StreamReader | None = None
        """The large body whose first bytes the server has not sent yet; None if there is no such body."""

    def set_response_params(self, **params: Any) -> None:
        """Called by aiohttp before it sends a request."""
        self._is_answered, self._last, self._large_body = False, b"", None
        super().set_response_params(**params)

    def feed_data(self, data: tuple[RawResponseMessage, StreamReader], size: int = 0) -> None:
        """The parser calls this when it has parsed the header of a response."""
        if self._is_answered:
            self._refuse_excess()
            return
        status = data[0].code
        self._is_answered = status not in _INTERIM or status == _SWITCHING_PROTOCOLS
        if self._is_answered and not self._skip_payload and has_large_body(data[0].headers):
            self._large_body = data[1]
        super().feed_data(data, size)

    def data_received(self, data: bytes) -> None:
        if data and self._is_complete:
            self._refuse_excess()
            return
        data, excess = self._without_body(data)
        super().data_received(data)
        self._pause_large_body()
        if excess:
            self.data_received(excess)
        elif self._is_complete and self._has_begun_another():
            self._refuse_excess()

    def _pause_large_body(self) -> None:
        """Stop reading at the first bytes of a large body. Otherwise aiohttp would first buffer twice _READ_AHEAD: this
        takes milliseconds, and the client waits for the first byte. Reading these bytes resumes the connection.
        """
        if self._large_body is not None and self._large_body.total_bytes:
            self._large_body = None
            self.pause_reading()

    def _without_body(self, data: bytes) -> tuple[bytes, bytes]:
        """The bytes up to the end of the header, and the bytes after it, if the response must not have a body.

        If the parser got a body after the response to a HEAD, it would fail and would not return the header either.
        """
        if not self._skip_payload or self._is_answered:
            return data, b""
        known = len(self._last)
        end = (self._last + data).find(_END_OF_HEAD)
        if end < 0:
            self._last = (self._last + data)[1 - len(_END_OF_HEAD) :]
            return data, b""
        stop = end + len(_END_OF_HEAD) - known
        self._last = b""
        return data[:stop], data[stop:]

    def close(self) -> None:
        """Called by aiohttp when the connection is not used any more. Abort it if the response has not ended: closing
        TLS in order would receive and discard the rest of the body for up to 30 seconds.
        """
        if self._is_complete:
            super().close()
        else:
            self.abort()

    def is_connected(self) -> bool:
        """Called by aiohttp before it takes a connection from its pool. If an idle connection is readable, the server
        has sent excess bytes or has closed it.
        """
        return super().is_connected() and not (self._is_complete and self._is_readable())

    @property
    def _is_complete(self) -> bool:
        """The server must not send anything until the next request."""
        return self._is_answered and (self._payload is None or self._payload.is_eof())

    def _has_begun_another(self) -> bool:
        """Whether the parser contains the start of another response: feed_eof then returns a message or fails. The
        parser is not used again, because each request gets a new one.
        """
        try:
            return self._parser is not None and self._parser.feed_eof() is not None
        except Exception:  # noqa: BLE001 - it contains an invalid response
            return True

    def _is_readable(self) -> bool:
        connection = self.transport.get_extra_info("socket") if self.transport else None
        if connection is None or connection.fileno() < 0:
            return False
        poll = select.poll()
        poll.register(connection.fileno(), select.POLLIN)
        return bool(poll.poll(0))

    def _refuse_excess(self) -> None:
        self.force_close()
        # An error of the parser at the end of the connection would concern these bytes, not the response.
        self._parser = None
        self._payload = None
        if self.transport is not None:
            self.transport.abort()


def has_large_body(headers: Mapping[str, str]) -> bool:
    """Whether a response to GET has a body without any coding whose length is known and at least 1 MiB."""
    length = headers.get("Content-Length", "")
    is_bare = "Transfer-Encoding" not in headers and "Content-Encoding" not in headers
    return is_bare and length.isdecimal() and int(length) >= _LARGE_BODY


class SingleResponseSocksConnector(ProxyConnector):
    """Uses SingleResponseHandler through a SOCKS proxy. The base class creates a protocol to keep a writer alive."""

    async def _connect_via_proxy(self, *args: Any, **options: Any) -> tuple[asyncio.Transport, ResponseHandler]:
        transport, given = await super()._connect_via_proxy(*args, **options)
        handler = cast("partial[SingleResponseHandler]", self._factory)(keeps=given)
        transport.set_protocol(handler)
        handler.connection_made(transport)
        return transport, handler


def use_single_response_handler(connector: aiohttp.TCPConnector) -> None:
    """Make the connector use SingleResponseHandler. aiohttp has no public way to choose the protocol.

    Raises RuntimeError if this version of aiohttp creates protocols in another way. Otherwise the connector would
    silently use aiohttp's own handler.
    """
    loop = asyncio.get_running_loop()
    made = getattr(connector, "_factory", None)
    if not isinstance(made, partial) or made.func is not ResponseHandler or made.keywords != {"loop": loop}:
        raise RuntimeError(f"aiohttp {aiohttp.__version__} creates the protocol of a connection in an unknown way")
    factory = partial(SingleResponseHandler, loop, ReceiveBuffers(loop))
    connector._factory = factory  # type: ignore[assignment]  # noqa: SLF001 - see above
