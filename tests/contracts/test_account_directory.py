"""The contract of AccountDirectory. Its implementations are fast enough for tests, so there is no fake."""

from collections.abc import Callable, Iterable
from pathlib import Path
from tempfile import TemporaryDirectory

import bcrypt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.accounts.fixed import FixedAccountDirectory
from adapters.accounts.htpasswd import HtpasswdAccountDirectory
from adapters.accounts.several import CombinedAccountDirectory
from domain.access import Account, Credentials
from domain.ports import AccountDirectory
from tests.fakes.clock import StoppedClock
from tests.fakes.events import RecordingEventSink
from tests.fakes.htpasswd import lines_of

KEY = b"a key of these tests"
Maker = Callable[[Iterable[Credentials]], AccountDirectory]


def _htpasswd(accounts: Iterable[Credentials]) -> AccountDirectory:
    with TemporaryDirectory() as folder:
        (path := Path(folder, "htpasswd")).write_text(lines_of({one.username: one.password for one in accounts}))
        return HtpasswdAccountDirectory(path, frozenset(), StoppedClock(), RecordingEventSink(), KEY)


def _fixed(accounts: Iterable[Credentials]) -> AccountDirectory:
    return FixedAccountDirectory(accounts, KEY)


def _keyed_fixed(account: Credentials, key: bytes) -> str:
    return FixedAccountDirectory([account], key).stamp(account.username)


def _keyed_htpasswd(account: Credentials, key: bytes) -> str:
    """The salt is fixed, because otherwise no two lines would be equal."""
    hashed = bcrypt.hashpw(account.password.encode(), b"$2b$04$" + b"a" * 21 + b"u").decode()
    with TemporaryDirectory() as folder:
        (path := Path(folder, "htpasswd")).write_text(f"{account.username}:{hashed}\n")
        directory = HtpasswdAccountDirectory(path, frozenset(), StoppedClock(), RecordingEventSink(), key)
        return directory.stamp(account.username)


def _several(accounts: Iterable[Credentials]) -> AccountDirectory:
    known = list(accounts)
    return CombinedAccountDirectory(_fixed(known[::2]), _htpasswd(known[1::2]))


EACH = pytest.mark.parametrize("make", [_fixed, _htpasswd, _several])
# Few names and passwords, so that logins often match; a user name contains no colon (RFC 7617 section 2).
names = st.sampled_from(["alice", "Alice", "bob", "al", "é"])
passwords = st.text("a:é", max_size=2)
logins = st.builds(Credentials, names, passwords)
accounts = st.lists(logins, max_size=4, unique_by=lambda one: one.username)


@EACH
@given(known=accounts, offered=logins)
def test_a_directory_accepts_only_its_credentials(make: Maker, known: list[Credentials], offered: Credentials) -> None:
    assert make(known).find(offered) == (Account(offered.username) if offered in known else None)


@EACH
@given(known=accounts, name=st.sampled_from(["", "alice", "ALICE", "bob", "bo", "é"]))
def test_a_directory_has_stamps_for_exactly_its_names(make: Maker, known: list[Credentials], name: str) -> None:
    assert bool(make(known).stamp(name)) == any(one.username == name for one in known)


@EACH
@given(known=accounts)
def test_a_directory_names_one_of_its_accounts(make: Maker, known: list[Credentials]) -> None:
    directory = make(known)
    name = directory.some_account()
    assert name == directory.some_account()
    assert name in {one.username for one in known} or (name == "" and not known)


@EACH
def test_an_empty_directory_has_no_accounts(make: Maker) -> None:
    assert make([]).find(Credentials("", "")) is None
    assert make([]).stamp("") == ""


@EACH
def test_a_password_with_a_colon_is_not_confused_with_a_longer_name(make: Maker) -> None:
    directory = make([Credentials("alice", "open:sesame")])
    assert directory.find(Credentials("alice", "open:sesame")) == Account("alice")
    assert directory.find(Credentials("alice:open", "sesame")) is None


def test_two_passwords_of_one_name_are_both_accepted() -> None:
    directory = _fixed([Credentials("alice", "old"), Credentials("alice", "new")])
    assert (
        directory.find(Credentials("alice", "old")) == directory.find(Credentials("alice", "new")) == Account("alice")
    )


@EACH
def test_accounts_may_be_an_iterator(make: Maker) -> None:
    directory = make(iter([Credentials("alice", "sesame"), Credentials("bob", "x")]))
    assert directory.find(Credentials("bob", "x")) == Account("bob")
    assert directory.stamp("alice")


@EACH
def test_the_repr_of_a_directory_contains_no_password(make: Maker) -> None:
    directory = make([Credentials("alice", "sesame")])
    assert "sesame" not in f"{directory!r} {vars(directory)!r}"


@pytest.mark.parametrize("make", [_keyed_fixed, _keyed_htpasswd])
def test_a_stamp_depends_on_the_key_the_name_and_the_password(make: Callable[[Credentials, bytes], str]) -> None:
    stamp = make(Credentials("alice", "sesame"), KEY)
    assert make(Credentials("alice", "sesame"), KEY) == stamp, "every process computes the same stamp"
    others = {
        make(Credentials("alice", "sesame"), b"another key"),
        make(Credentials("alice", "another"), KEY),
        make(Credentials("bob", "sesame"), KEY),
    }
    assert len({stamp, *others}) == 4


@EACH
@given(known=accounts, offered=logins)
def test_an_accepted_login_has_the_stamp_of_its_account(
    make: Maker, known: list[Credentials], offered: Credentials
) -> None:
    directory = make(known)
    if (found := directory.find(offered)) is not None:
        assert found.stamp == directory.stamp(found.name)


def test_a_stamp_changes_with_each_password_of_its_name() -> None:
    old, new = Credentials("alice", "old"), Credentials("alice", "new")
    stamps = {_fixed(known).stamp("alice") for known in ([old], [new], [old, new])}
    assert len(stamps) == 3
    assert _fixed([new, old]).stamp("alice") in stamps, "the order of the passwords does not matter"


@EACH
def test_a_stamp_contains_neither_password_nor_hash(make: Maker) -> None:
    directory = make([Credentials("alice", "sesame"), Credentials("bob", "sesame")])
    for name in ("alice", "bob"):
        assert "sesame" not in directory.stamp(name)
        assert "$2" not in directory.stamp(name)


def test_an_account_of_either_directory_is_accepted() -> None:
    directory = _several([Credentials("alice", "sesame"), Credentials("bob", "open")])
    assert directory.find(Credentials("alice", "sesame")) == Account("alice")
    assert directory.find(Credentials("bob", "open")) == Account("bob")
    assert directory.find(Credentials("alice", "open")) is None
