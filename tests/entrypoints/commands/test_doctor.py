"""What doctor reports, with a working registry and with problems."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from domain.digest import Digest
from entrypoints.cli import main
from tests.entrypoints.plain_server import served
from tests.fakes.htpasswd import lines_of, write

MEDIA_TYPE = "application/vnd.oci.image.manifest.v1+json"
MANIFEST = json.dumps({"schemaVersion": 2, "mediaType": MEDIA_TYPE}).encode()
DIGEST = Digest.of(MANIFEST)

Doctor = Callable[..., tuple[int, list[str]]]


@contextmanager
def registry(ahead: float = 0, challenge: str | None = None, left: int | None = None) -> Iterator[str]:
    """A registry with one image, `team/app:1`. `ahead`: the seconds by which its clock is fast. `left`: the
    manifests that its rate limit of 100 still allows.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            is_manifest = self.path == "/v2/team/app/manifests/1"
            status = 401 if challenge else 200 if is_manifest or self.path == "/v2/" else 404
            self.send_response(status)
            self.send_header("Docker-Distribution-Api-Version", "registry/2.0")
            if challenge:
                self.send_header("WWW-Authenticate", challenge)
            self.send_header("Content-Type", MEDIA_TYPE if is_manifest else "text/plain")
            self.send_header("Content-Length", str(len(MANIFEST)))
            if is_manifest:
                self.send_header("Docker-Content-Digest", str(DIGEST))
                if left is not None:
                    self.send_header("RateLimit-Limit", "100;w=21600")
                    self.send_header("RateLimit-Remaining", f"{left};w=21600")
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(MANIFEST)

        do_HEAD = do_GET  # noqa: N815 - the name is http.server's

        def date_time_string(self, timestamp: float | None = None) -> str:
            return super().date_time_string((timestamp or time.time()) + ahead)

    with served(Handler) as url:
        yield url


