"""Who it is that calls, as far as an upstream's word to one must not serve another."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from application.access.access_request import Access
from application.access.caller import CallerIdentities
from application.ports.index import CallerIdentity
from application.ports.upstream import ForwardedCredentials, SessionCredentials, UpstreamCredentials
from domain.access import Credentials
from domain.records import ANONYMOUS_CALLER, mirror_caller
from domain.tokens import IssuedToken
from domain.upstreams import Origin, Source, Upstream
from tests.application.support.service import ALICE, BOB, NAME, basic
from tests.fakes.clock import StoppedClock
from tests.fakes.codec import PlainTokenCodec
from tests.fakes.index import MemoryKnowledgeIndex

SOURCE = Source(Upstream.at("https://u.test", Origin("https", "u.test", 443)), NAME)
NOW = 1_800_000_000
FOREVER = float("inf")


class World:
    """Several workers' callers over one book."""

    def __init__(self, key: bytes = b"k" * 32) -> None:
        self.store = MemoryKnowledgeIndex()
        self.clock = StoppedClock(NOW)
        self.callers = self.worker(key)

    def worker(self, key: bytes = b"k" * 32) -> CallerIdentities:
        mirrors = {SOURCE.upstream: mirror_caller("its login")}
        return CallerIdentities(self.store, PlainTokenCodec(), key, mirrors, self.clock)

    def identity(
        self, right: UpstreamCredentials | str, *, is_mirrors: bool = False, by: CallerIdentities | None = None
    ) -> CallerIdentity:
        asked: Any = ForwardedCredentials(right) if isinstance(right, str) else right
        request: Any = SimpleNamespace(request=SimpleNamespace(upstream=SOURCE.upstream))
        return asyncio.run((by or self.callers).of(Access(request, asked, is_mirrors)))

    def given(self, login: Credentials | str | None, text: str, seconds: int = 300) -> None:
        asyncio.run(self.callers.remember(login, IssuedToken(text, seconds, NOW)))


def test_a_user_with_several_tokens_is_one_caller() -> None:
    world = World()
    world.given(ALICE, "one", 300)
    world.given(ALICE, "two", 60)
    first, second = world.identity("Bearer one"), world.identity("Bearer two")
    assert first.caller == second.caller == world.identity(basic(ALICE)).caller
    assert first.caller == world.identity(SessionCredentials(ALICE)).caller
    assert (first.ends_at, second.ends_at) == (NOW + 300, NOW + 60)


def test_every_worker_knows_whose_a_token_is() -> None:
    world = World()
    world.given(ALICE, "one")
    assert world.identity("Bearer one", by=world.worker()) == world.identity("Bearer one")


def test_within_five_seconds_every_worker_learns_that_two_logins_have_the_same_token() -> None:
    world = World()
    other = world.worker()
    world.given(ALICE, "shared")
    assert world.identity("Bearer shared", by=other).caller == world.identity(basic(ALICE)).caller
    world.given(BOB, "shared")
    world.clock.advance(5)
    found = world.identity("Bearer shared", by=other).caller
    assert found == world.identity("Bearer shared").caller
    assert found not in {world.identity(basic(ALICE)).caller, world.identity(basic(BOB)).caller}


def test_users_are_told_apart() -> None:
    world = World()
    logins = [ALICE, BOB, Credentials("alice", "other"), Credentials("ali", "ceright"), Credentials("alice:", "right")]
    assert len({world.identity(SessionCredentials(login)).caller for login in logins}) == len(logins)


def test_names_and_passwords_do_not_run_into_each_other() -> None:
    world = World()
    pairs = [Credentials("1:a", "b"), Credentials("1", "a:b"), Credentials("a", "1:b"), Credentials("", "1:a:b")]
    assert len({world.identity(SessionCredentials(pair)).caller for pair in pairs}) == len(pairs)


def test_strangers_tokens_are_callers_of_their_own() -> None:
    world = World()
    one, two = world.identity("Bearer one"), world.identity("Bearer two")
    assert one.caller != two.caller
    assert ANONYMOUS_CALLER not in {one.caller, two.caller}
    assert one.ends_at == FOREVER


def test_what_a_strangers_token_says_of_its_end_counts() -> None:
    world = World()
    codec = PlainTokenCodec("somebody else's")
    for claim, end in [(NOW + 5, NOW + 5), (NOW + 0.5, NOW + 0.5), (True, FOREVER), ("soon", FOREVER), (None, FOREVER)]:
        token = codec.sign("JWT", {"exp": claim})
        assert world.identity(f"Bearer {token}").ends_at == end, claim


def test_a_refresh_token_is_somebody_of_its_own() -> None:
    world = World()
    world.given("refresh", "one")
    world.given("refresh", "two")
    assert world.identity("Bearer one").caller == world.identity("Bearer two").caller
    assert world.identity("Bearer one").caller not in {
        ANONYMOUS_CALLER,
        world.identity(SessionCredentials(ALICE)).caller,
    }


def test_nobodys_token_is_the_anonymous_caller() -> None:
    world = World()
    world.given(None, "nobody's")
    assert world.identity("Bearer nobody's") == CallerIdentity(ANONYMOUS_CALLER, NOW + 300)
    assert (
        world.identity(ForwardedCredentials())
        == world.identity(SessionCredentials())
        == CallerIdentity(ANONYMOUS_CALLER, FOREVER)
    )


def test_the_mirrors_own_login_is_the_mirror() -> None:
    world = World()
    assert world.identity(SessionCredentials(ALICE), is_mirrors=True) == CallerIdentity(
        mirror_caller("its login"), FOREVER
    )
    assert world.identity(SessionCredentials(), is_mirrors=True).caller == ANONYMOUS_CALLER
    assert world.identity(ForwardedCredentials(), is_mirrors=True).caller == ANONYMOUS_CALLER


def test_an_unreadable_header_is_a_caller_of_its_own() -> None:
    world = World()
    headers = ["Bearer one two", "Negotiate abc", "Basic !!!"]
    callers = {world.identity(header).caller for header in headers}
    assert len(callers) == 3
    assert ANONYMOUS_CALLER not in callers


def test_nothing_that_is_kept_opens_a_door() -> None:
    world = World()
    world.given(ALICE, "the-token-itself")
    kept = repr(world.store.identities)
    for secret in ("the-token-itself", "alice", "right"):
        assert secret not in kept


def test_another_secret_makes_other_fingerprints() -> None:
    world = World()
    assert world.identity(SessionCredentials(ALICE)) != world.identity(
        SessionCredentials(ALICE), by=world.worker(b"j" * 32)
    )


def test_any_text_in_a_header_has_a_fingerprint() -> None:
    world = World()
    assert world.identity("Bearer \udcff").caller != world.identity("Bearer \udcfe").caller


def test_a_token_that_several_were_given_stands_for_none_of_them() -> None:
    world = World()
    world.given(None, "same")
    world.given(ALICE, "same")
    caller = world.identity("Bearer same").caller
    assert caller not in {ANONYMOUS_CALLER, world.identity(basic(ALICE)).caller}
    assert caller == world.identity("Bearer same", by=world.worker()).caller


@pytest.mark.parametrize("end", [10**400, "1e400", "soon", None, True])
def test_a_strangers_end_that_is_none_is_forever_at_most(end: object) -> None:
    text = PlainTokenCodec("a stranger's").sign("JWT", {"exp": end})
    assert World().identity(f"Bearer {text}").ends_at in {FOREVER, 1.0}
