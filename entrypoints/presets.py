"""What is known of well-known public registries, so that an operator need only name them."""

from collections.abc import Mapping

PRESETS: Mapping[str, Mapping[str, object]] = {
    # Its API has another host than its name.
    "docker.io": {"url": "https://registry-1.docker.io", "library": True},
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
}
"""By the name that stands in an image's reference: the keys of an upstream in the settings file."""
