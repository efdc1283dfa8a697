"""The public suffix list that the publicsuffixlist package contains. It is never looked up over the network."""

import ipaddress

from publicsuffixlist import PublicSuffixList


class BundledPublicSuffixes:
    """Implements PublicSuffixes."""

    def __init__(self) -> None:
        self._list = PublicSuffixList(accept_unknown=False)

    def registrable_domain(self, host: str) -> str | None:
        """None for IP addresses and for names without a public suffix, such as `localhost` and `registry.corp`."""
        try:
            ipaddress.ip_address(host.strip("[]"))
        except ValueError:
            domain: str | None = self._list.privatesuffix(host.lower().rstrip("."))
            return domain
        return None
