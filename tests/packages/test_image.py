"""The container image, built from a fresh Debian: what it declares, and that it serves from a read-only file system."""

import json
import os
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

pytestmark = [pytest.mark.real("skopeo", "unshare", "buildah"), pytest.mark.timeout(1800)]

ROOT = Path(__file__).parents[2]
USER = 10001
STORAGE = '[storage]\ndriver = "vfs"\ngraphroot = "{0}/graph"\nrunroot = "{0}/run"\n'
LARGEST = 160
"""MiB that the image adds to its base."""


@dataclass(frozen=True)
class Built:
    environment: dict[str, str]
    config: dict[str, Any]
    system: BareSystem

    def argv(self, words: list[str]) -> list[str]:
        """The command line of a program of the image as its user, with a read-only file system."""
        drop = ["--no-new-privs", "--inh-caps=-all", "--bounding-set=-all", "--clear-groups"]
        return self.system.argv("setpriv", f"--reuid={USER}", f"--regid={USER}", *drop, *words, read_only=True)

    def variables(self, **more: str) -> dict[str, str]:
        return {**dict(one.split("=", 1) for one in self.config["config"]["Env"]), **more}


@pytest.fixture(scope="module")
def built(system: BareSystem, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Built]:
    folder = tmp_path_factory.mktemp("storage")
    (folder / "storage.conf").write_text(STORAGE.format(folder))
    environment = {**os.environ, "PATH": SEARCH_PATH, "CONTAINERS_STORAGE_CONF": f"{folder}/storage.conf"}
    environment |= {"BUILDAH_ISOLATION": "chroot", "BASE": "localhost/base"}

    def buildah(*words: str | Path) -> str:
        return run(["buildah", *words], environment).strip()

    system.install("python3", "python3-venv", "ca-certificates")
    system.run("apt-get", "clean")
    base = buildah("from", "scratch")
    buildah("copy", "--quiet", base, system.root, "/")
    buildah("commit", "--quiet", base, "base")
    buildah("rm", base)
    run(["sh", ROOT / "scripts" / "package", "--into", folder / "packages", "image"], environment)
    container = buildah("from", "--pull-never", f"localhost/docker-image-proxy:{VERSION}")
    config = json.loads(buildah("inspect", "--type", "image", "localhost/docker-image-proxy:latest"))["Docker"]
    yield Built(environment, config, BareSystem(Path(buildah("mount", container))))
    subprocess.run(["buildah", "rm", "--all"], env=environment, capture_output=True, check=False, timeout=120)


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


def test_the_image_is_small_and_has_no_tools_to_build_or_install(built: Built, system: BareSystem) -> None:
    added = [path for path in built.system.path("/opt").rglob("*") if path.is_file() and not path.is_symlink()]
    assert sum(path.stat().st_size for path in added) < LARGEST * 2**20
    assert [path.name for path in built.system.path("/opt").iterdir()] == ["venv"]
    names = {path.name.partition("-")[0] for path in built.system.path("/opt/venv").rglob("*.dist-info")}
    assert names & {"pip", "hatchling"} == set()
    assert "docker_image_proxy" in names
    assert not built.system.path("/src").exists() or not any(built.system.path("/src").iterdir())
    assert system.root != built.system.root


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
        return subprocess.run(argv, env=variables, capture_output=True, check=False, timeout=30).returncode

    assert status() == 1
    process = Process(built.argv([*config["Entrypoint"], *config["Cmd"]]), tmp_path / "log", variables)
    with running(process, lambda: answers(f"http://127.0.0.1:{port}/readyz"), 60):
        assert status() == 0
