"""Which pulls the page shows, and to whom: twins of the tests of what the API gives to whom."""

import asyncio

import pytest

from application.access.access_request import Caller
from application.page.recent_pulls import ShownPull
from application.ports.telemetry import begin_record
from domain.access import Credentials
from domain.authorization import parse_authorization
from domain.names import RepositoryName
from tests.application.access.test_caller_classes import Turned
from tests.application.support.ruled import CLOSED, FOR_ACCOUNTS, ruled
from tests.application.support.service import (
    ALICE,
    BOB,
    IMAGE_DIGEST,
    NAME,
    PRIVATE,
    REALM,
    Service,
    accounts,
    basic,
    stocked,
)
from tests.application.support.trust_table import ROWS
from tests.application.support.watched import ALICES, NOBODYS, watched

WITH_ACCOUNTS = [row for row, (*_, checks_accounts, _) in ROWS.items() if checks_accounts]


def service_in(row: str) -> Service:
    number, scheme, identity, checks_accounts, _ = ROWS[row]
    settings: dict[str, object] = {"skip_auth_proxy": number == 1, "tag_ttl": 60, "grant_ttl": 300}
    if identity:
        settings["upstream_identity"] = identity
    if identity == "service":
        settings |= {"upstream_username": "alice", "upstream_password": "right"}
    if checks_accounts:
        settings["accounts"] = accounts(ALICE, BOB)
    upstream = stocked(scheme)
    upstream.users["bob"] = "right"
    return Service(upstream, **settings)


async def pull(service: Service, header: str | None, name: RepositoryName = NAME, reference: str = "1") -> None:
    """As the route does, and as the access log does after it."""
    record = begin_record()
    await service.manifest(header, name, reference)
    assert record.pull
    service.parts.pull_log().add(record.pull, record.account, "10.0.0.1", 0.25, 87)
    service.clock.advance(0.25)
    await asyncio.sleep(0)  # the grant is written


async def seen_by(service: Service, login: Credentials | None = None) -> list[ShownPull]:
    caller = Caller(parse_authorization(basic(login)) if login else None, REALM)
    viewer = await service.parts.identify_viewer()(caller)
    asked = len(service.upstream.asked)
    shown: list[ShownPull] = await service.parts.list_recent_pulls()(viewer, service.parts.upstreams().upstreams)
    assert len(service.upstream.asked) == asked
    return shown


def names(shown: list[ShownPull]) -> list[str]:
    return [str(one.recent.pull.source.repository) for one in shown]


@pytest.mark.parametrize("row", ["1 open", "2", "3", "5 anonymous", "5 service bearer", "5 service basic"])
def test_without_accounts_everyone_sees_what_anonymous_callers_were_given(row: str) -> None:
    service = service_in(row)

    async def action() -> None:
        await service.warm_up()
        await pull(service, f"Bearer {service.own_token()}" if row == "3" else None)
        (one,) = await seen_by(service)
        assert str(one.recent.pull.source.repository) == str(NAME)
        assert (one.recent.pull.reference, one.recent.size, one.recent.seconds) == ("1", 87, 0.25)
        assert (one.recent.pull.is_hit, one.is_own) == (False, False)

    service.run(action())


@pytest.mark.parametrize("row", ["1 bearer", "2", "3", "1 basic", "4"])
def test_without_accounts_nobody_sees_what_only_a_login_at_the_upstream_was_given(row: str) -> None:
    service = service_in(row)

    async def action() -> None:
        await service.warm_up()
        await pull(service, basic(ALICE) if ROWS[row][1] == "basic" else ALICES, PRIVATE)
        assert await seen_by(service) == []
        assert await seen_by(service, ALICE) == []  # the page uses no login of an upstream

    service.run(action())


@pytest.mark.parametrize("row", WITH_ACCOUNTS)
def test_with_accounts_a_viewer_without_a_login_sees_nothing(row: str) -> None:
    service = service_in(row)

    async def action() -> None:
        await service.warm_up()
        await pull(service, basic(ALICE))
        assert await seen_by(service) == []
        assert names(await seen_by(service, ALICE)) == [str(NAME)]

    service.run(action())


