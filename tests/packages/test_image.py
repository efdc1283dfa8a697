"""The container images for amd64 and arm64, built from a fresh Debian: what they declare, and that they serve from a
read-only file system. qemu runs the programs of the image for arm64.
"""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from entrypoints.version import VERSION
from tests.e2e.support.cached_mirror import FaultyUpstream
from tests.e2e.support.clients import Skopeo
from tests.e2e.support.images import Image
from tests.e2e.support.plain_http import answers
from tests.e2e.support.processes import SEARCH_PATH, Process, free_port, running
from tests.packages.bare_system import BareSystem, run
from tests.packages.served import check_service

QEMU = "qemu-aarch64-static"
MACHINES = {"amd64": 62, "arm64": 183}
"""The architectures, and the machines that their ELF files name (`e_machine`, elf(5))."""

pytestmark = [pytest.mark.timeout(1800), pytest.mark.real("skopeo", "unshare", "buildah", "mmdebstrap", QEMU)]

ROOT = Path(__file__).parents[2]
USER = 10001
STORAGE = '[storage]\ndriver = "vfs"\ngraphroot = "{0}/graph"\nrunroot = "{0}/run"\n'
LARGEST = 160
"""MiB that the image adds to its base."""


@dataclass(frozen=True)
class Storage:
    """Where buildah keeps the images of these tests."""

    environment: dict[str, str]

    def buildah(self, *words: str | Path) -> str:
        return run(["buildah", *words], self.environment).strip()


@dataclass(frozen=True)
class Built:
    architecture: str
    config: dict[str, Any]
    system: BareSystem

    def argv(self, words: list[str]) -> list[str]:
        """The command line of a program of the image as its user, with a read-only file system."""
        drop = ["--no-new-privs", "--inh-caps=-all", "--bounding-set=-all", "--clear-groups"]
        user = ["/usr/bin/setpriv", f"--reuid={USER}", f"--regid={USER}", *drop]
        return self.system.argv(*self._emulated(user), *self._emulated(words), read_only=True)

    def _emulated(self, words: list[str]) -> list[str]:
        """The kernel cannot start a program for arm64 or a script for its Python, but qemu can start the program. What
        is forked from it needs no other qemu.
        """
        if self.architecture == "amd64":
            return words
        with self.system.path(words[0]).open("rb") as program:
            first = program.readline()
        interpreter = [first[2:].decode().strip()] if first.startswith(b"#!") else []
        return [f"/usr/bin/{QEMU}", *interpreter, *words]

    def variables(self, **more: str) -> dict[str, str]:
        return {**dict(one.split("=", 1) for one in self.config["config"]["Env"]), **more}


@pytest.fixture(scope="module")
def storage(system: BareSystem, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Storage]:
    """The images for both architectures, in one list."""
    folder = tmp_path_factory.mktemp("storage")
    (folder / "storage.conf").write_text(STORAGE.format(folder))
    environment = {**os.environ, "PATH": SEARCH_PATH, "CONTAINERS_STORAGE_CONF": f"{folder}/storage.conf"}
    environment |= {"BUILDAH_ISOLATION": "chroot", "BASE": "localhost/base"}
    made = Storage(environment)
    system.install("python3", "python3-venv", "ca-certificates")
    system.run("apt-get", "clean")
    made.buildah("manifest", "create", "localhost/base")
    for architecture, root in (("amd64", system.root), ("arm64", unpacked_system(folder / "arm64"))):
        base = made.buildah("from", "--arch", architecture, "scratch")
        made.buildah("copy", "--quiet", base, root, "/")
        made.buildah("commit", "--quiet", "--rm", "--manifest", "localhost/base", base)
    run(["sh", ROOT / "scripts" / "package", "--into", folder / "packages", "images"], environment)
    yield made
    subprocess.run(["buildah", "rm", "--all"], env=environment, capture_output=True, check=False, timeout=120)


def unpacked_system(folder: Path) -> Path:
    """A Debian for arm64 whose packages are unpacked, but not configured: their scripts cannot run here."""
    hook = "--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr"
    packages = "--include=base-files,python3,util-linux"
    suite = os.environ.get("BARE_SUITE", "bookworm")
    run(["mmdebstrap", "--quiet", "--arch=arm64", "--variant=extract", packages, hook, suite, folder])
    return folder


