"""Reads the name of an image as people type or paste it."""

import re
from dataclasses import replace

from domain.digest import Digest
from domain.errors import NameUnknown, RegistryError
from domain.known_registries import DOCKER_HUB, KNOWN_REGISTRIES
from domain.names import Reference, RepositoryName
from domain.upstream_table import RegistryHint, UpstreamTable
from domain.upstreams import Source, Upstream
from entrypoints.http.page.client_configurations import Image, Registry

_SCHEME = re.compile(r"^(?:https?|docker|oci)://")
_WEB_PAGES = (
    (re.compile(r"^hub\.docker\.com/_/([^/]+).*"), r"docker.io/library/\1"),
    (re.compile(r"^hub\.docker\.com/r/([^/]+/[^/]+).*"), r"docker.io/\1"),
    (re.compile(r"^quay\.io/repository/([^/]+/[^/?]+).*"), r"quay.io/\1"),
)
_EXAMPLES = {
    "docker.io": ("library/nginx", ":latest"),
    "quay.io": ("prometheus/busybox", ":latest"),
    "registry.k8s.io": ("pause", ":3.10"),
    "mcr.microsoft.com": ("hello-world", ":latest"),
}
_EXAMPLE = ("team/app", ":1")


def registries_of(table: UpstreamTable, hint: RegistryHint) -> dict[Upstream, Registry]:
    """The registries that clients reach under the host name of the hint, the default first."""
    default, *others = table.upstreams_of(hint)
    return {default: _registry(default, "")} | {one: _registry(one, _prefix(one)) for one in others}


def _registry(upstream: Upstream, prefix: str) -> Registry:
    if upstream.names & DOCKER_HUB.hosts:
        return Registry(DOCKER_HUB.name, DOCKER_HUB.url, prefix)
    # A name without a dot or a port is a part of a repository's name to clients.
    name = upstream.name if re.search(r"[.:]", upstream.name) else replace(upstream, title="").name
    is_own = name in {upstream.origin.host, upstream.origin.authority}
    server = f"{upstream.origin.scheme}://{name}" if is_own else f"https://{name}"
    return Registry(name, KNOWN_REGISTRIES[name].url if name in KNOWN_REGISTRIES else server, prefix)


def _prefix(upstream: Upstream) -> str:
    """A name of the upstream that can be a part of an image's name, which contains no colon."""
    names = [upstream.name, *sorted(upstream.names)]
    return next((name for name in names if ":" not in name), upstream.name)


def example_of(registry: Registry) -> Image:
    """An image for a viewer who has named none."""
    return Image(registry, *_EXAMPLES.get(registry.name, _EXAMPLE))


def parse_image(text: str, table: UpstreamTable, hint: RegistryHint, mirror_host: str) -> tuple[Source, Reference]:
    """The source of the image, and its tag or digest. See parse_request."""
    name, hint, reference = parse_request(text, table, hint, mirror_host)
    return table.source_of(name, hint), reference


def parse_request(
    text: str, table: UpstreamTable, hint: RegistryHint, mirror_host: str
) -> tuple[RepositoryName, RegistryHint, Reference]:
    """The name and the hint of a request for the image, and its tag or digest. Takes a name, a reference, a command
    such as `docker pull nginx`, a line of a Dockerfile, and addresses of Docker Hub and Quay. Without a registry, it is
    Docker Hub as for docker, or else the default.

    Raises NameUnknown for a registry that is not mirrored, and another RegistryError for what is not an image.
    """
    name = _SCHEME.sub("", _word(text)).removeprefix(f"{mirror_host}/")
    for page, image in _WEB_PAGES:
        name = page.sub(image, name)
    name, reference = _split(name)
    first, slash, rest = name.partition("/")
    if slash and _is_registry(first):
        hint, name = RegistryHint(hint.group, table.hint_of(namespace=first).upstream), rest
        if hint.upstream not in table.upstreams_of(hint):
            raise NameUnknown("this registry is not mirrored here", detail={"registry": first[:128]})
    elif not any(first in one.names for one in table.upstreams_of(hint)):
        hub = next((one for one in table.upstreams_of(hint) if one.names & DOCKER_HUB.hosts), None)
        hint = RegistryHint(hint.group, hub)
    return RepositoryName(name), hint, reference


def _word(text: str) -> str:
    words = [word for word in text.split() if not word.startswith("-")] or [""]
    if words[0].lower() == "from" and len(words) > 1:
        return words[1]
    return words[-1]


def _split(name: str) -> tuple[str, Reference]:
    """Split what a person typed into the name and the reference. Without a tag and a digest, the reference is the tag
    `latest`; with both, it is the digest, as in docker. Raises TagInvalid or DigestInvalid.
    """
    name, at, digest = name.partition("@")
    head, colon, tag = name.rpartition(":")
    if not colon or "/" in tag:
        head, tag = name, "latest"
    if at:
        return head, Reference(Digest.parse(digest))
    return head, Reference.parse(tag)


def _is_registry(first: str) -> bool:
    """As docker decides it (distribution/reference, normalize.go)."""
    return "." in first or ":" in first or first == "localhost" or first != first.lower()


def problem_of(error: RegistryError) -> str:
    """The key of the text that says what is wrong with the name."""
    return "use_it.not_mirrored" if isinstance(error, NameUnknown) else "use_it.not_an_image"
