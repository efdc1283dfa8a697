"""Which outbound proxy a request goes through, by the usual environment variables' rules."""

from dataclasses import dataclass
from urllib.request import proxy_bypass_environment  # type: ignore[attr-defined]  # typeshed leaves it out

from yarl import URL


@dataclass(frozen=True)
class ProxyRules:
    """HTTP_PROXY, HTTPS_PROXY and NO_PROXY. aiohttp could read them itself, but would take passwords for any
    host out of the user's netrc file as well.
    """

    http: str | None = None
    https: str | None = None
    bypass: str = ""

    def proxy_for(self, url: URL) -> str | None:
        """The proxy's address, None for a direct connection."""
        proxy = self.https if url.scheme == "https" else self.http
        if proxy is None or proxy_bypass_environment(url.authority, {"no": self.bypass}):
            return None
        return proxy