@pytest.fixture(scope="module", params=sorted(MACHINES))
def built(request: pytest.FixtureRequest, storage: Storage) -> Built:
    architecture: str = request.param
    name = f"localhost/docker-image-proxy:{VERSION}"
    container = storage.buildah("from", "--pull-never", "--arch", architecture, name)
    config = json.loads(storage.buildah("inspect", container))["Docker"]
    root = BareSystem(Path(storage.buildah("mount", container)))
    if architecture == "arm64":
        shutil.copy(f"/usr/bin/{QEMU}", root.path("/usr/bin"))
    return Built(architecture, config, root)


def test_every_program_and_library_of_the_image_is_for_its_machine(built: Built) -> None:
    assert built.config["architecture"] == built.architecture
    found = [built.system.path("/usr/bin/python3").resolve(), *built.system.path("/opt/venv").rglob("*.so")]
    assert len(found) > 10
    assert {int.from_bytes(path.read_bytes()[18:20], "little") for path in found} == {MACHINES[built.architecture]}


def test_the_image_has_every_package_of_the_lock_with_its_version(built: Built) -> None:
    lines = re.findall(r"^([a-z0-9-]+)==(\S+)( ;)?", (ROOT / "requirements/runtime.lock").read_text(), re.MULTILINE)
    locked = {f"{name}-{version}" for name, version, _ in lines}
    some = {f"{name}-{version}" for name, version, condition in lines if condition}
    found = {path.name for path in built.system.path("/opt/venv").glob("lib/*/site-packages/*.dist-info")}
    installed = {name.removesuffix(".dist-info").lower().replace("_", "-") for name in found}
    assert installed - locked == {f"docker-image-proxy-{VERSION}"}
    assert locked - installed <= some  # Python 3.12 does without a package that 3.11 needs


def test_the_image_declares_its_user_its_volume_and_its_health_check(built: Built) -> None:
    config = built.config["config"]
    assert config["User"] == f"{USER}:{USER}"
    assert list(config["Volumes"]) == ["/var/lib/docker-image-proxy"]
    assert list(config["ExposedPorts"]) == ["5000/tcp"]
    assert config["Healthcheck"]["Test"][0] == "CMD"
    labels = config["Labels"]
    assert labels["org.opencontainers.image.version"] == VERSION
    assert labels["org.opencontainers.image.licenses"] == "MIT"
    assert len(labels["org.opencontainers.image.revision"]) == 40


def test_the_image_is_small_and_has_no_tools_to_build_or_install(built: Built) -> None:
    added = [path for path in built.system.path("/opt").rglob("*") if path.is_file() and not path.is_symlink()]
    assert sum(path.stat().st_size for path in added) < LARGEST * 2**20
    assert [path.name for path in built.system.path("/opt").iterdir()] == ["venv"]
    names = {path.name.partition("-")[0] for path in built.system.path("/opt/venv").rglob("*.dist-info")}
    assert names & {"pip", "hatchling"} == set()
    assert "docker_image_proxy" in names
    assert not built.system.path("/src").exists() or not any(built.system.path("/src").iterdir())


def test_only_the_cache_belongs_to_the_user(built: Built) -> None:
    owned = run(["find", built.system.root, "-xdev", "-uid", str(USER), "-printf", "/%P %m\\n"])
    assert owned.split("\n")[:-1] == ["/var/lib/docker-image-proxy 700"]


def test_a_client_pulls_through_the_container(
    built: Built, upstream: FaultyUpstream, image: Image, skopeo: Skopeo, tmp_path: Path
) -> None:
    port = free_port()
    config = built.config["config"]
    more = {"HOST": "127.0.0.1", "PORT": str(port), "UPSTREAM_REGISTRY": upstream.url}
    argv = built.argv([*config["Entrypoint"], *config["Cmd"]])
    check_service(argv, built.variables(**more), port, tmp_path / "log", upstream, image, skopeo)


def test_the_health_check_tells_a_service_that_answers_from_one_that_does_not(
    built: Built, upstream: FaultyUpstream, tmp_path: Path
) -> None:
    port = free_port()
    config = built.config["config"]
    variables = built.variables(HOST="127.0.0.1", PORT=str(port), UPSTREAM_REGISTRY=upstream.url)

    def status() -> int:
        argv = built.argv(config["Healthcheck"]["Test"][1:])
        return subprocess.run(argv, env=variables, capture_output=True, check=False, timeout=120).returncode

    assert status() == 1
    process = Process(built.argv([*config["Entrypoint"], *config["Cmd"]]), tmp_path / "log", variables)
    with running(process, lambda: answers(f"http://127.0.0.1:{port}/readyz"), 180):  # under qemu, Python starts slowly
        assert status() == 0
