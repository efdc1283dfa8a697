"""Whose a login is, and what it costs to find out."""

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest

from adapters.accounts.fixed import FixedAccountDirectory
from adapters.accounts.htpasswd import HtpasswdAccountDirectory
from adapters.accounts.several import CombinedAccountDirectory
from application.access.check_login import CheckLogin
from application.access.login_attempts import LoginAttempts
from domain.access import Account, Credentials
from domain.account_policy import AccountPolicy
from domain.errors import TooManyAttempts
from tests.fakes.clock import StoppedClock
from tests.fakes.events import RecordingEventSink
from tests.fakes.htpasswd import lines_of, write
from tests.fakes.steps import InlineSteps

ALICE, WRONG = Credentials("alice", "right"), Credentials("alice", "wrong")
CAROL = Credentials("carol", "fixed")
HERE, ELSEWHERE = "192.0.2.1", "192.0.2.2"


class Checks:
    """alice is in the file, carol in ACCOUNTS; `count` is of the slow steps."""

    def __init__(self, path: Path) -> None:
        self.path, self.clock, self.events, self.steps = path, StoppedClock(), RecordingEventSink(), InlineSteps()
        write(path, lines_of({"alice": "right"}))
        file = HtpasswdAccountDirectory(path, frozenset({"carol"}), self.clock, self.events, b"key")
        policy = AccountPolicy(CombinedAccountDirectory(FixedAccountDirectory([CAROL], b"key"), file))
        attempts = LoginAttempts(self.clock, self.events, self.clock.pause)
        self.check = CheckLogin(policy, attempts, self.steps, b"a key of this test")

    def __call__(self, credentials: Credentials, address: str = HERE) -> Account | None:
        return asyncio.run(self.check(credentials, address))

    def changed(self, **accounts: str) -> None:
        write(self.path, lines_of(accounts))
        self.clock.advance(1)

    @property
    def count(self) -> int:
        return self.steps.count

    def seconds(self, credentials: Credentials, address: str = HERE) -> float:
        before = self.clock.now()
        self(credentials, address)
        return self.clock.now() - before


@pytest.fixture
def checks(tmp_path: Path) -> Checks:
    return Checks(tmp_path / "htpasswd")


def together(*work: Coroutine[Any, Any, Any]) -> list[Any]:
    async def all_of_it() -> list[Any]:
        return await asyncio.gather(*work, return_exceptions=True)

    return asyncio.run(all_of_it())


@pytest.mark.parametrize("login", [ALICE, CAROL])
def test_a_right_login_opens_its_account(checks: Checks, login: Credentials) -> None:
    assert checks(login) == Account(login.username)
    assert checks(Credentials(login.username, "wrong")) is None
    assert checks(Credentials("mallory", login.password)) is None


def test_a_right_login_costs_one_slow_step_for_all_its_pulls(checks: Checks) -> None:
    assert [checks(ALICE) for _ in range(5)] == [Account("alice")] * 5
    assert checks.count == 1


def test_a_right_login_costs_no_second_one_from_elsewhere(checks: Checks) -> None:
    assert [checks(ALICE, f"192.0.2.{number}") for number in range(5)] == [Account("alice")] * 5
    assert checks.count == 1


def test_wrong_logins_are_looked_at_each_time(checks: Checks) -> None:
    assert [checks(WRONG) for _ in range(3)] == [None] * 3
    assert checks.count == 3


def test_the_same_login_many_times_at_once_is_one_attempt(checks: Checks) -> None:
    assert together(*(checks.check(WRONG, HERE) for _ in range(20))) == [None] * 20
    assert together(*(checks.check(ALICE, HERE) for _ in range(20))) == [Account("alice")] * 20
    assert checks.count == 2
    assert checks.events.events == []


def test_another_password_ends_what_is_remembered(checks: Checks) -> None:
    checks(ALICE)
    checks.changed(alice="new")
    assert checks(ALICE) is None
    assert checks(Credentials("alice", "new")) == Account("alice")


def test_the_same_password_hashed_anew_is_checked_anew(checks: Checks) -> None:
    checks(ALICE)
    checks.changed(alice="right")
    assert checks(ALICE) == Account("alice")
    assert checks.count == 2


def test_a_change_to_another_account_ends_nothing(checks: Checks) -> None:
    checks(ALICE)
    write(checks.path, checks.path.read_text() + lines_of({"bob": "open"}))
    checks.clock.advance(1)
    assert checks(ALICE) == Account("alice")
    assert checks.count == 1
    assert checks(Credentials("bob", "open")) == Account("bob")


