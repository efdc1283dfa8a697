"""RealmPolicy: where upstream credentials may go.

A registry names its token server in its challenge, so a hostile or hijacked one could have anybody's
credentials sent to a server of its choice (CVE-2026-33540), or have us call addresses inside the operator's
network. Therefore a realm is trusted only on the upstream's own host and port, on its registrable domain, or
where the operator named it; and never over plain HTTP when the upstream itself is reached by HTTPS.
"""

from domain.errors import RealmRefused
from domain.ports import PublicSuffixes
from domain.upstreams import Origin, Upstream


class RealmPolicy:
    """An upstream's `realms` are the operator's further hosts, each `host` or `host:port` in lower case."""

    def __init__(self, suffixes: PublicSuffixes) -> None:
        self._suffixes = suffixes

    def check(self, upstream: Upstream, realm: Origin) -> None:
        """Raises RealmRefused where credentials for the upstream must not go to this realm."""
        if upstream.origin.scheme == "https" and realm.scheme != "https":
            raise RealmRefused("the upstream's challenge leads from https to http; refused")
        if not self._trusts(upstream, realm):
            raise RealmRefused(
                f"the upstream's challenge leads to {realm.authority}, which is not its own host; "
                f"set UPSTREAM_REALMS={realm.authority} to trust it"
            )

    def _trusts(self, upstream: Upstream, realm: Origin) -> bool:
        if realm == upstream.origin:
            return True
        if {realm.authority, realm.authority.rpartition(":")[0]} & upstream.realms:
            return True
        domain = self._suffixes.registrable_domain(realm.host)
        return domain is not None and domain == self._suffixes.registrable_domain(upstream.origin.host)
