"""HTPASSWD_FILE: its errors, and where it has the same effect as ACCOUNTS."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.entrypoints.environment import ANN, Load, refusal
from tests.fakes.htpasswd import hashed, lines_of

TAKES = "takes the path of a file of user:hash lines, as htpasswd -B writes them"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (path := tmp_path / "htpasswd").write_text("# who may pull\n\n" + lines_of({"bob": "x", "carol": "y"}))
    return path


def test_a_valid_file_is_accepted(load: Load, file: Path) -> None:
    settings = load(HTPASSWD_FILE=str(file))
    assert settings.htpasswd_file == file
    assert settings.has_accounts
    assert settings.table.upstreams[0].trust.has_accounts


def test_file_and_accounts_can_be_set_together(load: Load, file: Path) -> None:
    settings = load(HTPASSWD_FILE=str(file), ACCOUNTS=ANN)
    assert ([account.username for account in settings.accounts], settings.htpasswd_file) == (["ann"], file)


def test_without_either_there_are_no_accounts(load: Load) -> None:
    assert not load().has_accounts
    assert not load().table.upstreams[0].trust.has_accounts
    assert load(ACCOUNTS=ANN).has_accounts


def test_a_user_in_both_is_an_error(load: Load, file: Path) -> None:
    file.write_text(file.read_text() + lines_of({"ann": "z"}))
    line = refusal(load, HTPASSWD_FILE=str(file), ACCOUNTS=ANN)
    assert (
        line == f"HTPASSWD_FILE: got {str(file)!r}; line 5 repeats a user name of ACCOUNTS or ADMIN_ACCOUNTS; {TAKES}"
    )


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (f"bob:{hashed('x')}\nhunter2\n", "line 2 is not in the form user:hash"),
        ("bob:hunter2\n", "line 1 does not contain a bcrypt hash (htpasswd -B creates one)"),
        ("bob:$apr1$hunter2\n", "line 1 does not contain a bcrypt hash (htpasswd -B creates one)"),
        (lines_of({"bob": "x"}) * 2, "line 2 repeats a user name of an earlier line"),
        ("# hunter2\n\n", "contains no entry"),
        ("", "contains no entry"),
    ],
    # A hash has a new salt in every process: it must not be part of the test's name.
    ids=["no pair", "plain text", "another kind of hash", "a user twice", "comments", "nothing"],
)
def test_an_invalid_file_is_named_but_its_content_is_not_shown(load: Load, file: Path, text: str, reason: str) -> None:
    file.write_text(text)
    line = refusal(load, HTPASSWD_FILE=str(file))
    assert line == f"HTPASSWD_FILE: got {str(file)!r}; {reason}; {TAKES}"


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda path: path.unlink(), "No such file or directory"),
        (lambda path: (path.unlink(), path.mkdir()), "Is a directory"),
        (lambda path: path.write_bytes(b"bob:\xff"), "not UTF-8 text"),
    ],
)
def test_an_unreadable_file_is_an_error(load: Load, file: Path, spoil: Callable[[Path], object], reason: str) -> None:
    spoil(file)
    line = refusal(load, HTPASSWD_FILE=str(file))
    assert line == f"HTPASSWD_FILE: got {str(file)!r}; cannot be read ({reason}); {TAKES}"


def test_a_hash_instead_of_a_path_is_not_shown(load: Load) -> None:
    line = refusal(load, HTPASSWD_FILE=(entry := lines_of({"bob": "x"}).strip()))
    assert entry not in line
    assert "$2y$" not in line


def test_an_empty_variable_is_an_error(load: Load) -> None:
    """As with ACCOUNTS: without the file, everyone could use the mirror."""
    assert refusal(load, HTPASSWD_FILE="") == "HTPASSWD_FILE: is set but empty; takes the path of a file"


def test_missing_self_registry_is_warned_of_as_with_accounts(load: Load, file: Path) -> None:
    (warning,) = load(HTPASSWD_FILE=str(file)).warnings
    assert warning.startswith("HTPASSWD_FILE without SELF_REGISTRY")
    assert load(HTPASSWD_FILE=str(file), HOST="127.0.0.1").warnings == ()


def test_the_file_allows_the_service_identity(load: Load, file: Path) -> None:
    login = {"UPSTREAM_USERNAME": "bob", "UPSTREAM_PASSWORD": "pw"}
    assert load(HTPASSWD_FILE=str(file), **login).table.upstreams[0].credentials


def test_skip_auth_proxy_excludes_the_file(load: Load, file: Path) -> None:
    line = refusal(load, SKIP_AUTH_PROXY="true", HTPASSWD_FILE=str(file))
    assert "HTPASSWD_FILE" in line
