"""Logins that go upstream through this service: how long the next one waits after the upstream refused some."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from application.access.access_request import Caller
from application.access.grant_token import TokenQuery
from application.manifests.manifest_query import ManifestQuery
from application.ports.upstream import ForwardedCredentials, SessionCredentials
from domain.access import Credentials, ScopeSet
from domain.authorization import parse_authorization
from domain.errors import (
    CredentialsRejected,
    Denied,
    RegistryError,
    TooManyAttempts,
    Unauthorized,
    UpstreamBroken,
    UpstreamThrottled,
    UpstreamTimedOut,
    UpstreamUnreachable,
)
from domain.events import LoginDelayed, LoginRejected
from domain.names import Reference
from tests.application.support.service import ALICE, BOB, NAME, REALM, Service, accounts, basic, in_base64, stocked

HERE, ELSEWHERE = "192.0.2.1", "192.0.2.2"
PULL = ScopeSet.parse(["repository:public/app:pull"])
WAITS = [0, 0, 0, 1, 2, 4, 8]
"""Seconds that one wrong login after the other waits."""


class Door:
    """One way by which a caller's login goes upstream. `login` is the right one; `guess` gives wrong ones."""

    def __init__(self, service: Service) -> None:
        self.service = service

    async def knock(self, login: Credentials | None, address: str = HERE) -> None:
        raise NotImplementedError

    def seconds(self, login: Credentials | None, address: str = HERE) -> float:
        """How long it waited, whatever came of it; a refusal by TooManyAttempts is an error of the test."""
        before = self.service.clock.now()
        try:
            self.service.run(self.knock(login, address))
        except TooManyAttempts:
            raise
        except RegistryError:
            pass
        return self.service.clock.now() - before

    def results(self, *logins: Credentials) -> list[Any]:
        """All at once."""

        async def all_of_them() -> list[Any]:
            return await asyncio.gather(*map(self.knock, logins), return_exceptions=True)

        return list(self.service.run(all_of_them()))


class Token(Door):
    """/v2/auth."""

    async def knock(self, login: Credentials | None, address: str = HERE) -> None:
        await self.service.parts.grant_token()(TokenQuery(scopes=PULL, credentials=login, address=address))


class Refresh(Door):
    """/v2/auth by a refresh token, here in the place of the password."""

    async def knock(self, login: Credentials | None, address: str = HERE) -> None:
        assert login is not None
        await self.service.parts.grant_token()(TokenQuery(scopes=PULL, refresh_token=login.password, address=address))


class Manifest(Door):
    """A manifest, with Basic."""

    async def knock(self, login: Credentials | None, address: str = HERE) -> None:
        header = basic(login) if login else None
        caller = Caller(parse_authorization(header), REALM, address)
        await self.service.parts.pull_manifest()(caller, ManifestQuery(NAME, Reference.parse("1")))


class Ping(Door):
    """/v2/, with Basic."""

    async def knock(self, login: Credentials | None, address: str = HERE) -> None:
        caller = Caller(parse_authorization(basic(login) if login else None), REALM, address)
        await self.service.parts.answer_ping()(caller, self.service.parts.upstream())


def guess(number: int, user: str = "alice") -> Credentials:
    return Credentials(user, f"guess {number}")


Make = Callable[[], Door]
ROW_1 = {"skip_auth_proxy": True}
BY_CALLERS = {
    "row 1, manifest": lambda: Manifest(Service(stocked("basic"), **ROW_1)),
    "row 1, ping": lambda: Ping(Service(stocked("basic"), **ROW_1)),
    "row 3, token": lambda: Token(Service(stocked("bearer"))),
    "row 4, manifest": lambda: Manifest(Service(stocked("basic"))),
    "row 4, ping": lambda: Ping(Service(stocked("basic"))),
}
DOORS = pytest.mark.parametrize("make", BY_CALLERS.values(), ids=BY_CALLERS)
# Here an account that is right at the mirror is wrong upstream: bob has none there.
BY_ACCOUNTS = {
    "row 7, token": lambda: Token(Service(stocked("bearer"), accounts=accounts(ALICE, BOB))),
    "row 7, manifest": lambda: Manifest(Service(stocked("bearer"), accounts=accounts(ALICE, BOB))),
    "row 7, ping": lambda: Ping(Service(stocked("bearer"), accounts=accounts(ALICE, BOB))),
    "row 8, manifest": lambda: Manifest(Service(stocked("basic"), accounts=accounts(ALICE, BOB))),
    "row 8, ping": lambda: Ping(Service(stocked("basic"), accounts=accounts(ALICE, BOB))),
}


@DOORS
def test_who_guesses_upstream_passwords_waits(make: Make) -> None:
    door = make()
    assert [door.seconds(guess(number)) for number in range(7)] == WAITS
    with pytest.raises(TooManyAttempts) as caught:
        door.service.run(_two(door))
    assert caught.value.retry_after > 10


