"""RealmPolicy: where upstream credentials may go.

A registry names its token server in its challenge, so a hostile or hijacked one could have anybody's
credentials sent to a server of its choice (CVE-2026-33540), or have us call addresses inside the operator's
network. Therefore a realm is trusted only on the upstream's own host and port, on its registrable domain, or
where the operator named it; and never over plain HTTP when the upstream itself is reached by HTTPS. On a domain
that many tenants share (domain/shared_domains.py) the registrable domain proves nothing: there a realm is trusted on
the upstream's own host, or on the provider's token server for it, or where the operator named it. An upstream
with several addresses is one registry behind one realm, so the operator says: what holds for one holds for each.
"""

from domain.errors import RealmNotTrusted
from domain.ports import PublicSuffixes
from domain.shared_domains import shared_domain_of, token_servers_of
from domain.upstreams import Origin, Upstream


class RealmPolicy:
    """An upstream's `realms` are the operator's further hosts, each `host` or `host:port` in lower case."""

    def __init__(self, suffixes: PublicSuffixes) -> None:
        self._suffixes = suffixes

    def check(self, upstream: Upstream, realm: Origin) -> None:
        """Raises RealmNotTrusted where credentials for the upstream must not go to this realm."""
        if any(one.origin.scheme == "https" for one in upstream.endpoints) and realm.scheme != "https":
            raise RealmNotTrusted(
                "the upstream's challenge names a token server without https; the mirror sends no credentials there"
            )
        if not any(self._trusts(one, realm) for one in upstream.endpoints):
            shared = shared_domain_of(realm.host)
            tenants = f", and {shared} hosts the registries of many customers" if shared else ""
            raise RealmNotTrusted(
                f"the upstream's challenge names the token server {realm.authority}, which is not the upstream's own "
                f"host{tenants}; set UPSTREAM_REALMS={realm.authority} (in a settings file: its realms) to trust it"
            )

    def _trusts(self, endpoint: Upstream, realm: Origin) -> bool:
        if realm == endpoint.origin:
            return True
        if {realm.authority, realm.authority.rpartition(":")[0]} & endpoint.realms:
            return True
        host = endpoint.origin.host
        if shared_domain_of(host):
            return realm.host == host or realm.host in token_servers_of(host)
        domain = self._suffixes.registrable_domain(realm.host)
        return domain is not None and domain == self._suffixes.registrable_domain(host)
