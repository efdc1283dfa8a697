"""The Debian package on a fresh system: installed, used, upgraded, removed and purged."""

import re
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

# The tests follow each other: each continues with the system of the one before.
pytestmark = [pytest.mark.real("skopeo", "unshare", "dpkg-deb"), pytest.mark.timeout(1200)]

NAME = "docker-image-proxy"
SETTINGS = "/etc/docker-image-proxy/mirror.toml"
LIBRARIES = "/usr/lib/docker-image-proxy"
UNIT = "/usr/lib/systemd/system/docker-image-proxy.service"
CACHE = "/var/lib/docker-image-proxy"


@pytest.fixture(scope="module")
def package(packages: Path) -> Path:
    return packages / f"{NAME}_{VERSION}_amd64.deb"


def give(system: BareSystem, package: Path) -> str:
    shutil.copy(package, system.path(HOME))
    return f"{HOME}/{package.name}"


def status(system: BareSystem) -> str:
    return system.run("dpkg-query", "-W", "-f", "${db:Status-Abbrev}", NAME, check=False).strip()


def as_the_unit(system: BareSystem) -> list[str]:
    """The command line of the unit, as its user and with its folders. systemd does not run here."""
    unit = system.path(UNIT).read_text()
    [command] = re.findall(r"^ExecStart=(.*)$", unit, re.MULTILINE)
    [user] = re.findall(r"^User=(.*)$", unit, re.MULTILINE)
    drop = ["--no-new-privs", "--inh-caps=-all", "--bounding-set=-all", "--clear-groups"]
    return system.argv("setpriv", f"--reuid={user}", f"--regid={user}", *drop, *command.split(), read_only=True)


def test_apt_installs_it_with_the_user_the_folders_and_the_unit(system: BareSystem, package: Path) -> None:
    system.install(give(system, package))
    assert status(system) == "ii"
    assert system.run("docker-image-proxy", "--version").strip() == f"{NAME} {VERSION}"
    assert system.run("stat", "-c", "%U %G %a", CACHE).split() == [NAME, NAME, "700"]
    assert system.run("stat", "-c", "%U %G %a", str(Path(SETTINGS).parent)).split() == ["root", NAME, "750"]
    passwd = system.run("getent", "passwd", NAME).strip().split(":")
    assert passwd[5:] == [CACHE, "/usr/sbin/nologin"]
    assert system.path("/etc/systemd/system/multi-user.target.wants").joinpath(f"{NAME}.service").is_symlink()


def test_it_installs_nothing_where_programs_look_for_libraries(package: Path) -> None:
    names = run(["dpkg-deb", "-c", package])
    assert "dist-packages" not in names
    assert f".{LIBRARIES}/docker_image_proxy/__main__.py" in names
    owners = {line.split()[1] for line in names.splitlines()}
    assert owners == {"root/root"}


def test_a_client_pulls_through_the_service_of_the_unit(
    system: BareSystem, upstream: FaultyUpstream, image: Image, skopeo: Skopeo, tmp_path: Path
) -> None:
    port = free_port()
    file = system.path(SETTINGS)
    text = file.read_text().replace("#port = 8080", f"port = {port}").replace('#host = "0.0.0.0"', 'host = "127.0.0.1"')
    file.write_text(text.replace('name = "docker.io"', f'url = "{upstream.url}"'))
    environment = {"PATH": "/usr/bin:/bin:/usr/sbin", "HOME": CACHE}
    check_service(as_the_unit(system), environment, port, tmp_path / "log", upstream, image, skopeo)


def test_the_user_of_the_service_can_use_the_commands(system: BareSystem) -> None:
    words = ["setpriv", f"--reuid={NAME}", f"--regid={NAME}", "--clear-groups", NAME, "--config", SETTINGS]
    assert "0 B" not in system.run(*words, "cache", "stats").splitlines()[0]
    assert "e2e/cached" in system.run(*words, "cache", "ls")


def test_an_upgrade_keeps_the_changed_settings_and_the_cache_and_removes_old_modules(
    system: BareSystem, package: Path, tmp_path: Path
) -> None:
    run(["dpkg-deb", "-R", package, tmp_path / "next"])
    control = tmp_path / "next" / "DEBIAN" / "control"
    control.write_text(re.sub(r"^Version: .*$", "Version: 99.0.0", control.read_text(), flags=re.MULTILINE))
    shutil.rmtree(tmp_path / "next" / LIBRARIES.lstrip("/") / "tracerite")
    with (tmp_path / "next" / SETTINGS.lstrip("/")).open("a") as new:
        new.write("# A line of the next version\n")
    run(["dpkg-deb", "-Znone", "-b", tmp_path / "next", tmp_path / "next.deb"])
    before = system.path(SETTINGS).read_text()
    cached = system.run("du", "-s", CACHE)
    keep = ("-o", "Dpkg::Options::=--force-confold")
    system.run("apt-get", "-q", "-y", *keep, "install", give(system, tmp_path / "next.deb"))
    assert system.run("dpkg-query", "-W", "-f", "${Version}", NAME) == "99.0.0"
    assert system.path(SETTINGS).read_text() == before
    assert "A line of the next version" in system.path(f"{SETTINGS}.dpkg-dist").read_text()
    assert system.run("du", "-s", CACHE) == cached
    assert not system.path(f"{LIBRARIES}/tracerite").exists()


def test_a_removal_keeps_the_settings_and_the_cache(system: BareSystem) -> None:
    system.run("apt-get", "-q", "-y", "remove", NAME)
    assert status(system) == "rc"
    assert not system.path(LIBRARIES).exists()
    assert not system.path("/usr/bin/docker-image-proxy").exists()
    assert system.path(SETTINGS).exists()
    assert system.path(f"{CACHE}/content").is_dir()


def test_a_purge_removes_all_but_the_user(system: BareSystem) -> None:
    system.run("apt-get", "-q", "-y", "purge", NAME)
    assert status(system) in {"", f"dpkg-query: no packages found matching {NAME}", "un"}
    left = [f"/{path.relative_to(system.root)}" for path in system.root.rglob(f"*{NAME}*")]
    assert [path for path in left if not path.endswith(".deb") and not path.startswith(("/var/cache/", HOME))] == []
    assert system.run("getent", "passwd", NAME).startswith(NAME)


def test_the_package_for_arm64_has_the_same_files_but_for_the_machine(packages: Path, package: Path) -> None:
    other = package.with_name(package.name.replace("amd64", "arm64"))
    names = [{line.split()[5] for line in run(["dpkg-deb", "-c", one]).splitlines()} for one in (package, other)]
    plain = [{re.sub(r"x86_64|aarch64", "MACHINE", name) for name in found} for found in names]
    assert plain[0] == plain[1]
    assert [one for one in names[1] if "x86_64" in one] == []
    assert run(["dpkg-deb", "-f", other, "Architecture"]).strip() == "arm64"


def test_the_package_is_reproducible(packages: Path, package: Path) -> None:
    again = packages / "again" / package.name
    assert again.read_bytes() == package.read_bytes()
