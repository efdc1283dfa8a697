"""`scripts/test --packages` runs these tests: it builds the packages and makes a fresh system first."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.support.cached_mirror import FaultyUpstream, faulty_upstream
from tests.e2e.support.clients import Skopeo
from tests.e2e.support.images import Image, make_image
from tests.packages.bare_system import BareSystem


def pytest_runtest_setup() -> None:
    if not os.environ.get("PACKAGES") or not os.environ.get("BARE_SYSTEM"):
        pytest.skip("run: scripts/test --packages")


@pytest.fixture(scope="session")
def packages() -> Path:
    """The folder with the packages."""
    return Path(os.environ["PACKAGES"])


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BareSystem]:
    """A fresh Debian for the tests of a file."""
    root = tmp_path_factory.mktemp("system") / "root"
    subprocess.run(["cp", "-a", os.environ["BARE_SYSTEM"], root], check=True, timeout=300)
    fresh = BareSystem(root)
    # Nothing here starts services, as in a container.
    fresh.path("/usr/sbin/policy-rc.d").write_text("#!/bin/sh\nexit 101\n")
    fresh.path("/usr/sbin/policy-rc.d").chmod(0o755)
    fresh.run("apt-get", "-q", "update")
    yield fresh
    shutil.rmtree(root, ignore_errors=True)


@pytest.fixture(scope="module")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultyUpstream]:
    folder = tmp_path_factory.mktemp("upstream")
    with faulty_upstream(folder, folder / "files") as running_one:
        yield running_one


@pytest.fixture(scope="session")
def image() -> Image:
    return make_image("packages", (40_000, 1_500_000))


@pytest.fixture
def skopeo(tmp_path: Path) -> Skopeo:
    return Skopeo(tmp_path / "skopeo")
