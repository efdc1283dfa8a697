"""The settings that are secrets: where they come from, and that they are never shown."""

from pathlib import Path

import pytest

from domain.access import Credentials
from entrypoints.settings.values import Secret
from tests.entrypoints.environment import ANN, BOB, Load, refusal
from tests.entrypoints.service import basic

SECRET = "0123456789abcdef0123456789abcdef"


def test_accounts_are_read_in_any_layout(load: Load) -> None:
    both = (Credentials("ann", "hunter2"), Credentials("bob", "hünter:3"))
    for text in (f"{ANN},{BOB}", f" {ANN} ,\n {BOB}\n", f"{ANN}\n{BOB},", f",{ANN},,{BOB}"):
        assert load(ACCOUNTS=text).accounts == both


@pytest.mark.parametrize("text", [",", " ", "\n", ",\n,"])
def test_accounts_without_an_entry_are_an_error(load: Load, text: str) -> None:
    assert refusal(load, ACCOUNTS=text) == (
        "ACCOUNTS: is set but contains no entry; takes base64 of user:password, separated by commas"
    )


@pytest.mark.parametrize("bad", ["hunter2", "ann:hunter2", "aHVudGVyMg==", basic("", "hunter2").split()[1], f"{ANN}="])
def test_malformed_account_is_named_by_position(load: Load, bad: str) -> None:
    line = refusal(load, ACCOUNTS=f"{ANN},{bad},{BOB}")
    assert line == "ACCOUNTS: entry 2 is not the base64 of user:password (see encode-account)"


def test_secret_is_random_and_long_by_default(load: Load) -> None:
    first, second = (load().server_secret.value for _ in range(2))
    assert first != second
    assert min(len(first), len(second)) >= 48


def test_a_short_secret_is_refused_and_not_shown(load: Load) -> None:
    assert load(SERVER_SECRET=SECRET).server_secret == Secret(SECRET)
    assert refusal(load, SERVER_SECRET=SECRET[:-1]) == "SERVER_SECRET: is too short; takes 32 bytes or more"
    assert load(SERVER_SECRET="é" * 16).server_secret.value == "é" * 16


def test_secrets_can_come_from_files(load: Load, tmp_path: Path) -> None:
    for name, text in {"a": f"{ANN}\n{BOB}\n", "s": f"{SECRET}\n", "p": " pass word \r\n"}.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    files = {"ACCOUNTS_FILE": "a", "SERVER_SECRET_FILE": "s", "UPSTREAM_PASSWORD_FILE": "p"}
    settings = load(UPSTREAM_USERNAME="bob", **{name: str(tmp_path / file) for name, file in files.items()})
    assert [account.username for account in settings.accounts] == ["ann", "bob"]
    assert settings.server_secret.value == SECRET
    assert settings.table.upstreams[0].credentials == Credentials("bob", " pass word ")


FILES = {"ACCOUNTS_FILE": ANN, "SERVER_SECRET_FILE": SECRET, "UPSTREAM_PASSWORD_FILE": "hunter2"}


@pytest.mark.parametrize("name", FILES)
def test_variable_and_file_exclude_each_other(load: Load, tmp_path: Path, name: str) -> None:
    (file := tmp_path / "file").write_text(FILES[name])
    plain = name.removesuffix("_FILE")
    line = refusal(load, **{name: str(file), plain: FILES[name]})
    assert line == f"{plain}: is set, and {name} too; takes one of them"


@pytest.mark.parametrize("name", FILES)
def test_an_unreadable_file_is_named_in_the_message(load: Load, tmp_path: Path, name: str) -> None:
    (binary := tmp_path / "binary").write_bytes(b"\xff\xfe")
    for path, reason in {
        tmp_path / "none": "No such file or directory",
        tmp_path: "Is a directory",
        binary: "UTF-8",
    }.items():
        line = refusal(load, **{name: str(path)})
        assert line.startswith(f"{name}: got {str(path)!r}; cannot be read (")
        assert reason in line
        assert line.endswith("takes the path of a file")


def test_an_empty_password_file_is_an_error(load: Load, tmp_path: Path) -> None:
    (file := tmp_path / "file").write_text("\n")
    line = refusal(load, UPSTREAM_USERNAME="bob", UPSTREAM_PASSWORD_FILE=str(file))
    assert line == "UPSTREAM_PASSWORD: takes a password"


@pytest.mark.parametrize("name", ["ACCOUNTS_FILE", "SERVER_SECRET_FILE"])
def test_secrets_in_files_are_validated(load: Load, tmp_path: Path, name: str) -> None:
    for content in ("", "\n", "hunter2\n"):
        (file := tmp_path / "file").write_text(content)
        line = refusal(load, **{name: str(file)})
        assert line.startswith(f"{name.removesuffix('_FILE')}: ")
        assert "hunter2" not in line


def test_secrets_are_never_printed_anywhere(load: Load) -> None:
    settings = load(ACCOUNTS=ANN, SERVER_SECRET=SECRET, UPSTREAM_USERNAME="bob", UPSTREAM_PASSWORD="pass-word-3")
    for shown in (repr(settings), str(settings), f"{settings}", repr(settings.table.upstreams[0].credentials)):
        assert [secret for secret in ("hunter2", ANN, SECRET, "pass-word-3") if secret in shown] == []


@pytest.mark.parametrize("login", ["ann:hunter2@", "hunter2@", "ann:hun/hunter2@", "ann:x@hunter2@", "ann:\nhunter2@"])
def test_login_in_address_is_not_shown(load: Load, login: str) -> None:
    for name in ("UPSTREAM_REGISTRY", "SELF_REGISTRY", "SEARCH_UPSTREAM"):
        line = refusal(load, **{name: f"https://{login}registry.test"})
        assert line.startswith(f"{name}: got ")
        assert "hunter2" not in line


def test_login_of_proxy_is_not_shown(load: Load) -> None:
    assert "hunter2" not in repr(load(HTTPS_PROXY="http://ann:hunter2@p.test:3128"))
    assert "hunter2" not in refusal(load, HTTPS_PROXY="http://ann:hunter2@p.test:99999")
