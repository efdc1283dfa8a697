"""The one list of well-known public registries: what an operator need not say of them, and which are not Docker Hub.

Most mirrors stand in for Docker Hub, whatever their own name is. A registry of this list, or on a host below one of its
names, never does, but for those in DOCKER_HUB_MIRRORS.
"""

from collections.abc import Mapping

Keys = Mapping[str, object]
"""Keys of an upstream in the settings file."""

DOCKER_HUB = "docker.io"
DOCKER_HUB_MIRRORS = frozenset({"mirror.gcr.io"})

WELL_KNOWN_REGISTRIES: Mapping[str, Keys | None] = {
    # Its API has another host than its name.
    DOCKER_HUB: {"url": "https://registry-1.docker.io", "library": True},
    "codeberg.org": {"url": "https://codeberg.org"},
    "docker.elastic.co": {"url": "https://docker.elastic.co"},
    "gcr.io": {"url": "https://gcr.io"},
    "ghcr.io": {"url": "https://ghcr.io"},
    # Redirects to GitHub's registry, whose token server it names.
    "lscr.io": {"url": "https://lscr.io", "realms": ["ghcr.io"]},
    "mcr.microsoft.com": {"url": "https://mcr.microsoft.com"},
    "nvcr.io": {"url": "https://nvcr.io"},
    "public.ecr.aws": {"url": "https://public.ecr.aws"},
    "quay.io": {"url": "https://quay.io", "search": "https://quay.io/v1/search"},
    "registry.access.redhat.com": {"url": "https://registry.access.redhat.com"},
    "registry.fedoraproject.org": {"url": "https://registry.fedoraproject.org"},
    "registry.gitlab.com": {"url": "https://registry.gitlab.com"},
    "registry.k8s.io": {"url": "https://registry.k8s.io"},
    "registry.suse.com": {"url": "https://registry.suse.com"},
    # Domains with registries of which nothing is known but that they are not Docker Hub.
    "amazonaws.com": None,
    "azurecr.io": None,
    "cgr.dev": None,
    "digitalocean.com": None,
    "ecr.aws": None,
    "elastic.co": None,
    "fedoraproject.org": None,
    "gitlab.com": None,
    "icr.io": None,
    "k8s.io": None,
    "ocir.io": None,
    "opensuse.org": None,
    "oracle.com": None,
    "pkg.dev": None,
    "redhat.com": None,
    "redhat.io": None,
    "suse.com": None,
}
"""By the name that stands in an image's reference, or the domain of several such names. None: such a domain alone."""

PRESETS: Mapping[str, Keys] = {name: keys for name, keys in WELL_KNOWN_REGISTRIES.items() if keys is not None}
"""Those whose name is enough in a settings file."""


def is_never_docker_hub(host: str) -> bool:
    """Whether the host name, in lower case, is of a well-known registry other than Docker Hub and its mirrors."""
    others = WELL_KNOWN_REGISTRIES.keys() - {DOCKER_HUB}
    return host not in DOCKER_HUB_MIRRORS and any(f".{host}".endswith(f".{name}") for name in others)
