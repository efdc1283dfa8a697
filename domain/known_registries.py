"""The well-known public registries and their defaults, and the registries that never stand for Docker Hub."""

from domain.value import Value


class KnownRegistry(Value, frozen=True):
    """`name`: the first part of image references. `hosts`: all host names of the registry, if it has several. `search`:
    its v1 search endpoint. `realms`: further hosts to which the mirror may send its logins. `has_library`: a name of
    one segment means `library/<name>`.
    """

    name: str
    host: str = ""
    hosts: frozenset[str] = frozenset()
    search: str | None = None
    realms: tuple[str, ...] = ()
    has_library: bool = False

    @property
    def url(self) -> str:
        return f"https://{self.host or self.name}"


DOCKER_HUB = KnownRegistry(
    "docker.io",
    host="registry-1.docker.io",
    hosts=frozenset({"docker.io", "index.docker.io", "registry-1.docker.io", "registry.hub.docker.com"}),
    search="https://index.docker.io/v1/search",
    has_library=True,
)
KNOWN_REGISTRIES = {
    one.name: one
    for one in (
        DOCKER_HUB,
        KnownRegistry("codeberg.org"),
        KnownRegistry("docker.elastic.co"),
        KnownRegistry("gcr.io"),
        KnownRegistry("ghcr.io"),
        KnownRegistry(
            "lscr.io", realms=("ghcr.io",)
        ),  # it redirects to GitHub's registry, which names its token server
        KnownRegistry("mcr.microsoft.com"),
        KnownRegistry("nvcr.io"),
        KnownRegistry("public.ecr.aws"),
        KnownRegistry("quay.io", search="https://quay.io/v1/search"),
        KnownRegistry("registry.access.redhat.com"),
        KnownRegistry("registry.fedoraproject.org"),
        KnownRegistry("registry.gitlab.com"),
        KnownRegistry("registry.k8s.io"),
        KnownRegistry("registry.suse.com"),
    )
}
"""By name. In a settings file, the name alone configures the registry."""

OTHER_DOMAINS = frozenset(
    {
        "amazonaws.com",
        "azurecr.io",
        "cgr.dev",
        "digitalocean.com",
        "ecr.aws",
        "elastic.co",
        "fedoraproject.org",
        "gitlab.com",
        "icr.io",
        "k8s.io",
        "ocir.io",
        "opensuse.org",
        "oracle.com",
        "pkg.dev",
        "redhat.com",
        "redhat.io",
        "suse.com",
    }
)
"""Domains of further registries that are not Docker Hub."""
_DOCKER_HUB_MIRRORS = frozenset({"mirror.gcr.io"})


def is_never_docker_hub(host: str) -> bool:
    """Whether the host name, in lower case, is that of a well-known registry other than Docker Hub, or below it. An
    upstream with any other name may be a mirror of Docker Hub.
    """
    others = KNOWN_REGISTRIES.keys() - {DOCKER_HUB.name} | OTHER_DOMAINS
    return host not in _DOCKER_HUB_MIRRORS and any(f".{host}".endswith(f".{name}") for name in others)
