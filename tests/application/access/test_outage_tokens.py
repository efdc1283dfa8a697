"""Tokens, pings and stances while the upstream is gone."""

import asyncio
from typing import Any

import pytest

from application.access.access_request import Access, PullAccess
from application.access.grant_token import TokenQuery
from application.manifests.manifest_query import ManifestQuery
from application.ports.upstream import ForwardedCredentials
from domain.access import Credentials, ScopeSet
from domain.errors import (
    CredentialsRejected,
    Denied,
    RegistryError,
    Unauthorized,
    UpstreamAuthUnknown,
    UpstreamTimedOut,
    UpstreamUnreachable,
)
from domain.names import Reference
from domain.tokens import IssuedToken
from tests.application.support.service import ALICE, IMAGE_CONTENT, IMAGE_DIGEST, NAME, PRIVATE, Service, accounts
from tests.application.support.watched import NOBODYS, watched

BOTH = ScopeSet.parse([f"repository:{NAME}:pull", f"repository:{PRIVATE}:pull"])
PUBLIC = ScopeSet.parse([f"repository:{NAME}:pull"])
GONE = UpstreamUnreachable("gone")
STRANGER = Credentials("stranger", "whatever")


class Outage:
    """A mirror that let alice and nobody in, and whose upstream is gone since."""

    def __init__(self, *, row: int, **settings: Any) -> None:
        self.upstream = watched()
        given = {"accounts": accounts(ALICE, STRANGER)} if row == 7 else {}
        self.service = Service(self.upstream, **given | settings)
        self.row = row

    async def token(self, credentials: Credentials | None, scopes: ScopeSet = BOTH, **others: Any) -> IssuedToken:
        query = TokenQuery(scopes=scopes, credentials=credentials, **others)
        return await self.service.parts.grant_token()(query)

    async def begin(self) -> None:
        await self.service.warm_up()
        who = [(ALICE, PRIVATE), (ALICE, NAME)] + ([(None, NAME)] if self.row == 3 else [])
        for credentials, name in who:
            token = await self.token(credentials)
            await self.service.manifest(f"Bearer {token.text}", name)
        if self.row == 7:
            # An anonymous caller has to have been given it for it to be public; without an account nobody can be.
            callers, now = self.service.parts.caller_identities(), int(self.service.clock.now())
            await callers.remember(None, IssuedToken(NOBODYS.removeprefix("Bearer "), 300, now))
            source = self.service.parts.upstreams().source_of(NAME)
            access = _access(NOBODYS)
            ask = PullAccess(await callers.of(access), access.credentials, source)
            query = ManifestQuery(NAME, Reference.parse("1"))
            await self.service.parts.fetch_manifest().get(ask, query)
            await asyncio.sleep(0)  # it is written down behind whoever asked
        self.upstream.fault = GONE

    def run(self, action: Any) -> Any:
        async def whole() -> Any:
            await self.begin()
            return await action

        return self.service.run(whole())


def _access(header: str) -> Any:
    check: Any = None
    return Access(check, ForwardedCredentials(header), is_mirrors=False)


async def rows(service: Service, count: int) -> list[int]:
    """The trust rows that apply, one after the other, with time for a probe between them."""
    found = []
    for _ in range(count):
        found.append((await service.parts.upstream_auth().row(service.parts.upstream()))[0].number)
        await asyncio.sleep(0.01)
    return found


ROWS = pytest.mark.parametrize("row", [3, 7])


@ROWS
@pytest.mark.parametrize("credentials", [ALICE, STRANGER, None])
def test_nobodys_token_is_given_for_what_is_public(row: int, credentials: Credentials | None) -> None:
    if row == 7 and credentials is None:
        return
    outage = Outage(row=row)

    async def act() -> tuple[IssuedToken, Any, Any]:
        token = await outage.token(credentials)
        header = f"Bearer {token.text}"
        await outage.service.ping(header)
        by_tag = await outage.service.manifest(header)
        by_digest = await outage.service.manifest(header, reference=str(IMAGE_DIGEST))
        with pytest.raises(Unauthorized):
            await outage.service.manifest(header, PRIVATE)
        return token, by_tag, by_digest

    token, by_tag, by_digest = outage.run(act())
    assert token.scopes == PUBLIC
    assert token.expires_in >= 60
    assert by_tag.content == by_digest.content == IMAGE_CONTENT


@ROWS
def test_no_token_is_given_for_what_is_not_public(row: int) -> None:
    outage = Outage(row=row)

    async def act() -> None:
        for words in ([f"repository:{PRIVATE}:pull"], [], ["registry:catalog:*"]):
            scopes = ScopeSet.parse(words)
            with pytest.raises(UpstreamUnreachable):
                await outage.token(ALICE, scopes)

    outage.run(act())


