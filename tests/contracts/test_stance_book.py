"""What every UpstreamAuthStore does."""

from dataclasses import replace

from domain.challenge import Challenge
from domain.trust import UpstreamAuth
from tests.contracts.storage import HUB, QUAY, Worker, by_two_workers

OPEN = UpstreamAuth()
ASKED = UpstreamAuth(
    (
        Challenge("Bearer", (("realm", "https://auth.test/token?a=\"b\"&c='d'"), ("service", "hub\udcff é"))),
        Challenge("Basic"),
        Challenge("Basic", (("realm", ""), ("realm", "twice"))),
    )
)


@by_two_workers
async def test_what_is_kept_is_found_by_all_for_that_upstream_alone(one: Worker, other: Worker) -> None:
    assert await one.upstream_auth.find(HUB) is None
    for auth in (ASKED, OPEN):
        await one.upstream_auth.keep(HUB, auth)
        assert await one.upstream_auth.find(HUB) == await other.upstream_auth.find(HUB) == auth
        assert await one.upstream_auth.find(QUAY) is None
    await other.upstream_auth.keep(QUAY, ASKED)
    assert [await one.upstream_auth.find(HUB), await one.upstream_auth.find(QUAY)] == [OPEN, ASKED]


@by_two_workers
async def test_an_upstream_is_known_by_its_address(one: Worker, other: Worker) -> None:
    await one.upstream_auth.keep(HUB, ASKED)
    assert await one.upstream_auth.find(replace(HUB, search_url="https://search.test")) == ASKED