def test_a_removed_account_is_nobodys_at_once(checks: Checks) -> None:
    opened = checks(ALICE)
    assert opened is not None
    assert checks.check.is_unchanged(opened)
    checks.changed(bob="open")
    assert checks(ALICE) is None
    assert not checks.check.is_unchanged(opened)


def test_a_file_that_is_changed_during_the_check_leaves_nothing_remembered(checks: Checks) -> None:
    class Meanwhile(InlineSteps):
        async def run(self, step: Any) -> Any:
            found = await super().run(step)
            checks.changed(alice="new")
            return found

    checks.check._steps = Meanwhile()
    opened = checks(ALICE)
    assert opened == Account("alice")
    assert not checks.check.is_unchanged(opened), "a token for the old password would outlive it"
    checks.check._steps = checks.steps
    assert checks(ALICE) is None


def test_a_login_that_is_remembered_brings_the_stamp_of_its_account(checks: Checks) -> None:
    for login, address in ((ALICE, HERE), (ALICE, HERE), (ALICE, ELSEWHERE), (CAROL, HERE), (CAROL, HERE)):
        opened = checks(login, address)
        assert opened is not None
        assert checks.check.is_unchanged(opened)


@pytest.mark.parametrize("user", ["alice", "carol", "mallory"])
def test_who_guesses_waits_whether_the_account_exists_or_not(checks: Checks, user: str) -> None:
    guesses = [checks.seconds(Credentials(user, f"guess {number}")) for number in range(7)]
    assert guesses == [0, 0, 0, 1, 2, 4, 8]


def test_a_known_login_waits_for_nobody_elsewhere(checks: Checks) -> None:
    checks(ALICE)
    together(*(checks.check(Credentials("alice", f"guess {number}"), ELSEWHERE) for number in range(60)))
    assert [checks.seconds(ALICE) for _ in range(5)] == [0] * 5


def test_a_known_login_waits_for_a_few_wrong_ones_here_neither(checks: Checks) -> None:
    checks(ALICE)
    for number in range(7):
        checks(Credentials("alice", f"guess {number}"))
    assert checks.seconds(ALICE) == 0


def test_who_guesses_is_not_told_sooner_what_is_right(checks: Checks) -> None:
    checks(ALICE)
    for number in range(7):
        checks(Credentials("alice", f"guess {number}"), ELSEWHERE)
    assert checks.seconds(ALICE, ELSEWHERE) == 8


def test_who_guesses_at_the_same_address_is_not_told_for_long(checks: Checks) -> None:
    checks(ALICE)
    guesses = [checks.check(Credentials("alice", f"guess {number}"), HERE) for number in range(60)]
    refused = [answer for answer in together(*guesses) if isinstance(answer, TooManyAttempts)]
    assert len(refused) > 50
    assert checks.seconds(ALICE) > 0


@pytest.mark.parametrize(
    ("one", "other"),
    [("2001:db8::1", "2001:db8::ffff:2"), ("::ffff:192.0.2.1", "192.0.2.1"), ("fe80::1%eth0", "fe80::2%eth1")],
)
def test_addresses_that_one_machine_may_choose_are_one_place(checks: Checks, one: str, other: str) -> None:
    for number in range(4):
        checks(Credentials("alice", f"guess {number}"), one)
    assert checks.seconds(WRONG, other) == 2


@pytest.mark.parametrize(("one", "other"), [("2001:db8::1", "2001:db8:0:1::1"), ("192.0.2.1", ""), ("a socket", "")])
def test_other_addresses_are_other_places(checks: Checks, one: str, other: str) -> None:
    for number in range(4):
        checks(Credentials("alice", f"guess {number}"), one)
    assert checks.seconds(WRONG, other) == 0


def test_no_password_is_kept_in_what_is_remembered(checks: Checks) -> None:
    checks(ALICE)
    checks(Credentials("alice", "sesame"))
    assert all(isinstance(key, bytes) and len(key) == 32 for key in checks.check._stamps._entries)
    assert len(checks.check._stamps._entries) == 2


def test_a_right_login_ends_the_waiting(checks: Checks) -> None:
    for number in range(3):
        checks(Credentials("alice", f"guess {number}"))
    assert checks.seconds(ALICE) == 1
    assert [checks.seconds(WRONG) for _ in range(3)] == [0, 0, 0]
