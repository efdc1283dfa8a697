"""`init` writes a settings file that `check-config` accepts."""

import os
import pty
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from domain.access import Credentials
from domain.trust import UpstreamIdentity
from entrypoints.cli import main
from entrypoints.settings import Settings, load_settings

ROOT = Path(__file__).parents[3]
Init = Callable[..., tuple[int, str]]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "mirror.toml"


@pytest.fixture
def init(file: Path, capsys: pytest.CaptureFixture[str]) -> Init:
    """Runs `init` without questions. Returns its status and the message about an error."""

    def ran(*options: str) -> tuple[int, str]:
        status = main(["init", str(file), "--yes", *options])
        return status, capsys.readouterr().err

    return ran


def written(file: Path) -> Settings:
    return load_settings(file)


def test_without_options_it_writes_the_defaults(init: Init, file: Path) -> None:
    assert init() == (0, "")
    settings = written(file)
    assert (settings.port, settings.host, settings.has_accounts) == (8080, "0.0.0.0", False)
    assert [one.url for one in settings.upstreams] == ["https://registry-1.docker.io"]
    assert settings.upstreams[0].identity is UpstreamIdentity.CLIENT


def test_options_give_the_values(init: Init, file: Path, tmp_path: Path) -> None:
    options = ["--registry", "ghcr.io", "--registry", "http://127.0.0.1:5001", "--host", "::1", "--port", "5000"]
    assert init(*options, "--cache-dir", str(tmp_path), "--cache-size", "1.5GiB") == (0, "")
    settings = written(file)
    assert [one.url for one in settings.upstreams] == ["https://ghcr.io", "http://127.0.0.1:5001"]
    assert (settings.host, settings.port, settings.cache_dir) == ("::1", 5000, tmp_path)
    assert settings.cache_size.size == 3 * 2**29
    assert "\nport = 5000\n" in file.read_text()


def test_the_file_is_for_its_owner_only(init: Init, file: Path) -> None:
    init()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [path.name for path in file.parent.iterdir()] == ["mirror.toml"]


def test_an_existing_file_is_replaced_only_by_force(init: Init, file: Path) -> None:
    file.write_text("port = 1\n")
    assert init() == (2, f"docker-image-proxy: {file} exists; --force replaces it\n")
    assert file.read_text() == "port = 1\n"
    assert init("--force") == (0, "")
    assert written(file).port == 8080


def test_a_folder_that_does_not_exist_is_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "missing" / "mirror.toml"
    assert main(["init", str(path), "--yes"]) == 2
    assert capsys.readouterr().err == f"docker-image-proxy: {path} cannot be written (No such file or directory)\n"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--port", "hunter"], "PORT: got 'hunter'; takes a port number from 1 to 65535"),
        (["--cache-dir", "here"], "CACHE_DIR: got 'here'; takes an absolute path, or off"),
        (["--cache-size", "1 stone"], "CACHE_SIZE: got '1 stone'; takes bytes, a size such as 20GiB, or"),
        (["--registry", "corp"], "upstream corp: url: is missing"),
        (["--registry", "ftp://a.b"], "url: got 'ftp://a.b'; takes an address"),
        (["--registry", "quay.io", "--registry", "quay.io"], "upstream quay.io: is defined twice"),
        (["--tls-cert", "/nowhere.pem"], "TLS_CERT: got '/nowhere.pem'; takes the path of a PEM file"),
        (["--tls-cert", str(ROOT / "README.md")], "TLS_CERT: takes a file together with TLS_KEY"),
        (["--self-registry", "mirror"], "SELF_REGISTRY: got 'mirror'; takes an address"),
    ],
)
def test_a_wrong_option_is_refused_with_the_message_of_the_service(
    init: Init, file: Path, options: list[str], message: str
) -> None:
    status, said = init(*options)
    assert (status, message in said, file.exists()) == (2, True, False), said