@pytest.mark.parametrize("row", ["7", "8"])
def test_an_account_with_its_own_upstream_login_sees_only_repositories_that_it_was_given(row: str) -> None:
    service = service_in(row)

    async def action() -> None:
        await service.warm_up()
        await pull(service, basic(ALICE), PRIVATE)
        await pull(service, basic(ALICE), NAME)
        await pull(service, basic(BOB), NAME)
        assert names(await seen_by(service, BOB)) == [str(NAME), str(NAME)]
        assert names(await seen_by(service, ALICE)) == [str(NAME), str(NAME), str(PRIVATE)]

    service.run(action())


@pytest.mark.parametrize("row", ["6 client", "6 anonymous", "6 service"])
def test_accounts_that_share_the_mirrors_identity_see_each_others_pulls_but_not_each_others_names(row: str) -> None:
    service = service_in(row)

    async def action() -> None:
        await service.warm_up()
        await pull(service, basic(ALICE))
        (of_alice,) = await seen_by(service, ALICE)
        (of_bob,) = await seen_by(service, BOB)
        assert (of_alice.is_own, of_bob.is_own) == (True, False)
        for one in (of_alice.recent, of_bob.recent):
            assert (one.account, one.address) == (None, "")

    service.run(action())


def test_an_account_does_not_see_what_the_access_rules_deny_to_it() -> None:
    service = ruled(service_in("6 service"), FOR_ACCOUNTS)

    async def action() -> None:
        await pull(service, basic(ALICE), PRIVATE)
        await pull(service, basic(BOB), NAME)
        assert names(await seen_by(service, BOB)) == [str(NAME)]
        assert names(await seen_by(service, ALICE)) == [str(NAME), str(PRIVATE)]

    service.run(action())


def test_what_the_rules_deny_since_a_reload_is_not_shown_any_longer() -> None:
    service = service_in("5 anonymous")

    async def action() -> None:
        await pull(service, None)
        assert names(await seen_by(service)) == [str(NAME)]
        ruled(service, CLOSED)
        for part in (service.parts.rules, service.parts.visibility, service.parts.list_recent_pulls):
            part.reset()
        assert await seen_by(service) == []

    service.run(action())


def test_a_repository_that_became_private_shows_only_what_anonymous_callers_were_given() -> None:
    turned = Turned()

    async def action() -> None:
        await turned.read_public()
        await pull(turned.service, NOBODYS)
        turned.upstream.public.discard(str(NAME))
        turned.upstream.put_manifest(str(NAME), "secret", b'{"schemaVersion":2,"layers":[],"annotations":{"a":"b"}}')
        await pull(turned.service, ALICES, NAME, "secret")
        assert [one.recent.pull.reference for one in await seen_by(turned.service)] == ["1"]

    turned.run(action())


def test_a_refusal_of_the_upstream_ends_what_is_shown() -> None:
    upstream = watched("none")
    service = Service(upstream, tag_ttl=60, grant_ttl=300)

    async def action() -> None:
        await pull(service, None)
        assert names(await seen_by(service)) == [str(NAME)]
        upstream.scheme = "bearer"
        upstream.public.clear()
        service.clock.advance(301)
        with pytest.raises(Exception, match="authentication required"):
            await service.manifest(None)
        assert await seen_by(service) == []

    service.run(action())


def test_a_hit_a_miss_and_a_digest_are_told_apart_and_a_head_is_no_pull() -> None:
    service = service_in("2")

    async def action() -> None:
        for reference in ("1", "1", str(IMAGE_DIGEST)):
            await pull(service, None, reference=reference)
        record = begin_record()
        await service.manifest(None, head=True)
        assert record.pull is None
        shown = [(one.recent.pull.reference, one.recent.pull.is_hit) for one in await seen_by(service)]
        assert shown == [(str(IMAGE_DIGEST), True), ("1", True), ("1", False)]

    service.run(action())


def test_only_pulls_from_the_given_upstreams_are_shown() -> None:
    service = service_in("2")

    async def action() -> None:
        await pull(service, None)
        viewer = await service.parts.identify_viewer()(Caller(None, REALM))
        assert await service.parts.list_recent_pulls()(viewer, ()) == []

    service.run(action())


def test_without_the_page_no_pull_is_kept() -> None:
    service = Service(stocked("none"), page="off")

    async def action() -> None:
        await pull(service, None)
        assert service.parts.pull_log().newest() == []

    service.run(action())
