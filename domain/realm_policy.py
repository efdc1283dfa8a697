"""RealmPolicy: to which token servers the mirror sends upstream credentials.

A registry names its token server in its challenge. A hostile or compromised registry could make the mirror send
credentials to any server (CVE-2026-33540), or send requests into the operator's network. So the mirror trusts a realm
only on the upstream's own host and port, on its registrable domain, or on a host that the operator configured, and
never over plain HTTP if the upstream uses HTTPS. On a domain that many tenants share (SHARED_DOMAINS), the registrable
domain proves nothing: the hosts of other customers are not trusted. There the mirror trusts only the upstream's own
host, the provider's token servers for it, and configured hosts. All endpoints of an upstream are one registry with one
realm, so a realm that is trusted for one endpoint is trusted for all.
"""

import re

from domain.errors import RealmNotTrusted
from domain.ports import PublicSuffixes
from domain.upstreams import Origin, Upstream
from domain.value import Value

SHARED_DOMAINS = frozenset(
    {
        "aliyuncs.com",
        "amazonaws.com",
        "amazonaws.com.cn",
        "azurecr.cn",
        "azurecr.io",
        "azurecr.us",
        "cloudfront.net",
        "gcr.io",
        "jfrog.io",
        "myhuaweicloud.com",
        "pkg.dev",
        "tencentcloudcr.com",
    }
)
"""The domains of providers that give each customer's registry a host name below the domain, and that the public suffix
list does not contain.
"""
# Alibaba Cloud: registry.REGION.aliyuncs.com, with -intl, -vpc or -internal behind `registry`; for its enterprise and
# personal editions NAME.REGION.cr.aliyuncs.com and NAME.REGION.personal.cr.aliyuncs.com.
_ALIBABA_REGISTRY = re.compile(
    r"registry(?:-[a-z]+){0,2}\.(?P<region>[a-z]{2,3}(?:-[a-z]+){1,2}(?:-[0-9]+)?)\.aliyuncs\.com"
    r"|[a-z0-9-]+\.(?P<cr_region>[a-z]{2,3}(?:-[a-z]+){1,2}(?:-[0-9]+)?)\.(?:personal\.)?cr\.aliyuncs\.com"
)


class RealmPolicy(Value, frozen=True):
    """Checks realms. `Upstream.realms` contains the configured hosts, each `host` or `host:port` in lower case."""

    suffixes: PublicSuffixes

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
        if realm == endpoint.origin or {realm.authority, realm.authority.rpartition(":")[0]} & endpoint.realms:
            return True
        host = endpoint.origin.host
        if shared_domain_of(host):
            return realm.host == host or realm.host in token_servers_of(host)
        domain = self.suffixes.registrable_domain(realm.host)
        return domain is not None and domain == self.suffixes.registrable_domain(host)


def shared_domain_of(host: str) -> str | None:
    """The shared domain that contains this host name (in lower case), or None."""
    labels = host.rstrip(".").split(".")
    parents = (".".join(labels[start:]) for start in range(len(labels)))
    return next((parent for parent in parents if parent in SHARED_DOMAINS), None)


def token_servers_of(host: str) -> set[str]:
    """The provider's token servers for the registry at this host, in addition to the host itself.

    azurecr.*, gcr.io, pkg.dev, jfrog.io, tencentcloudcr.com and myhuaweicloud.com name the registry's own host, the
    registries of amazonaws.com use Basic. Only Alibaba Cloud has others: `dockerauth` and, for the enterprise edition,
    `dockerauth-ee`, each with `-vpc` inside its networks; the region cn-zhangjiakou has another form.
    """
    host = host.rstrip(".")
    matched = _ALIBABA_REGISTRY.fullmatch(host)
    region = (
        "cn-hangzhou" if host == "registry.aliyuncs.com" else matched and (matched["region"] or matched["cr_region"])
    )
    names = ["dockerauth", "dockerauth-vpc", "dockerauth-ee", "dockerauth-ee-vpc"] if region else []
    special = {"dockerauth-cn-zhangjiakou.aliyuncs.com"} if region == "cn-zhangjiakou" else set()
    return {f"{name}.{region}.aliyuncs.com" for name in names} | special