@ROWS
def test_more_than_to_pull_is_never_given(row: int) -> None:
    outage = Outage(row=row)

    async def act() -> IssuedToken:
        return await outage.token(ALICE, ScopeSet.parse([f"repository:{NAME}:pull,push"]))

    assert all(scope.actions == {"pull"} for scope in outage.run(act()).scopes)


@ROWS
def test_nothing_is_public_for_longer_than_stale_ttl(row: int) -> None:
    outage = Outage(row=row, stale_ttl=1000)

    async def act() -> None:
        outage.service.clock.advance(999)
        assert (await outage.token(ALICE)).scopes == PUBLIC
        outage.service.clock.advance(2)
        with pytest.raises(UpstreamUnreachable):
            await outage.token(ALICE)

    outage.run(act())


def test_accounts_are_checked_first_all_the_same() -> None:
    outage = Outage(row=7)

    async def act() -> None:
        for credentials in (None, Credentials("alice", "wrong"), Credentials("nobody", "")):
            with pytest.raises(CredentialsRejected):
                await outage.token(credentials)
        with pytest.raises(CredentialsRejected):
            await outage.token(None, has_other_login=True)

    outage.run(act())


def test_such_a_token_ends_with_its_account() -> None:
    outage = Outage(row=7)

    async def act() -> None:
        token = await outage.token(STRANGER)
        fewer = Service(outage.upstream, outage.service.clock, outage.service.parts.storage(), accounts=accounts(ALICE))
        with pytest.raises(Unauthorized):
            await fewer.manifest(f"Bearer {token.text}")

    outage.run(act())


@ROWS
def test_such_a_token_is_nobodys_when_the_upstream_is_back(row: int) -> None:
    outage = Outage(row=row)

    async def act() -> None:
        token = await outage.token(ALICE)
        outage.upstream.fault = None
        outage.upstream.asked.clear()
        outage.service.clock.advance(61)
        assert (await outage.service.manifest(f"Bearer {token.text}")).content == IMAGE_CONTENT
        assert {repr(fetch.credentials) for fetch in outage.upstream.asked} == {"SessionCredentials(login=None)"}

    outage.run(act())


@pytest.mark.parametrize("error", [CredentialsRejected("wrong"), Denied("no")])
@ROWS
def test_the_token_servers_word_is_passed_on(row: int, error: RegistryError) -> None:
    outage = Outage(row=row)

    async def act() -> None:
        outage.upstream.fault = error
        with pytest.raises(type(error)):
            await outage.token(ALICE)

    outage.run(act())


def test_a_ping_with_an_upstreams_own_token_is_not_welcome_unasked() -> None:
    outage = Outage(row=3)

    async def act() -> None:
        with pytest.raises(UpstreamUnreachable):
            await outage.service.ping("Bearer upstream-token-of-alice=")
        with pytest.raises(Unauthorized):
            await outage.service.ping(None)

    outage.run(act())


def test_a_refresh_token_buys_no_more_than_nobodys() -> None:
    outage = Outage(row=3)

    async def act() -> IssuedToken:
        return await outage.token(None, refresh_token="made up")

    assert outage.run(act()).scopes == PUBLIC


@pytest.mark.parametrize(("scheme", "row"), [("none", 2), ("bearer", 3), ("basic", 4)])
def test_a_mirror_whose_upstream_is_gone_still_starts(scheme: str, row: int) -> None:
    upstream = watched(scheme)
    first = Service(upstream)
    first.run(first.warm_up())
    upstream.fault = UpstreamTimedOut("gone")
    later = Service(upstream, first.clock, first.parts.storage())

    async def act() -> int:
        with pytest.raises((Unauthorized, UpstreamTimedOut)):
            await later.ping()
        return (await later.parts.upstream_auth().row(later.parts.upstream()))[0].number

    assert later.run(act()) == row


def test_what_was_pulled_is_there_after_a_start_without_upstream() -> None:
    outage = Outage(row=3)
    outage.run(outage.token(ALICE))
    later = Service(outage.upstream, outage.service.clock, outage.service.parts.storage())

    async def act() -> Any:
        query = TokenQuery(scopes=BOTH)
        token = await later.parts.grant_token()(query)
        return await later.manifest(f"Bearer {token.text}")

    answer = later.run(act())
    assert (answer.content, len(answer.warnings)) == (IMAGE_CONTENT, 0)  # the tag is believed still


def test_a_changed_stance_is_learnt_soon_after_the_start() -> None:
    upstream = watched("none")
    first = Service(upstream)
    first.run(first.warm_up())
    upstream.scheme = "bearer"
    later = Service(upstream, first.clock, first.parts.storage())

    async def act() -> list[int]:
        return await rows(later, 2)

    assert later.run(act()) == [2, 3]


def test_without_anything_stored_nothing_is_known() -> None:
    upstream = watched()
    upstream.fault = GONE
    service = Service(upstream)

    async def act() -> None:
        with pytest.raises(UpstreamAuthUnknown):
            await service.ping()

    service.run(act())
