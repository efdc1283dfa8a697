"""Configuration and commands for the clients of the mirror, for the address and the registries of one mirror.

They are those of docs/guides/clients. A test compares them.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain

from domain.value import Value

DOCKER_HUB = "docker.io"
_LOCAL = frozenset({"localhost", "127.0.0.1", "[::1]"})


class Registry(Value, frozen=True):
    """A mirrored registry. `name`: the first part of image references, such as `quay.io`; `server`: the address that a
    client asks without the mirror; `prefix`: the name by which the mirror finds it in the path of an image, "" for the
    first registry, which needs none.
    """

    name: str
    server: str
    prefix: str = ""


@dataclass(frozen=True)
class Image:
    """`repository`: the name in the registry; `reference`: `:TAG` or `@DIGEST`."""

    registry: Registry
    repository: str
    reference: str

    @property
    def at_registry(self) -> str:
        """As clients name the image if they know the mirror from their configuration."""
        return f"{self.registry.name}/{self.repository}{self.reference}"

    @property
    def short(self) -> str:
        """As people name it for docker, which adds the registry and `library/`."""
        if self.registry.name != DOCKER_HUB:
            return self.at_registry
        return f"{self.repository.removeprefix('library/')}{self.reference}"

    @property
    def at_mirror(self) -> str:
        """The path of the image at the mirror."""
        prefix = f"{self.registry.prefix}/" if self.registry.prefix else ""
        return f"{prefix}{self.repository}{self.reference}"


@dataclass(frozen=True)
class Mirror:
    """The mirror as its clients see it. `host`: with the port, if it is not the default; `registries`: the first serves
    requests that name none; `has_accounts`: it serves nothing without a login.
    """

    host: str
    is_tls: bool
    registries: tuple[Registry, ...]
    has_accounts: bool = False

    @property
    def address(self) -> str:
        return f"{'https' if self.is_tls else 'http'}://{self.host}"

    @property
    def is_local(self) -> bool:
        """Whether clients take plain HTTP from it without a setting."""
        return self.host.rpartition(":")[0] in _LOCAL or self.host in _LOCAL


class Step(Value, frozen=True):
    """A text to copy. `meaning`: the key of the text that says what it is for; `place`: the file that it belongs into,
    "" for commands.
    """

    meaning: str
    text: str
    place: str = ""


def docker(mirror: Mirror, image: Image) -> Iterator[Step]:
    """`registry-mirrors` works for Docker Hub only, and only if it is the mirror's first registry. It never uses the
    accounts of the mirror.
    """
    is_plain = not mirror.is_tls and not mirror.is_local
    uses_hub = mirror.registries[0].name == DOCKER_HUB and not mirror.has_accounts
    if uses_hub:
        daemon = f'{{\n  "registry-mirrors": ["{mirror.address}"]\n}}\n'
        yield Step("docker_hub", daemon, "/etc/docker/daemon.json")
        yield Step("restart", "sudo systemctl restart docker\n")
        if image.registry.name == DOCKER_HUB:
            yield Step("pull", f"docker pull {image.short}\n")
    if is_plain:
        daemon = f'{{\n  "insecure-registries": ["{mirror.host}"]\n}}\n'
        yield Step("docker_insecure", daemon, "/etc/docker/daemon.json")
    if mirror.has_accounts:
        yield Step("login", f"docker login {mirror.host}\n")
    yield Step("or_by_name" if uses_hub else "by_name", f"docker pull {mirror.host}/{image.at_mirror}\n")


def containerd(mirror: Mirror, image: Image) -> Iterator[Step]:
    """One folder for each registry."""
    yield from _hosts_files(mirror, image)
    yield Step("check", f"ctr images pull --hosts-dir /etc/containerd/certs.d {image.at_registry}\n")


def nerdctl(mirror: Mirror, image: Image) -> Iterator[Step]:
    """The files of containerd, which nerdctl reads."""
    yield from _hosts_files(mirror, image)
    yield Step("pull", f"nerdctl pull {image.short}\n")


def podman(mirror: Mirror, image: Image) -> Iterator[Step]:
    """The path of the mirror names the registry, because podman does not."""
    insecure = "" if mirror.is_tls else "insecure = true\n"
    search = 'unqualified-search-registries = ["docker.io"]\n\n' if _has_docker_hub(mirror) else ""
    tables = [
        f'[[registry]]\nprefix = "{one.name}"\nlocation = "{one.name}"\n\n'
        f'[[registry.mirror]]\nlocation = "{mirror.host}{f"/{one.prefix}" if one.prefix else ""}"\n{insecure}'
        for one in mirror.registries
    ]
    yield Step("configure", search + "\n".join(tables), "/etc/containers/registries.conf")
    if mirror.has_accounts:
        yield Step("login", f"podman login {'' if mirror.is_tls else '--tls-verify=false '}{mirror.host}\n")
    yield Step("pull", f"podman pull {image.at_registry}\n")


def k3s(mirror: Mirror, image: Image) -> Iterator[Step]:
    entries = "".join(f'  {one.name}:\n    endpoint:\n      - "{mirror.address}"\n' for one in mirror.registries)
    login = (
        f'configs:\n  "{mirror.host}":\n    auth:\n      username: alice\n      password: secret\n'
        if mirror.has_accounts
        else ""
    )
    yield Step("configure", f"mirrors:\n{entries}{login}", "/etc/rancher/k3s/registries.yaml")
    yield Step("restart", "sudo systemctl restart k3s\n")
    yield Step("check", f"sudo k3s crictl pull {image.at_registry}\n")


def buildkit(mirror: Mirror, image: Image) -> Iterator[Step]:
    tables = [f'[registry."{one.name}"]\n  mirrors = ["{mirror.host}"]\n' for one in mirror.registries]
    if not mirror.is_tls:
        tables.append(f'[registry."{mirror.host}"]\n  http = true\n')
    yield Step("configure", "\n".join(tables), "buildkitd.toml")
    if mirror.has_accounts:
        yield Step("login", f"docker login {mirror.host}\n")
    create = "docker buildx create --name mirrored --driver docker-container --buildkitd-config buildkitd.toml --use\n"
    yield Step("builder", create)
    yield Step("check", f"echo 'FROM {image.at_registry}' | docker buildx build --builder mirrored --pull -\n")


def crane(mirror: Mirror, image: Image) -> Iterator[Step]:
    """Commands only: crane has no configuration for mirrors."""
    if mirror.has_accounts:
        yield Step("login", f"crane auth login {mirror.host} -u alice --password-stdin < password.txt\n")
    insecure = "" if mirror.is_tls else "--insecure "
    name = f"{mirror.host}/{image.at_mirror}"
    file = image.repository.rpartition("/")[2]
    yield Step("by_name", f"crane digest {insecure}{name}\ncrane pull {insecure}{name} {file}.tar\n")


CLIENTS: dict[str, Callable[[Mirror, Image], Iterator[Step]]] = {
    "docker": docker,
    "containerd": containerd,
    "nerdctl": nerdctl,
    "podman": podman,
    "k3s": k3s,
    "BuildKit": buildkit,
    "crane": crane,
}


def _hosts_files(mirror: Mirror, image: Image) -> Iterator[Step]:
    """The file of the image's registry first."""
    others = (one for one in mirror.registries if one != image.registry)
    login = f'  [host."{mirror.address}".header]\n    Authorization = ["Basic YWxpY2U6c2VjcmV0"]\n'
    for number, one in enumerate(chain([image.registry], others)):
        text = f'server = "{one.server}"\n\n[host."{mirror.address}"]\n  capabilities = ["pull", "resolve"]\n'
        yield Step(
            "configure" if number == 0 else "configure_also",
            text + (login if mirror.has_accounts else ""),
            f"/etc/containerd/certs.d/{one.name}/hosts.toml",
        )


def _has_docker_hub(mirror: Mirror) -> bool:
    return any(one.name == DOCKER_HUB for one in mirror.registries)
