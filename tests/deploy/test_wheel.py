"""The wheel installs one top-level package, and the program works as it does from a checkout."""

import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from collections.abc import Iterator
from importlib.metadata import PathDistribution
from pathlib import Path

import pytest

from entrypoints.version import NAME, VERSION
from tests.architecture.sources import PACKAGES, files, name_of
from tests.e2e.support.cached_mirror import MIB, CacheFolder, FaultyUpstream, faulty_upstream, pull
from tests.e2e.support.plain_http import answers
from tests.e2e.support.processes import Process, free_port, running
from tests.e2e.support.service import environment
from tests.packages.served import check_page

ROOT = Path(__file__).parents[2]
INSIDE = "docker_image_proxy/_packages/"
METADATA = f"docker_image_proxy-{VERSION}.dist-info/"


def build(folder: Path, source: Path = ROOT, umask: int = 0o022) -> dict[str, Path]:
    """Build the wheel and the sdist. Returns both by their suffix."""
    argv = [sys.executable, "-m", "hatchling", "build", "-d", str(folder)]
    built = {**os.environ, "SOURCE_DATE_EPOCH": "1700000000"}
    subprocess.run(argv, cwd=source, env=built, check=True, capture_output=True, timeout=60, umask=umask)
    return {path.suffix: path for path in folder.iterdir()}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return build(tmp_path_factory.mktemp("built"))


@pytest.fixture(scope="module")
def committed() -> set[str]:
    argv = ["git", "-c", f"safe.directory={ROOT}", "ls-files", "-z"]
    try:
        listed = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=True, timeout=20).stdout
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    return {name for name in listed.split("\0") if (ROOT / name).is_file()}


