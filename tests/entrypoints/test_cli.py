"""The console script, as a process of its own."""

import importlib.metadata
import os
import pty
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from domain.access import Credentials
from domain.authorization import decode_basic
from entrypoints.cli import main
from tests.entrypoints.plain_server import served

ROOT = Path(__file__).resolve().parents[2]
COMMAND = (sys.executable, "-m", "entrypoints.cli")
WRONG_PORT = "docker-image-proxy: PORT: got 'hunter'; takes a port number from 1 to 65535\n"

Check = Callable[..., tuple[int, str, str]]


def _run(*arguments: str, given: bytes = b"", **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": os.environ["PATH"], "PYTHONWARNINGS": "error", **variables}
    done = subprocess.run(
        (*COMMAND, *arguments), check=False, input=given, env=environment, cwd=ROOT, capture_output=True, timeout=30
    )
    return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())


@contextmanager
def _registry(status: int, challenge: str = "", token: bytes = b'{"token": "t"}') -> Iterator[str]:
    """A registry that answers the ping with this status and challenge. Its token server is at /token."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            is_token = self.path.startswith("/token")
            self.send_response(200 if is_token else status)
            if challenge and not is_token:
                self.send_header("WWW-Authenticate", challenge.format(port=self.server.server_address[1]))
            self.send_header("Docker-Distribution-Api-Version", "registry/2.0")
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(token)))
            self.end_headers()
            self.wfile.write(token)

    with served(Handler) as url:
        yield url


@pytest.fixture
def check(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Check:
    """Runs check-config in this process with these variables. Returns its status, and what it printed."""

    def checked(**variables: str) -> tuple[int, str, str]:
        with monkeypatch.context() as environment:
            for name, value in variables.items():
                environment.setenv(name, value)
            return (main(["check-config"]), *capsys.readouterr())

    return checked


def test_the_version_is_that_of_the_installed_package() -> None:
    done = _run("--version")
    version = importlib.metadata.version("docker-image-proxy")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"docker-image-proxy {version}\n", "")


def test_invalid_settings_are_reported_in_one_line() -> None:
    done = _run("serve", PORT="hunter")
    assert (done.returncode, done.stdout, done.stderr) == (2, "", WRONG_PORT)


def test_check_config_reports_invalid_settings(check: Check) -> None:
    assert check(PORT="hunter") == (2, "", WRONG_PORT)


@pytest.mark.parametrize("arguments", [(), ("nonsense",), ("serve", "now"), ("encode-account",)])
def test_wrong_arguments_show_the_usage(arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert "usage: docker-image-proxy" in capsys.readouterr().err


@pytest.mark.slow
def test_a_port_in_use_is_reported_in_one_line() -> None:
    with _registry(200) as address:
        done = _run("serve", HOST="127.0.0.1", PORT=address.rpartition(":")[2], UPSTREAM_REGISTRY=address, WORKERS="1")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("docker-image-proxy: HOST, PORT: got '127.0.0.1', ")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(("given", "password"), [("hünter:2\r\nmore\n", "hünter:2"), (" pass word ", " pass word ")])
def test_account_is_encoded_from_a_pipe(given: str, password: str) -> None:
    done = _run("encode-account", "ann", given=given.encode())
    assert (done.returncode, done.stderr, done.stdout.count("\n")) == (0, "", 1)
    assert decode_basic(done.stdout.strip()) == Credentials("ann", password)


def test_a_password_that_is_not_utf8_is_refused() -> None:
    done = _run("encode-account", "ann", given=b"\xff\xfe\n")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "docker-image-proxy: the password is not UTF-8 text\n"


@pytest.mark.parametrize("user", ["", "a:b"])
def test_an_invalid_user_name_is_refused(user: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["encode-account", user]) == 2
    message = "docker-image-proxy: a user name must not be empty or contain a colon (RFC 7617)\n"
    assert capsys.readouterr() == ("", message)


def test_the_password_is_not_echoed() -> None:
    terminal, end = pty.openpty()
    environment = {"PATH": os.environ["PATH"]}
    process = subprocess.Popen(
        (*COMMAND, "encode-account", "ann"),
        stdin=end,
        stdout=end,
        stderr=end,
        env=environment,
        cwd=ROOT,
        start_new_session=True,  # else the prompt goes to the terminal of whoever runs the tests
    )
    os.close(end)
    shown = b""
    with process:
        while b"Password for ann:" not in shown:
            shown += os.read(terminal, 1000)
        os.write(terminal, b"hunter2\n")
        with suppress(OSError):  # how Linux says that the other end is closed
            while piece := os.read(terminal, 1000):
                shown += piece
    os.close(terminal)
    assert process.returncode == 0
    assert b"hunter2" not in shown
    assert decode_basic(shown.split()[-1].decode()) == Credentials("ann", "hunter2")


@pytest.mark.slow
def test_check_config_accepts_an_open_registry() -> None:
    with _registry(200) as address:
        done = _run("check-config", UPSTREAM_REGISTRY=address)
    meaning = "the upstream requires no authentication; the mirror gives a token to everyone"
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"ok: {address} answers as a registry; trust row 2: {meaning}\n"


def test_check_config_accepts_the_file_that_init_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = str(tmp_path / "mirror.toml")
    with _registry(200) as address:
        assert main(["init", file, "--yes", "--registry", address]) == 0
        assert f"docker-image-proxy --config {file} check-config" in capsys.readouterr().out
        assert main(["--config", file, "check-config"]) == 0
    assert capsys.readouterr().out.startswith(f"ok: {address} answers as a registry; ")


def test_check_config_requests_a_token(check: Check) -> None:
    with _registry(401, 'Bearer realm="http://127.0.0.1:{port}/token",service="docker-image-proxy"') as address:
        status, out, err = check(UPSTREAM_REGISTRY=address)
    lines = out.splitlines()
    assert (status, err) == (0, "")
    assert lines[0].startswith(f"ok: {address} answers as a registry; trust row 3: ")
    assert lines[1] == "ok: its token server gives a token to anonymous callers"
    assert "SELF_AUTH_SERVICE" in lines[2]


def test_check_config_names_the_setting_for_an_untrusted_realm(check: Check) -> None:
    login = {"UPSTREAM_USERNAME": "bob", "UPSTREAM_PASSWORD": "hunter2", "HOST": "127.0.0.1"}
    with _registry(401, 'Bearer realm="http://127.0.0.2:9/token",service="s"') as address:
        status, out, err = check(UPSTREAM_REGISTRY=address, **login)
    assert (status, err) == (1, "")
    assert out.splitlines()[-1].startswith(f"error: {address}: ")
    assert "UPSTREAM_REALMS=127.0.0.2:9" in out
    assert "hunter2" not in out


def test_check_config_of_a_web_page_fails(check: Check) -> None:
    with _registry(404) as address:
        status, out, err = check(UPSTREAM_REGISTRY=address)
    assert (status, out.startswith(f"error: {address}: "), out.count("\n"), err) == (1, True, 1, "")


def test_check_config_of_an_unreachable_registry_fails(check: Check) -> None:
    with _registry(200) as address:
        pass  # and now nobody listens there
    assert check(UPSTREAM_REGISTRY=address) == (1, f"error: {address}: 127.0.0.1 cannot be reached\n", "")


def test_check_config_prints_warnings_first(check: Check) -> None:
    with _registry(200) as address:
        status, out, _ = check(UPSTREAM_REGISTRY=address, ACCOUNTS="YTpi")
    assert (status, out.startswith("warning: ACCOUNTS without SELF_REGISTRY: ")) == (0, True)


@pytest.mark.parametrize(
    "words",
    [
        "--config FILE cache stats",
        "cache --config FILE stats",
        "cache stats --config FILE",
        "check-config --config FILE",
    ],
)
def test_the_config_option_can_precede_or_follow_the_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: str
) -> None:
    file = str(tmp_path / "mirror.toml")
    assert main([word.replace("FILE", file) for word in words.split()]) == 2
    assert f"CONFIG: got {file!r}: cannot be read" in capsys.readouterr().err
