"""RealmPolicy: to which token servers the mirror sends upstream credentials.

A registry names its token server in its challenge. A hostile or compromised registry could make the mirror send
credentials to any server (CVE-2026-33540), or send requests into the operator's network. So the mirror trusts a realm
only on the upstream's own host and port, on its registrable domain, or on a host that the operator configured, and
never over plain HTTP if the upstream uses HTTPS. On a domain that many tenants share (domain/shared_domains.py), the
registrable domain proves nothing. There the mirror trusts only the upstream's own host, the provider's token server
for it, and configured hosts. All endpoints of an upstream are one registry with one realm, so a realm that is trusted
for one endpoint is trusted for all.
"""

from domain.errors import RealmNotTrusted
from domain.ports import PublicSuffixes
from domain.shared_domains import shared_domain_of, token_servers_of
from domain.upstreams import Origin, Upstream


class RealmPolicy:
    """Checks realms. `Upstream.realms` contains the configured hosts, each `host` or `host:port` in lower case."""

    def __init__(self, suffixes: PublicSuffixes) -> None:
        self._suffixes = suffixes

    def check(self, upstream: Upstream, realm: Origin) -> None:
        """Raises RealmNotTrusted if the mirror must not send the upstream's credentials to this realm."""
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
