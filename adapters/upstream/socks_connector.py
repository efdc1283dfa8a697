"""Connections through a SOCKS proxy."""

import asyncio
import ssl
from functools import partial
from typing import Any, cast

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp_socks import ProxyConnector
from python_socks import ProxyConnectionError, ProxyError, ProxyTimeoutError
from yarl import URL

from adapters.upstream.response_protocol import SingleResponseHandler
from adapters.upstream.transport_errors import SocksProxyFailed

_SOCKS_PORT = 1080  # RFC 1928 section 3


def socks_connector(proxy: str, context: ssl.SSLContext) -> aiohttp.TCPConnector:
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


class SingleResponseSocksConnector(ProxyConnector):
    """Uses SingleResponseHandler through a SOCKS proxy. The base class creates a protocol to keep a writer alive."""

    async def _connect_via_proxy(self, *args: Any, **options: Any) -> tuple[asyncio.Transport, ResponseHandler]:
        try:
            transport, given = await super()._connect_via_proxy(*args, **options)
        # Not the errors of aiohttp_socks, because transport_errors would have to import it.
        except ProxyTimeoutError as error:
            raise TimeoutError from error
        except (ProxyError, ProxyConnectionError) as error:
            raise SocksProxyFailed from error
        handler = cast("partial[SingleResponseHandler]", self._factory)(keeps=given)
        transport.set_protocol(handler)
        handler.connection_made(transport)
        return transport, handler
