"""The public suffix list, as shipped with the publicsuffixlist package: no look-up ever leaves the machine."""

import ipaddress

from publicsuffixlist import PublicSuffixList


class BundledPublicSuffixes:
    """Plays PublicSuffixes."""

    def __init__(self) -> None:
        self._list = PublicSuffixList(accept_unknown=False)

    def registrable_domain(self, host: str) -> str | None:
        """None for addresses and for names of no public suffix: `localhost`, `registry.corp`."""
        try:
            ipaddress.ip_address(host.strip("[]"))
        except ValueError:
            domain: str | None = self._list.privatesuffix(host.lower().rstrip("."))
            return domain
        return None