async def _two(door: Door) -> None:
    """Two more at once: the second would have to wait for more than ten seconds."""
    found = await asyncio.gather(door.knock(guess(98)), door.knock(guess(99)), return_exceptions=True)
    raise next(one for one in found if isinstance(one, TooManyAttempts))


@pytest.mark.parametrize("make", BY_ACCOUNTS.values(), ids=BY_ACCOUNTS)
def test_an_account_that_is_wrong_upstream_waits_there(make: Make) -> None:
    door = make()
    assert [door.seconds(BOB) for _ in range(7)] == WAITS
    assert door.seconds(ALICE) == 0


def test_refresh_tokens_are_logins_too() -> None:
    service = Service(stocked("bearer"))
    service.upstream.refresh_token = "right"
    door = Refresh(service)
    assert [door.seconds(guess(1)) for _ in range(7)] == WAITS
    assert door.seconds(Credentials("", "right")) == 0


@DOORS
def test_nobody_else_is_slowed(make: Make) -> None:
    door = make()
    for number in range(7):
        door.seconds(guess(number))
    assert door.seconds(guess(1, "bob")) == 0, "another account"
    assert door.seconds(guess(1), ELSEWHERE) == 0, "another address"
    assert door.seconds(ALICE, ELSEWHERE) == 0


@DOORS
def test_an_address_is_slowed_for_all_accounts_together(make: Make) -> None:
    door = make()
    waits = [door.seconds(guess(number, f"user{number}")) for number in range(32)]
    assert waits[:30] == [0] * 30
    assert min(waits[30:]) > 0


@DOORS
def test_many_guesses_at_once_reach_the_upstream_a_few_at_a_time(make: Make) -> None:
    door = make()
    door.seconds(None)  # learns the row
    for requests in (door.service.upstream.pinged, door.service.upstream.relayed, door.service.upstream.asked):
        requests.clear()
    results = door.results(*(guess(number) for number in range(60)))
    refused = [one for one in results if isinstance(one, TooManyAttempts)]
    assert len(refused) > 50
    upstream = door.service.upstream
    assert len(upstream.pinged) + len(upstream.relayed) + len(upstream.asked) == 60 - len(refused)
    assert any(isinstance(event, LoginRejected) for event in door.service.events)
    assert "guess" not in repr(door.service.events)


@DOORS
def test_a_login_that_was_right_here_waits_for_nobody(make: Make) -> None:
    door = make()
    assert door.seconds(ALICE) == 0
    for number in range(7):
        door.seconds(guess(number))
    assert [door.seconds(ALICE) for _ in range(5)] == [0] * 5
    assert LoginDelayed("alice at https://upstream.test", HERE, 1) in door.service.events


@DOORS
def test_a_right_login_is_made_to_wait_where_it_is_guessed(make: Make) -> None:
    door = make()
    for number in range(7):
        door.seconds(guess(number))
    assert door.seconds(ALICE) == 8


@DOORS
def test_a_right_login_clears_its_account(make: Make) -> None:
    door = make()
    for number in range(5):
        door.seconds(guess(number))
    door.seconds(ALICE)
    assert door.seconds(guess(9)) == 0


@DOORS
def test_the_same_login_many_times_at_once_is_one_attempt(make: Make) -> None:
    door = make()
    door.service.upstream.ping = slowly(door.service.upstream.ping)
    assert door.results(*[ALICE] * 20) == [None] * 20
    results = door.results(*[guess(1)] * 20)
    assert {type(one) for one in results} <= {CredentialsRejected, Unauthorized}
    assert door.seconds(guess(2)) == 0


@pytest.mark.parametrize(
    "fault",
    [
        UpstreamUnreachable("gone"),
        UpstreamTimedOut("silent"),
        UpstreamThrottled("too many", retry_after="1"),
        UpstreamBroken("500"),
    ],
    ids=lambda fault: type(fault).__name__,
)
@DOORS
def test_an_upstream_that_cannot_answer_refuses_no_login(make: Make, fault: RegistryError) -> None:
    door = make()
    door.seconds(None)  # learns the row
    for _ in range(12):
        door.service.upstream.fault = fault
        assert door.seconds(ALICE) == 0
        door.service.clock.advance(6)
    door.service.upstream.fault = None
    assert [door.seconds(guess(number)) for number in range(4)] == [0, 0, 0, 1]


def slowly(answer: Callable[..., Any]) -> Callable[..., Any]:
    """The same, while others come too."""

    async def later(*asked: Any, **options: Any) -> Any:
        for _ in range(50):
            await asyncio.sleep(0)
        return await answer(*asked, **options)

    return later


@DOORS
def test_many_right_logins_of_one_name_are_let_in(make: Make) -> None:
    """ECR has the user `AWS`, GitLab `gitlab-ci-token`: each client has a token of its own in the place of a password,
    and many clients may be behind one address.
    """
    door = make()
    upstream = door.service.upstream
    upstream.ping, upstream.fetch = slowly(upstream.ping), slowly(upstream.fetch)
    jobs = [Credentials("gitlab-ci-token", f"of job {number}") for number in range(60)]
    upstream.logins |= set(jobs)
    before = door.service.clock.now()
    assert door.results(*jobs) == [None] * 60
    assert door.service.clock.now() == before