def run(file: Path, *options: str, given: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    argv = [sys.executable, "-m", "docker_image_proxy", "init", str(file), *options]
    environment = {"PATH": os.environ["PATH"], "HOME": "/root"}
    return subprocess.run(argv, cwd=ROOT, input=given, env=environment, capture_output=True, check=False, timeout=30)


def test_accounts_are_read_from_standard_input_and_not_sent_upstream(file: Path) -> None:
    options = ["--yes", "--account", "ann", "--account", "bob", "--self-registry", "https://mirror.example.com"]
    done = run(file, *options, given="hunter2\nhünter:3\n".encode())
    assert (done.returncode, done.stderr) == (0, b"")
    settings = written(file)
    assert settings.accounts == (Credentials("ann", "hunter2"), Credentials("bob", "hünter:3"))
    assert settings.upstreams[0].identity is UpstreamIdentity.ANONYMOUS
    assert (settings.self_registry, settings.warnings) == ("https://mirror.example.com", ())
    assert b"hunter2" not in done.stdout


def test_without_a_terminal_it_asks_nothing(file: Path) -> None:
    done = run(file, given=b"docker.io\n")
    message = b"there is no terminal for questions; with --yes, the options and the defaults are used\n"
    assert (done.returncode, done.stderr, file.exists()) == (2, b"docker-image-proxy: " + message, False)


class Terminal:
    """`init` at a terminal."""

    def __init__(self, file: Path, *options: str) -> None:
        self._end, other = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "docker_image_proxy", "init", str(file), *options],
            stdin=other,
            stdout=other,
            stderr=other,
            cwd=ROOT,
            env={"PATH": os.environ["PATH"], "HOME": "/root"},
            start_new_session=True,
        )
        os.close(other)
        self.shown = b""

    def answer(self, question: str, answer: str) -> None:
        """Wait until the end of what is shown is this question, and type the answer."""
        before = len(self.shown)
        while question.encode() not in self.shown[before:] or not self.shown.endswith(b": "):
            self.shown += os.read(self._end, 1000)
        os.write(self._end, answer.encode() + b"\n")

    def finish(self) -> int:
        with suppress(OSError):  # how Linux says that the other end is closed
            while piece := os.read(self._end, 1000):
                self.shown += piece
        os.close(self._end)
        return self.process.wait(20)


@contextmanager
def terminal(file: Path, *options: str) -> Iterator[Terminal]:
    one = Terminal(file, *options)
    try:
        yield one
    finally:
        one.process.kill()
        one.process.wait(10)


def test_each_answer_is_checked_when_it_is_given(file: Path, tmp_path: Path) -> None:
    with terminal(file) as asked:
        asked.answer("The registries to mirror", "corp")
        asked.answer("url: is missing", "quay.io, ghcr.io")
        asked.answer("The address to listen on", "127.0.0.1")
        asked.answer("The port to listen on", "123456")
        asked.answer("takes a port number from 1 to 65535", "5000")
        asked.answer("The folder of the cache", "cache")
        asked.answer("takes an absolute path", str(tmp_path / "cache"))
        asked.answer("The limit of the cache", "80%")
        asked.answer("certificate", "/nowhere.pem")
        asked.answer("its key", "/nowhere.key")
        asked.answer("takes the path of a PEM file", "")
        asked.answer("The users that may use", "ann")
        asked.answer("Password for ann", "hunter2")
        asked.answer("The address that clients use", "http://mirror.example.com:5000")
        assert asked.finish() == 0, asked.shown
    assert b"hunter2" not in asked.shown
    settings = written(file)
    assert [one.url for one in settings.upstreams] == ["https://quay.io", "https://ghcr.io"]
    assert (settings.host, settings.port, settings.cache_dir) == ("127.0.0.1", 5000, tmp_path / "cache")
    assert (settings.cache_size.share, settings.accounts) == (0.8, (Credentials("ann", "hunter2"),))
    assert settings.self_registry == "http://mirror.example.com:5000"


def test_empty_answers_are_the_defaults_and_options_are_not_asked_for(file: Path) -> None:
    with terminal(file, "--port", "5000", "--cache-dir", "off") as asked:
        asked.answer("The registries to mirror", "")
        asked.answer("The address to listen on", "")
        asked.answer("certificate", "")
        asked.answer("The users that may use", "")
        assert asked.finish() == 0, asked.shown
    settings = written(file)
    assert (settings.port, settings.host, settings.cache_dir) == (5000, "0.0.0.0", None)
    assert '#host = "0.0.0.0"' in file.read_text()


def test_the_end_of_the_input_writes_nothing(file: Path) -> None:
    with terminal(file) as asked:
        asked.answer("The registries to mirror", "\x04")
        assert asked.finish() == 130
    assert not file.exists()
