"""The file behind the HtpasswdAccountDirectory, as it changes."""

import os
from collections.abc import Callable
from pathlib import Path

import bcrypt
import pytest

from adapters.accounts.htpasswd import HtpasswdAccountDirectory
from domain.access import Account, Credentials
from domain.events import AccountsReloaded, AccountsUnreadable
from tests.fakes.clock import StoppedClock
from tests.fakes.events import RecordingEventSink
from tests.fakes.htpasswd import hashed, lines_of, write

ALICE, BOB = Credentials("alice", "right"), Credentials("bob", "open")


class House:
    """A directory and its file."""

    def __init__(self, path: Path) -> None:
        self.path, self.clock, self.events = path, StoppedClock(), RecordingEventSink()
        self.directory = HtpasswdAccountDirectory(path, frozenset({"carol"}), self.clock, self.events, b"key")

    def later(self) -> "House":
        self.clock.advance(1)
        return self

    def names(self) -> list[str]:
        return [name for name in ("alice", "bob", "carol") if self.directory.stamp(name)]


@pytest.fixture
def house(tmp_path: Path) -> House:
    write(tmp_path / "htpasswd", lines_of({"alice": "right"}))
    return House(tmp_path / "htpasswd")


@pytest.mark.parametrize("kind", ["2y", "2a", "2b"])
def test_every_kind_of_hash_is_accepted(house: House, kind: str) -> None:
    write(house.path, f"alice:{hashed('pässword', 5, kind)}\n")
    assert house.later().names() == ["alice"]
    assert house.directory.find(Credentials("alice", "pässword")) == Account("alice")
    assert house.directory.find(Credentials("alice", "password")) is None


def test_a_changed_file_is_read_again(house: House) -> None:
    write(house.path, lines_of({"alice": "new", "bob": "open"}))
    assert house.later().names() == ["alice", "bob"]
    assert house.directory.find(BOB) == Account("bob")
    assert house.directory.find(ALICE) is None
    assert house.events.events == [AccountsReloaded(2)]


def test_a_removed_user_is_rejected(house: House) -> None:
    write(house.path, lines_of({"bob": "open"}))
    assert house.later().names() == ["bob"]
    assert house.directory.find(ALICE) is None
    assert house.directory.stamp("alice") == ""


def test_the_file_is_checked_once_a_second(house: House) -> None:
    write(house.path, lines_of({"bob": "open"}))
    house.clock.advance(0.9)
    assert house.names() == ["alice"]
    house.clock.advance(0.1)
    assert house.names() == ["bob"]
    house.clock.advance(-3600)  # set back
    write(house.path, lines_of({"alice": "right"}))
    assert house.names() == ["alice"]


def test_a_file_that_did_not_change_is_not_read_again(house: House) -> None:
    before = house.path.stat()
    with house.path.open("r+") as file:
        file.write("# mallory")  # as long as before, and made to look as old
    os.utime(house.path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert house.later().names() == ["alice"]
    assert house.events.events == []


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (
            lambda path: write(path, f"alice:{hashed('x')}\nbob:secret\n"),
            "line 2 does not contain a bcrypt hash (htpasswd -B creates one)",
        ),
        (
            lambda path: write(path, lines_of({"carol": "x"})),
            "line 1 repeats a user name of ACCOUNTS or ADMIN_ACCOUNTS",
        ),
        (lambda path: write(path, ""), "contains no entry"),
        (lambda path: path.write_bytes(b"\xff\xfe"), "is not UTF-8 text"),
        (Path.unlink, "cannot be read (No such file or directory)"),
        (lambda path: (path.unlink(), path.mkdir()), "cannot be read (not a regular file)"),
        (lambda path: (path.unlink(), os.mkfifo(path)), "cannot be read (not a regular file)"),
    ],
)
def test_an_invalid_file_changes_nothing_and_is_reported_once(
    house: House, spoil: Callable[[Path], object], reason: str
) -> None:
    spoil(house.path)
    for _ in range(3):
        assert house.later().names() == ["alice"]
    assert house.directory.find(ALICE) == Account("alice")
    assert house.events.events == [AccountsUnreadable(f"{house.path}: {reason}")]


def test_a_file_that_is_valid_again_is_used_again(house: House) -> None:
    house.path.unlink()
    house.later().names()
    write(house.path, lines_of({"bob": "open"}))
    assert house.later().names() == ["bob"]
    assert [type(event) for event in house.events.events] == [AccountsUnreadable, AccountsReloaded]


def test_a_worker_that_starts_with_an_invalid_file_rejects_every_login(tmp_path: Path) -> None:
    write(tmp_path / "htpasswd", "alice:secret\n")
    house = House(tmp_path / "htpasswd")
    assert house.names() == []
    assert house.directory.find(ALICE) is None
    assert [type(event) for event in house.events.events] == [AccountsUnreadable]
    write(house.path, lines_of({"alice": "right"}))
    assert house.later().names() == ["alice"]


@pytest.mark.parametrize("password", ["x" * 73, "é" * 37])
def test_a_password_that_bcrypt_would_truncate_is_rejected(house: House, password: str) -> None:
    write(house.path, lines_of({"alice": "x" * 72, "bob": "é" * 36}))
    house.later().names()
    assert house.directory.find(Credentials("alice", "x" * 72)) == Account("alice")
    for user in ("alice", "bob"):
        assert house.directory.find(Credentials(user, password)) is None


def test_a_password_repeated_after_a_nul_is_rejected(house: House) -> None:
    again = "right\0right"
    assert bcrypt.checkpw(again.encode(), bcrypt.hashpw(b"right", bcrypt.gensalt(4)))  # which is why
    assert house.directory.find(Credentials("alice", again)) is None


def test_an_unknown_user_costs_the_same_check(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    write(house.path, "".join(f"user{number}:{hashed('x', 4 + number % 2)}\n" for number in range(8)))
    house.later().names()
    checked: list[bytes] = []
    monkeypatch.setattr(bcrypt, "checkpw", lambda _, against: checked.append(against) or True)
    for _ in range(2):
        for name in ("mallory", "alice", "root", "admin", ""):
            assert house.directory.find(Credentials(name, "x")) is None
    assert len(checked) == 10
    # Each name's is always the same: what differs from one time to the next would tell that it is nobody's.
    assert checked[:5] == checked[5:]
    assert len(set(checked)) > 1


def test_another_password_gives_another_stamp(house: House) -> None:
    before = house.directory.stamp("alice")
    write(house.path, house.path.read_text() + lines_of({"bob": "open"}))
    assert house.later().directory.stamp("alice") == before
    write(house.path, lines_of({"alice": "right"}))
    assert house.later().directory.stamp("alice") not in {before, ""}
    assert before not in house.path.read_text()
