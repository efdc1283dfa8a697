"""What every AccountDirectory does. The one that the service uses keeps its accounts in memory: it needs no fake."""

from collections.abc import Callable, Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.accounts.fixed import FixedAccountDirectory
from domain.access import Account, Credentials
from domain.ports import AccountDirectory

EACH = pytest.mark.parametrize("make", [FixedAccountDirectory])
Maker = Callable[[Iterable[Credentials]], AccountDirectory]
# Few enough to meet each other often; a user name holds no colon (RFC 7617 section 2).
logins = st.builds(Credentials, st.sampled_from(["", "alice", "Alice", "bob", "al", "é"]), st.text("a:é", max_size=2))


@EACH
@given(known=st.lists(logins, max_size=4), offered=logins)
def test_exactly_the_known_credentials_are_found(make: Maker, known: list[Credentials], offered: Credentials) -> None:
    assert make(known).find(offered) == (Account(offered.username) if offered in known else None)


@EACH
@given(known=st.lists(logins, max_size=4), name=st.sampled_from(["", "alice", "ALICE", "bob", "bo", "é"]))
def test_exactly_the_known_names_exist(make: Maker, known: list[Credentials], name: str) -> None:
    assert make(known).knows(name) == any(one.username == name for one in known)


@EACH
def test_an_empty_directory_knows_nobody(make: Maker) -> None:
    assert make([]).find(Credentials("", "")) is None
    assert not make([]).knows("")


@EACH
def test_a_colon_does_not_move_between_name_and_password(make: Maker) -> None:
    directory = make([Credentials("alice", "open:sesame")])
    assert directory.find(Credentials("alice", "open:sesame")) == Account("alice")
    assert directory.find(Credentials("alice:open", "sesame")) is None


@EACH
def test_two_passwords_of_one_name_both_open(make: Maker) -> None:
    directory = make([Credentials("alice", "old"), Credentials("alice", "new")])
    assert (
        directory.find(Credentials("alice", "old")) == directory.find(Credentials("alice", "new")) == Account("alice")
    )


@EACH
def test_accounts_may_come_only_once(make: Maker) -> None:
    directory = make(iter([Credentials("alice", "sesame"), Credentials("bob", "x")]))
    assert directory.find(Credentials("bob", "x")) == Account("bob")
    assert directory.knows("alice")


@EACH
def test_a_directory_never_prints_its_passwords(make: Maker) -> None:
    directory = make([Credentials("alice", "sesame")])
    assert "sesame" not in f"{directory!r} {vars(directory)!r}"
