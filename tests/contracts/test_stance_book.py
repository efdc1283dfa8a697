"""What every StanceBook does."""

from dataclasses import replace

from domain.challenge import Challenge
from domain.trust import Stance
from tests.contracts.storage import HUB, QUAY, Worker, by_two_workers

OPEN = Stance()
ASKED = Stance(
    (
        Challenge("Bearer", (("realm", "https://auth.test/token?a=\"b\"&c='d'"), ("service", "hub\udcff é"))),
        Challenge("Basic"),
        Challenge("Basic", (("realm", ""), ("realm", "twice"))),
    )
)


@by_two_workers
async def test_what_is_kept_is_found_by_all_for_that_upstream_alone(one: Worker, other: Worker) -> None:
    assert await one.stances.find(HUB) is None
    for stance in (ASKED, OPEN):
        await one.stances.keep(HUB, stance)
        assert await one.stances.find(HUB) == await other.stances.find(HUB) == stance
        assert await one.stances.find(QUAY) is None
    await other.stances.keep(QUAY, ASKED)
    assert [await one.stances.find(HUB), await one.stances.find(QUAY)] == [OPEN, ASKED]


@by_two_workers
async def test_an_upstream_is_known_by_its_address(one: Worker, other: Worker) -> None:
    await one.stances.keep(HUB, ASKED)
    assert await one.stances.find(replace(HUB, search_url="https://search.test")) == ASKED