@DOORS
def test_a_slow_upstream_makes_no_right_login_a_wrong_one(make: Make) -> None:
    """Nothing was wrong, so there is nothing to be refused for, however long the others took."""
    door = make()
    upstream, clock = door.service.upstream, door.service.clock

    def seven_seconds(answer: Callable[..., Any]) -> Callable[..., Any]:
        async def later(*asked: Any, **options: Any) -> Any:
            for _ in range(20):
                await asyncio.sleep(0)
            clock.advance(7)
            return await answer(*asked, **options)

        return later

    upstream.ping, upstream.fetch = seven_seconds(upstream.ping), seven_seconds(upstream.fetch)
    office = [Credentials(f"user{number}", "right") for number in range(100)]
    upstream.logins |= set(office)
    assert door.results(*office) == [None] * 100


@DOORS
def test_who_brings_no_login_is_never_slowed(make: Make) -> None:
    door = make()
    for number in range(40):
        door.seconds(guess(number, f"user{number}"))
    assert [door.seconds(None) for _ in range(5)] == [0] * 5


def test_a_token_server_may_refuse_a_login_with_403() -> None:
    """As ghcr.io does; but for a login that was right here it says that the scope is not allowed."""
    door = Token(Service(stocked("bearer")))
    door.service.upstream.refusal = Denied("denied")
    assert [door.seconds(guess(number)) for number in range(5)] == [0, 0, 0, 1, 2]
    door.service.upstream.refusal = None
    door.seconds(ALICE, ELSEWHERE)
    door.service.upstream.refusal = Denied("denied")
    assert [door.seconds(ALICE, ELSEWHERE) for _ in range(8)] == [0] * 8


@pytest.mark.parametrize("settings", [{}, ROW_1])
def test_a_login_is_proven_once_before_it_is_used(settings: dict[str, object]) -> None:
    door = Manifest(Service(stocked("basic"), **settings))
    door.seconds(None)
    upstream = door.service.upstream
    upstream.pinged.clear()
    upstream.asked.clear()
    for _ in range(3):
        door.seconds(ALICE)
    assert upstream.pinged == [ForwardedCredentials(basic(ALICE))]
    assert [fetch.credentials for fetch in upstream.asked][:1] == [ForwardedCredentials(basic(ALICE))]
    upstream.users["alice"] = "new"
    upstream.pinged.clear()
    door.service.clock.advance(10_000)
    # The first is still believed and is refused; then each is proven, and slowed.
    assert [door.seconds(ALICE) for _ in range(6)] == [0, 0, 0, 0, 1, 2]
    assert upstream.pinged.count(ForwardedCredentials(basic(ALICE))) == 5


@pytest.mark.parametrize("settings", [{}, ROW_1], ids=["row 4", "row 1"])
def test_a_login_that_no_ping_decides_is_counted_where_a_resource_refuses_it(settings: dict[str, object]) -> None:
    door = Manifest(Service(stocked("basic"), **settings))
    door.seconds(None)  # learns the row

    async def broken(*_: Any, **__: Any) -> Any:
        raise UpstreamBroken("404")

    door.service.upstream.ping = broken
    assert [door.seconds(guess(number)) for number in range(7)] == WAITS
    assert len(door.service.upstream.asked) >= 7
    assert door.seconds(ALICE, ELSEWHERE) == 0


@pytest.mark.parametrize("header", [f"Basic {in_base64('alice:é')[:-1]}", "Basic YWxpY2U6w"])
def test_a_login_that_cannot_be_read_here_is_proven_too(header: str) -> None:
    """Somebody upstream may read it; it would be a way past all slowing."""
    service = Service(stocked("basic"))

    async def pull() -> None:
        caller = Caller(parse_authorization(header), REALM, HERE)
        await service.parts.pull_manifest()(caller, ManifestQuery(NAME, Reference.parse("1")))

    for _ in range(4):
        with pytest.raises(Unauthorized):
            service.run(pull())
    assert service.upstream.asked == []
    assert service.clock.now() == 1_800_000_001


def test_a_bearer_challenge_to_a_password_refuses_no_login() -> None:
    """Row 1: the upstream wants tokens, and the client sends a password all the same."""
    door = Ping(Service(stocked("bearer"), **ROW_1))
    assert [door.seconds(ALICE) for _ in range(8)] == [0] * 8


def test_the_operators_own_login_is_not_proven() -> None:
    service = Service(stocked("bearer"), accounts=accounts(ALICE))
    caller = Caller(parse_authorization(basic(ALICE)), REALM, is_operator=True)
    service.run(service.warm_up())
    service.run(service.parts.pull_manifest()(caller, ManifestQuery(NAME, Reference.parse("1"))))
    assert service.upstream.pinged == []
    assert [fetch.credentials for fetch in service.upstream.asked] == [SessionCredentials(ALICE)]
