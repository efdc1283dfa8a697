"""Domains that many tenants share for registries, but that the public suffix list does not contain.

Each customer of these providers has a host name below one of these domains, so the hosts of other customers are not
trusted. The token server of such a registry is usually on the registry's own host. If a provider has separate token
servers, this module derives their names from the name of the registry.
"""

import re

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

# Alibaba Cloud: registry.REGION.aliyuncs.com, with -intl, -vpc or -internal behind `registry`; for its enterprise and
# personal editions NAME.REGION.cr.aliyuncs.com and NAME.REGION.personal.cr.aliyuncs.com.
_ALIBABA_REGISTRY = re.compile(
    r"registry(?:-[a-z]+){0,2}\.(?P<region>[a-z]{2,3}(?:-[a-z]+){1,2}(?:-[0-9]+)?)\.aliyuncs\.com"
    r"|[a-z0-9-]+\.(?P<cr_region>[a-z]{2,3}(?:-[a-z]+){1,2}(?:-[0-9]+)?)\.(?:personal\.)?cr\.aliyuncs\.com"
)
_ALIBABA_WITHOUT_REGION = {"registry.aliyuncs.com": "cn-hangzhou"}


def shared_domain_of(host: str) -> str | None:
    """The shared domain that contains this host name (in lower case), or None."""
    labels = host.rstrip(".").split(".")
    parents = (".".join(labels[start:]) for start in range(len(labels)))
    return next((parent for parent in parents if parent in SHARED_DOMAINS), None)


def token_servers_of(host: str) -> frozenset[str]:
    """The provider's token servers for the registry at this host, in addition to the host itself.

    azurecr.*, gcr.io, pkg.dev, jfrog.io, tencentcloudcr.com and myhuaweicloud.com name the registry's own host, the
    registries of amazonaws.com take Basic. Only Alibaba Cloud has others: `dockerauth` and, for the enterprise edition,
    `dockerauth-ee`, each with `-vpc` inside its networks; the region cn-zhangjiakou has another form.
    """
    matched = _ALIBABA_REGISTRY.fullmatch(host.rstrip("."))
    region = (matched["region"] or matched["cr_region"]) if matched else _ALIBABA_WITHOUT_REGION.get(host.rstrip("."))
    if region is None:
        return frozenset()
    names = ("dockerauth", "dockerauth-vpc", "dockerauth-ee", "dockerauth-ee-vpc")
    by_region = {f"{name}.{region}.aliyuncs.com" for name in names}
    return frozenset(by_region | ({f"dockerauth-{region}.aliyuncs.com"} if region == "cn-zhangjiakou" else set()))