@pytest.fixture(scope="module")
def installed(built: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of programs of a new environment with the wheel. The packages of the lock are those of this
    environment, to save time.
    """
    folder = tmp_path_factory.mktemp("installed")
    venv.create(folder)
    argv = [sys.executable, "-m", "pip", "--python", str(folder / "bin" / "python"), "install", "--quiet"]
    subprocess.run([*argv, "--no-index", "--no-deps", str(built[".whl"])], check=True, timeout=60)
    # The files that make this environment import the checkout do not count in a folder that another file names.
    (site_packages(folder) / "locked.pth").write_text(sysconfig.get_path("purelib"))
    return folder / "bin"


def site_packages(folder: Path) -> Path:
    [found] = folder.glob("lib/python3*/site-packages")
    return found


def output(*argv: str | Path, cwd: Path) -> str:
    """What the program prints, started in this folder without variables."""
    done = subprocess.run(
        argv, cwd=cwd, env={"LANG": "C.UTF-8"}, capture_output=True, text=True, timeout=60, check=True
    )
    return done.stdout


def test_the_wheel_has_every_module_below_one_package(built: dict[str, Path]) -> None:
    names = zipfile.ZipFile(built[".whl"]).namelist()
    assert {name.partition("/")[0] for name in names} == {"docker_image_proxy", METADATA.rstrip("/")}
    found = {name.removeprefix(INSIDE) for name in names if name.startswith(INSIDE)}
    assert {name for name in found if name.endswith(".py")} == {name_of(path) for path in files(*PACKAGES)}


def test_the_wheel_has_every_committed_data_file(built: dict[str, Path], committed: set[str]) -> None:
    names = {name.removeprefix(INSIDE) for name in zipfile.ZipFile(built[".whl"]).namelist()}
    assert {name for name in committed if name.startswith(tuple(f"{one}/" for one in PACKAGES))} - names == set()


def test_the_metadata_has_the_version_the_licence_and_the_console_script(built: dict[str, Path]) -> None:
    found = PathDistribution(zipfile.Path(built[".whl"]) / METADATA.rstrip("/"))
    assert (found.metadata["Name"], found.version, found.metadata["License-Expression"]) == (NAME, VERSION, "MIT")
    assert [(one.name, one.value) for one in found.entry_points] == [(NAME, "docker_image_proxy.__main__:main")]
    with zipfile.ZipFile(built[".whl"]) as wheel:
        assert wheel.read(f"{METADATA}licenses/LICENSE") == (ROOT / "LICENSE").read_bytes()


def test_the_description_is_the_readme(built: dict[str, Path]) -> None:
    with zipfile.ZipFile(built[".whl"]) as wheel:
        text = wheel.read(f"{METADATA}METADATA").decode()
    assert text.endswith((ROOT / "README.md").read_text(encoding="utf-8"))


def test_the_same_time_gives_the_same_bytes_in_any_folder_and_with_any_umask(
    built: dict[str, Path], tmp_path: Path
) -> None:
    subprocess.run(["tar", "-C", tmp_path, "-xf", built[".gz"]], check=True, timeout=20)
    [source] = tmp_path.iterdir()
    for path in source.rglob("*"):
        os.utime(path, (1, 1))
    again = build(tmp_path / "again", source, umask=0o077)
    assert {kind: path.name for kind, path in again.items()} == {kind: path.name for kind, path in built.items()}
    assert again[".whl"].read_bytes() == built[".whl"].read_bytes()
    assert again[".gz"].read_bytes() == built[".gz"].read_bytes()


def test_the_sdist_has_every_committed_file(built: dict[str, Path], committed: set[str]) -> None:
    with tarfile.open(built[".gz"]) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert committed - names == set()
    assert "PKG-INFO" in names


def test_an_installation_adds_one_name_to_those_that_programs_import(installed: Path, tmp_path: Path) -> None:
    added = {path.name for path in site_packages(installed.parent).iterdir()}
    assert added == {"docker_image_proxy", METADATA.rstrip("/"), "locked.pth"}
    found = output(
        installed / "python",
        "-c",
        "from importlib.util import find_spec\n"
        "import docker_image_proxy.__main__\n"
        "print([name for name in ('domain', 'application', 'adapters', 'entrypoints') if find_spec(name)])",
        cwd=tmp_path,
    )
    assert found == "[]\n"


@pytest.mark.parametrize("words", [["docker-image-proxy"], ["python", "-m", "docker_image_proxy"]])
def test_the_installed_program_knows_its_version(installed: Path, tmp_path: Path, words: list[str]) -> None:
    # Packages of the same names in the current folder are not imported.
    for name in PACKAGES:
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise SystemExit('the wrong package')")
    program, *arguments = words
    assert output(installed / program, *arguments, "--version", cwd=tmp_path) == f"{NAME} {VERSION}\n"


def test_the_installed_program_prints_the_same_help_as_the_checkout(installed: Path, tmp_path: Path) -> None:
    ours = output(sys.executable, "-m", "docker_image_proxy", "--help", cwd=ROOT)
    assert output(installed / NAME, "--help", cwd=tmp_path) == ours
    assert re.search("check-config", ours)


@pytest.fixture
def upstream(tmp_path: Path) -> Iterator[FaultyUpstream]:
    with faulty_upstream(tmp_path, tmp_path / "upstream") as running_one:
        yield running_one


def test_a_client_pulls_through_the_installed_service(
    installed: Path, upstream: FaultyUpstream, tmp_path: Path
) -> None:
    port, made, cache = free_port(), upstream.blob(3 * MIB), tmp_path / "cache"
    settings = {"CACHE_DIR": str(cache), "UPSTREAM_REGISTRY": upstream.url}
    process = Process([str(installed / NAME), "serve"], tmp_path / "service.log", environment(port, settings))
    with running(process, lambda: answers(f"http://127.0.0.1:{port}/readyz"), 30):
        check_page(f"http://127.0.0.1:{port}")
        pulled = pull(port, made.path)
        assert (pulled.status, pulled.body) == (200, made.content)
        assert CacheFolder(cache).holds(made)
    assert process.returncode == 0
