"""The outbound proxy of each request."""

from dataclasses import dataclass, field
from typing import Self
from urllib.request import proxy_bypass_environment  # type: ignore[attr-defined]  # typeshed leaves it out

from yarl import URL

_SOCKS = frozenset({"socks5", "socks5h"})


@dataclass(frozen=True)
class ProxyRules:
    """HTTP_PROXY, HTTPS_PROXY and NO_PROXY. aiohttp can read them itself, but would then also read passwords for any
    host from the user's netrc file.
    """

    http: str | None = field(default=None, repr=False)
    https: str | None = field(default=None, repr=False)
    bypass: str = ""

    @classmethod
    def always(cls, proxy: str) -> Self:
        """Rules that use this proxy for every request."""
        return cls(proxy, proxy)

    @property
    def socks(self) -> frozenset[str]:
        """The proxies that use SOCKS 5 (RFC 1928)."""
        return frozenset(proxy for proxy in (self.http, self.https) if proxy and URL(proxy).scheme in _SOCKS)

    def proxy_for(self, url: URL) -> str | None:
        """The URL of the proxy, or None for a direct connection."""
        proxy = self.https if url.scheme == "https" else self.http
        if proxy is None or proxy_bypass_environment(url.authority, {"no": self.bypass}):
            return None
        return proxy