@pytest.fixture
def doctor(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Doctor:
    """Runs doctor in this process with these variables. Returns its status and the lines that it printed."""

    def asked(*words: str, **variables: str) -> tuple[int, list[str]]:
        with monkeypatch.context() as environment:
            for name, value in {"CACHE_DIR": str(tmp_path / "cache"), "CACHE_SIZE": "1MiB", **variables}.items():
                environment.setenv(name, value)
            status = main(["doctor", *words])
        return status, "".join(capsys.readouterr()).splitlines()

    return asked


def beginning(lines: list[str], words: str) -> str:
    (found,) = [line for line in lines if line.startswith(words)]
    return found


def test_a_working_mirror_has_no_problems(doctor: Doctor) -> None:
    with registry() as url:
        status, lines = doctor("team/app:1", UPSTREAM_REGISTRY=url)
    assert (status, [line for line in lines if not line.startswith("ok: ")]) == (0, [])
    assert lines[1] == "ok: 127.0.0.1 has the address 127.0.0.1"
    assert lines[-1] == f"ok: team/app:1 is {DIGEST}, {MEDIA_TYPE}"


def test_the_remaining_rate_limit_is_shown(doctor: Doctor) -> None:
    with registry(left=76) as url:
        status, lines = doctor("team/app:1", UPSTREAM_REGISTRY=url)
    assert (status, lines[-1]) == (0, f"ok: 76 of 100 manifests in 6 hours are left for this mirror at {url}")
    with registry(left=9) as url:
        status, lines = doctor("team/app:1", UPSTREAM_REGISTRY=url)
    assert status == 0
    assert lines[-1].startswith(f"warning: only 9 of 100 manifests in 6 hours are left for this mirror at {url}; ")
    assert "UPSTREAM_IDENTITY" in lines[-1]


def test_a_missing_image_is_a_problem(doctor: Doctor) -> None:
    with registry() as url:
        status, lines = doctor("team/app", UPSTREAM_REGISTRY=url)
    assert status == 1
    assert beginning(lines, "error: ").startswith("error: team/app:latest: ")


def test_an_image_that_requires_a_login_is_a_warning(doctor: Doctor) -> None:
    with registry(challenge='Basic realm="a"') as url:
        status, lines = doctor("team/app:1", UPSTREAM_REGISTRY=url)
    assert status == 0
    assert beginning(lines, "warning: ").startswith("warning: team/app:1: the upstream requires a login")


def test_an_invalid_image_name_is_refused(doctor: Doctor) -> None:
    assert doctor("Team/App")[0] == 2


@pytest.mark.parametrize(("ahead", "words"), [(300, "300 seconds behind"), (-7200, "7200 seconds ahead of")])
@pytest.mark.parametrize("challenge", [None, 'Basic realm="a"'])
def test_a_wrong_clock_is_a_problem(doctor: Doctor, ahead: float, words: str, challenge: str | None) -> None:
    with registry(ahead, challenge) as url:
        status, lines = doctor(UPSTREAM_REGISTRY=url)
    number, *rest = words.split(" ", 1)
    line = beginning(lines, "error: the clock of this machine is ")
    assert (status, abs(int(line.split()[7]) - int(number)) <= 2, rest[0] in line) == (1, True, True)


def test_an_unreachable_registry_is_a_problem(doctor: Doctor) -> None:
    with registry() as url:
        pass
    status, lines = doctor("team/app:1", UPSTREAM_REGISTRY=url)
    assert (status, lines[-1]) == (1, f"error: {url}: 127.0.0.1 cannot be reached")


def test_a_name_that_cannot_be_resolved_is_a_problem(doctor: Doctor) -> None:
    status, lines = doctor(UPSTREAM_REGISTRY="http://registry.invalid")
    assert status == 1
    assert beginning(lines, "error: cannot resolve registry.invalid (")


def test_with_a_proxy_only_its_name_is_resolved(doctor: Doctor) -> None:
    with registry() as url:
        status, lines = doctor(UPSTREAM_REGISTRY="http://registry.invalid", HTTP_PROXY=url)
    assert "ok: 127.0.0.1, the proxy to registry.invalid, has the address 127.0.0.1" in lines
    assert not [line for line in lines if "cannot resolve" in line]
    assert status == 1  # this "proxy" passes nothing on


def test_each_address_of_the_upstream_is_resolved(doctor: Doctor) -> None:
    with registry() as url:
        status, lines = doctor(UPSTREAM_REGISTRY=url, UPSTREAM_FALLBACKS="http://registry.invalid,http://127.0.0.1:9")
    assert [line for line in lines if "cannot resolve registry.invalid" in line]
    assert lines.count("ok: 127.0.0.1 has the address 127.0.0.1") == 2
    assert status == 1


def test_a_host_in_no_proxy_is_resolved(doctor: Doctor) -> None:
    with registry() as url:
        status, lines = doctor(UPSTREAM_REGISTRY=url, HTTP_PROXY="http://proxy.invalid:3128", NO_PROXY="127.0.0.1")
    assert (status, lines[1]) == (0, "ok: 127.0.0.1 has the address 127.0.0.1")


def test_a_disk_with_less_space_than_cache_size_is_a_warning(doctor: Doctor) -> None:
    with registry() as url:
        status, lines = doctor(UPSTREAM_REGISTRY=url, CACHE_SIZE="900TiB")
    assert (status, "set CACHE_SIZE" in beginning(lines, "warning: the cache in ")) == (0, True)


def test_pinned_images_are_counted_and_their_problems_are_a_warning(
    doctor: Doctor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with registry() as url:
        for name, value in {"UPSTREAM_REGISTRY": url, "CACHE_DIR": str(tmp_path / "cache")}.items():
            monkeypatch.setenv(name, value)
        assert main(["cache", "pin", "team/app:1"]) == 0
        capsys.readouterr()
        lines = doctor(UPSTREAM_REGISTRY=url)[1]
        assert beginning(lines, "ok: the pinned images") == f"ok: the pinned images (1) have {len(MANIFEST)} bytes"
        assert main(["cache", "pin", "team/app:2"]) == 1
        capsys.readouterr()
        lines = doctor(UPSTREAM_REGISTRY=url)[1]
    assert "warning: 1 of 2 pinned images failed the last check; see `cache pins`" in lines


def test_access_rules_apply_to_the_image_as_to_a_client(doctor: Doctor, tmp_path: Path) -> None:
    with registry() as url:
        (tmp_path / "mirror.toml").write_text(f'upstream_registry = "{url}"\n[[rules]]\ndeny = ["**"]\n')
        status, lines = doctor("team/app:1", CONFIG=str(tmp_path / "mirror.toml"))
    assert status == 1
    assert "the access rules of this mirror do not allow" in beginning(lines, "error: team/app:1")


def test_later_checks_run_without_a_usable_folder(doctor: Doctor, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with registry() as url:
        status, lines = doctor("team/app:1", UPSTREAM_REGISTRY=url, CACHE_DIR=str(tmp_path / "file"))
    assert status == 1
    assert beginning(lines, "error: CACHE_DIR: ")
    assert lines[-1].startswith("ok: team/app:1 is ")


def test_without_a_cache_its_checks_are_skipped(doctor: Doctor) -> None:
    with registry() as url:
        status, lines = doctor(UPSTREAM_REGISTRY=url, CACHE_DIR="off")
    assert (status, lines[0]) == (0, "ok: the cache is off")


def test_an_image_is_pulled_with_an_account_of_the_htpasswd_file(doctor: Doctor, tmp_path: Path) -> None:
    write(tmp_path / "htpasswd", lines_of({"alice": "right"}))
    accounts = {"HTPASSWD_FILE": str(tmp_path / "htpasswd"), "HOST": "127.0.0.1"}
    with registry() as url:
        status, lines = doctor("team/app:1", UPSTREAM_REGISTRY=url, **accounts)
    assert (status, lines[-1]) == (0, f"ok: team/app:1 is {DIGEST}, {MEDIA_TYPE}")
    assert "trust row 6" in beginning(lines, "ok: http")


def test_an_image_of_a_registry_that_is_not_mirrored_is_a_problem(doctor: Doctor, tmp_path: Path) -> None:
    with registry() as url:
        (tmp_path / "mirror.toml").write_text(f'upstreams = [{{ name = "docker.io", url = "{url}" }}]')
        status, lines = doctor("quay.io/a/b", CONFIG=str(tmp_path / "mirror.toml"))
    assert (status, lines[-1]) == (1, "error: quay.io/a/b: this registry is not mirrored here")


def test_an_image_of_a_registry_with_its_own_host_is_found(doctor: Doctor, tmp_path: Path) -> None:
    with registry() as url, registry() as other:
        (tmp_path / "mirror.toml").write_text(
            f"""
            upstreams = [
              {{ name = "docker.io", url = "{other}" }},
              {{ name = "gitlab.test", url = "{url}", identity = "client", hosts = ["gitlab.mirror.test"] }},
            ]
            """
        )
        status, lines = doctor("gitlab.test/team/app:1", CONFIG=str(tmp_path / "mirror.toml"))
    assert (status, lines[-1]) == (0, f"ok: gitlab.test/team/app:1 is {DIGEST}, {MEDIA_TYPE}")


@pytest.mark.parametrize("command", ["doctor", "check-config"])
def test_a_realm_on_an_untrusted_host_is_a_problem(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    """The name of the registry cannot be resolved here, so a proxy on loopback answers for it."""
    with registry(challenge='Bearer realm="http://theirs.azurecr.io/token",service="s"') as proxy:
        settings = {"UPSTREAM_REGISTRY": "http://mine.azurecr.io", "HTTP_PROXY": proxy, "CACHE_DIR": "off"}
        for name, value in settings.items():
            monkeypatch.setenv(name, value)
        status = main([command])
    output = capsys.readouterr().out
    assert status == 1
    assert "names the token server theirs.azurecr.io:80, which is not the upstream's own host" in output
    assert "azurecr.io hosts the registries of many customers" in output
    assert "set UPSTREAM_REALMS=theirs.azurecr.io:80" in output
