"""pipx and uv install the wheel."""

import os
import shutil
from pathlib import Path

import pytest

from entrypoints.version import VERSION
from tests.e2e.support.cached_mirror import FaultyUpstream
from tests.e2e.support.clients import Skopeo
from tests.e2e.support.images import Image
from tests.e2e.support.processes import free_port
from tests.packages.bare_system import HOME, BareSystem, run
from tests.packages.served import check_service

pytestmark = [pytest.mark.real("skopeo", "unshare"), pytest.mark.timeout(1200)]

PROGRAM = f"{HOME}/.local/bin/docker-image-proxy"
SETTINGS = f"{HOME}/mirror.toml"


def test_a_client_pulls_through_the_wheel_that_pipx_has_installed(
    system: BareSystem, packages: Path, upstream: FaultyUpstream, image: Image, skopeo: Skopeo, tmp_path: Path
) -> None:
    [wheel] = packages.glob("*.whl")
    shutil.copy(wheel, system.path(HOME))
    system.install("pipx", "ca-certificates")
    system.run("pipx", "install", f"{HOME}/{wheel.name}")
    assert system.run(PROGRAM, "--version").strip() == f"docker-image-proxy {VERSION}"
    port = free_port()
    system.run(PROGRAM, "init", "--yes", "--registry", upstream.url, "--host", "127.0.0.1", "--port", str(port),
               SETTINGS)  # fmt: skip
    assert system.run(PROGRAM, "--config", SETTINGS, "check-config").startswith(f"ok: {upstream.url}")
    traces = ("env", "OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:9", PROGRAM, "--config", SETTINGS)
    assert "install docker-image-proxy[otel]" in system.run(*traces, "check-config", check=False)
    system.run("pipx", "install", "--force", f"{HOME}/{wheel.name}[otel]")
    assert system.run(*traces, "check-config").startswith(f"ok: {upstream.url}")
    argv = system.argv(*traces, "serve")
    check_service(argv, system.environment(), port, tmp_path / "log", upstream, image, skopeo)


@pytest.mark.parametrize("words", [["uv", "tool", "run"], ["uvx"]])
def test_uv_runs_the_wheel_without_an_installation(packages: Path, tmp_path: Path, words: list[str]) -> None:
    [wheel] = packages.glob("*.whl")
    program, *more = words
    tools = Path(__file__).parents[2] / "build" / "package-tools" / "bin"  # scripts/package has made it
    environment = {**os.environ, "UV_TOOL_DIR": str(tmp_path), "UV_PYTHON_DOWNLOADS": "never"}
    said = run([tools / program, *more, "--quiet", "--from", wheel, "docker-image-proxy", "--version"], environment)
    assert said.strip() == f"docker-image-proxy {VERSION}"
