"""What every GrantStore does."""

from dataclasses import replace

from domain.records import ANONYMOUS_CALLER, CallerId, Grant, mirror_caller
from tests.contracts.storage import HUB, NGINX, NGINX_AT_QUAY, REDIS, Worker, by_two_workers

NOW = 1_800_000_000.0
ALICE = CallerId("f1" * 32)
GRANT = Grant(ALICE, NGINX, NOW, NOW + 300)


@by_two_workers
async def test_what_is_kept_is_found_by_all_for_that_caller_and_source_alone(one: Worker, other: Worker) -> None:
    assert await one.grants.find(ALICE, NGINX) is None
    await one.grants.keep(GRANT, NOW + 300)
    assert await one.grants.find(ALICE, NGINX) == await other.grants.find(ALICE, NGINX) == GRANT
    for caller in (ANONYMOUS_CALLER, mirror_caller("a"), mirror_caller("b"), CallerId("f2" * 32)):
        assert await one.grants.find(caller, NGINX) is None
    for source in (REDIS, NGINX_AT_QUAY):
        assert await one.grants.find(ALICE, source) is None


@by_two_workers
async def test_a_grant_replaces_the_one_before(one: Worker, other: Worker) -> None:
    await one.grants.keep(GRANT, NOW + 300)
    newer = replace(GRANT, given_at=NOW + 100.5, ends_at=NOW + 400.5)
    await other.grants.keep(newer, NOW + 400)
    assert await one.grants.find(ALICE, NGINX) == newer


@by_two_workers
async def test_a_grant_that_has_ended_is_found_while_it_is_to_be_kept(one: Worker, other: Worker) -> None:
    ended = replace(GRANT, given_at=NOW - 600, ends_at=NOW - 300)
    await one.grants.keep(ended, NOW + 1)
    await one.grants.keep(replace(GRANT, source=REDIS), NOW + 300)
    assert await one.grants.find(ALICE, NGINX) == ended


@by_two_workers
async def test_what_is_forgotten_is_not_found(one: Worker, other: Worker) -> None:
    kept = [replace(GRANT, source=REDIS), replace(GRANT, caller=ANONYMOUS_CALLER)]
    for grant in (GRANT, *kept):
        await one.grants.keep(grant, NOW + 300)
    for _ in range(2):
        await other.grants.forget(ALICE, NGINX)
    assert await one.grants.find(ALICE, NGINX) is None
    assert [await one.grants.find(grant.caller, grant.source) for grant in kept] == kept


@by_two_workers
async def test_an_upstream_is_known_by_its_address(one: Worker, other: Worker) -> None:
    await one.grants.keep(GRANT, NOW + 300)
    source = replace(NGINX, upstream=replace(HUB, search_url="https://search.test"))
    assert await one.grants.find(ALICE, source) == replace(GRANT, source=source)
